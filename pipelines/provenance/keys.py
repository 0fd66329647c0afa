"""An own certificate authority and a signing certificate: what `genai keys init` makes and signatures stand on.

    ca.pem         the authority's certificate: give it to whoever shall verify, and to nobody in secret
    ca.key         its private key (0600): needed only to issue another signing certificate; keep it offline
    signing.pem    the certificate that signs, followed by the authority's
    signing.key    its private key (0600): what a job needs

ECDSA over P-256 with SHA-256 (ES256). The extensions are those that C2PA asks of a signing certificate.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_core.errors import InvalidInput, OutputExists, Unavailable

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA, CA_KEY, SIGNING, SIGNING_KEY = "ca.pem", "ca.key", "signing.pem", "signing.key"
SECRET = (CA_KEY, SIGNING_KEY)
VARIABLE, TRUST_VARIABLE = "GENAI_SIGNING_KEY", "GENAI_TRUST"
CA_DAYS, SIGNING_DAYS = 3651, 3650  # without a time stamp of a third party nothing signed is valid for longer
NEEDED = "signing needs the packages c2pa-python and cryptography; say: pip install 'genai-core[provenance]'"
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def default_directory() -> Path:
    """Where keys lie when nobody says another place: never in a working directory, which may be published."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "genai-core" / "keys"


@dataclass(frozen=True)
class SigningKey:
    """A certificate chain and its private key; the key never shows in a repr, a log or a file of ours."""

    chain: str
    fingerprint: str
    directory: str
    _private: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.fingerprint})"

    @property
    def authority(self) -> str:
        """The last certificate of the chain, in PEM."""
        begin = "-----BEGIN CERTIFICATE"
        return begin + self.chain.rpartition(begin)[2]

    def private_bytes(self) -> bytes:
        """The private key in PEM, for the library that signs."""
        return self._private


def init(directory: Path, organisation: str) -> dict[str, Any]:
    """Make the four files; returns what `show` says of them. OutputExists when one of them is there."""
    _cryptography()
    from cryptography.hazmat.primitives.asymmetric import ec

    there = [name for name in (CA, CA_KEY, SIGNING, SIGNING_KEY) if (directory / name).exists()]
    if there:
        raise OutputExists(
            f"{directory} holds keys already ({', '.join(there)}); they are never overwritten: what they have signed "
            "could no longer be verified. Choose another directory with --to"
        )
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _authority(ca_key, organisation)
    certificate = _signing_certificate(key, ca, ca_key, organisation)
    _write(directory / CA_KEY, _private_pem(ca_key), 0o600)
    _write(directory / SIGNING_KEY, _private_pem(key), 0o600)
    _write(directory / CA, _pem(ca), 0o644)
    _write(directory / SIGNING, _pem(certificate) + _pem(ca), 0o644)
    return show(directory)


def show(directory: Path) -> dict[str, Any]:
    """Whose keys these are, until when they sign, and their fingerprints; nothing of a private key."""
    certificate, authority = _read_chain(directory / SIGNING)[0], _read_chain(directory / CA)[0]
    return {
        "directory": str(directory),
        "organisation": certificate.subject.rfc4514_string(),
        "fingerprint": fingerprint_of(certificate),
        "authority": fingerprint_of(authority),
        "signs_until": certificate.not_valid_after_utc.isoformat(),
        "authority_key": "here" if (directory / CA_KEY).exists() else "elsewhere",
    }


def load(directory: str | Path) -> SigningKey:
    """The key to sign with. Raises InvalidInput: none there, open to others, out of date, or of another certificate."""
    from_cryptography = _cryptography()
    path = Path(directory).expanduser()
    chain = _read_chain(path / SIGNING)
    private = _read_secret(path / SIGNING_KEY)
    try:
        key = from_cryptography.load_pem_private_key(private, None)
    except (ValueError, TypeError):
        raise InvalidInput(f"{path / SIGNING_KEY} is no private key in PEM without a passphrase") from None
    if key.public_key() != chain[0].public_key():
        raise InvalidInput(f"{path / SIGNING_KEY} does not belong to the certificate in {path / SIGNING}")
    if not chain[0].not_valid_before_utc <= dt.datetime.now(dt.UTC) <= chain[0].not_valid_after_utc:
        raise InvalidInput(
            f"the certificate in {path / SIGNING} signs until {chain[0].not_valid_after_utc:%Y-%m-%d} only; make new "
            "keys with `genai keys init --to DIR`"
        )
    text = "".join(_pem(one).decode() for one in chain)
    return SigningKey(text, fingerprint_of(chain[0]), str(path), private)


def directory_for(named: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The directory of the key: that of the job, else of the environment, else None: nothing is signed."""
    return named or environment.get(VARIABLE) or None


def trust_anchors(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The certificates of the authorities that are believed, in PEM; empty when there are none.

    given  a .pem file, or a directory whose ca.pem (or else every .pem file) counts; default: GENAI_TRUST, else the
           authority beside the signing key, else that of the default directory
    """
    named = given or environment.get(TRUST_VARIABLE)
    path = Path(named or directory_for(None, environment) or default_directory()).expanduser()
    if not path.exists():
        if named:
            raise InvalidInput(
                f"{path}: there is no such certificate; give a .pem file or a directory of them"
            )
        return ""
    files = [path]
    if path.is_dir():
        files = [path / CA] if (path / CA).exists() else sorted(path.glob("*.pem"))
    found = [_pem(certificate).decode() for file in files for certificate in _read_chain(file)]
    if named and not found:
        raise InvalidInput(f"{path} holds no certificate; give a .pem file or a directory of them")
    return "".join(found)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """sha256 of a certificate, as `sha256:...`."""
    from cryptography.hazmat.primitives import hashes

    return "sha256:" + certificate.fingerprint(hashes.SHA256()).hex()


def _cryptography() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise Unavailable(NEEDED) from None
    return serialization


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> Any:
    from cryptography import x509

    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(organisation: str, role: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    parts = ((NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, f"{organisation} {role}"[:64]))
    try:
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    except ValueError as error:
        raise InvalidInput(
            f"--organisation {organisation!r} cannot stand in a certificate: {error}"
        ) from None


def _usage(*allowed: str) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(**{name: name in allowed for name in USAGES})


def _authority(key: EllipticCurvePrivateKey, organisation: str) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = _name(organisation, "authority")
    builder = _builder(name, name, key, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    return builder.sign(key, hashes.SHA256())


def _signing_certificate(
    key: EllipticCurvePrivateKey, ca: x509.Certificate, ca_key: EllipticCurvePrivateKey, organisation: str
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    builder = _builder(_name(organisation, "synthetic data"), ca.subject, key, SIGNING_DAYS)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage("digital_signature"), True),
        (
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]),
            False,
        ),  # C2PA refuses one without any
        (identifier, False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(ca_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _private_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    """With its mode from the first moment; never over a file that is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise OutputExists(f"{path} is there already; keys are never overwritten") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _read_chain(path: Path) -> list[x509.Certificate]:
    _cryptography()
    from cryptography import x509

    try:
        return list(x509.load_pem_x509_certificates(path.read_bytes()))
    except FileNotFoundError:
        raise InvalidInput(
            f"{path} does not exist; `genai keys init --to {path.parent}` makes keys"
        ) from None
    except (OSError, ValueError):
        raise InvalidInput(f"{path} cannot be read as certificates in PEM") from None


def _read_secret(path: Path) -> bytes:
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise InvalidInput(f"{path} can be read by everybody on this machine; say: chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError:
        raise InvalidInput(
            f"{path} does not exist; `genai keys init --to {path.parent}` makes keys"
        ) from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
