"""C2PA manifests ("content credentials"): signed and read, offline, through c2pa-python.

A Parquet part keeps its bytes and gets a sidecar of 3 kB; PNG and WAV files carry the manifest inside. Every manifest
says that a trained model made the content, and in an assertion of our own with which job, model and data.
C2PA specification 2 (2024), https://c2pa.org.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genai_core.errors import InvalidData, Unavailable
from pipelines.provenance.keys import NEEDED, SigningKey

SYNTHETIC = "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData"
MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ASSERTION = "io.genai-core.provenance"
ANY = "application/octet-stream"  # what a sidecar is of: only the bytes count
EMBEDDED = {".png": "image/png", ".wav": "audio/wav"}
# of rows that a job has carried over as they were: no model made them
CARRIED = "http://cv.iptc.org/newscodes/digitalsourcetype/dataDrivenMedia"
# No pictures inside the manifest, nothing asked of any network
OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}
TRUSTED, UNTRUSTED, INVALID = "trusted", "untrusted", "invalid"


@dataclass(frozen=True)
class Credential:
    """What a manifest says and whether it may be believed.

    state   trusted: the bytes are those that were signed, by a certificate of a trusted authority; untrusted: the
            bytes are those that were signed, by somebody else; invalid: something was changed
    signer  common name of the certificate; facts: our own assertion; faults: C2PA's codes of what failed
    """

    state: str
    signer: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    synthetic: bool = False
    faults: tuple[str, ...] = ()


class Signer:
    """Signs with one key; not for several threads at once."""

    def __init__(self, key: SigningKey) -> None:
        self.c2pa = _library()
        info = self.c2pa.C2paSignerInfo("es256", key.chain.encode(), key.private_bytes(), None)
        self.signer = self.c2pa.Signer.from_info(info)
        self.key = key

    def sidecar(
        self, data: bytes, facts: Mapping[str, Any], title: str, when: str, synthetic: bool = True
    ) -> bytes:
        """The manifest of these bytes, to lie beside them."""
        with self._builder(facts, title, when, SYNTHETIC if synthetic else CARRIED) as builder:
            builder.set_no_embed()
            # the copy that the library writes of an unchanged file is thrown away
            return bytes(builder.sign(self.signer, ANY, io.BytesIO(data), _Nowhere()))

    def embedded(self, data: bytes, kind: str, facts: Mapping[str, Any], title: str, when: str) -> bytes:
        """A PNG or WAV file with its manifest inside; `kind` is its ending. Raises InvalidData for a broken file."""
        out = io.BytesIO()
        try:
            with self._builder(facts, title, when, MEDIA) as builder:
                builder.sign(self.signer, EMBEDDED[kind], io.BytesIO(data), out)
        except self.c2pa.C2paError as error:
            raise InvalidData(f"{title}: cannot be signed as {EMBEDDED[kind]}: {error}") from None
        return out.getvalue()

    def _builder(self, facts: Mapping[str, Any], title: str, when: str, source: str) -> Any:
        from pipelines.plan import versions

        made = {"action": "c2pa.created", "digitalSourceType": source, "when": when}
        manifest = {
            "claim_generator_info": [{"name": "genai-core", "version": versions()["genai-core"]}],
            "title": title,
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [made]}},
                {"label": ASSERTION, "data": dict(facts)},
            ],
        }
        # not verified after signing: it took as long as signing itself, and `genai verify` does it
        settings = {
            "builder": {"thumbnail": {"enabled": False}},
            "verify": {"verify_after_sign": False, **OFFLINE},
        }
        context = self.c2pa.Context(self.c2pa.Settings.from_dict(settings))
        return self.c2pa.Builder.from_json(manifest, context)


def read(data: Any, anchors: str, sidecar: bytes | None = None, kind: str = ANY) -> Credential | None:
    """The credential of these bytes, from a sidecar or from inside; None when there is none.

    data     bytes, or a file that is open for reading
    anchors  certificates of the authorities that are believed, in PEM
    """
    c2pa = _library()
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    trust = {"trust": {"trust_anchors": anchors}} if anchors else {}
    settings = {"verify": {"verify_trust": True, **OFFLINE}, **trust}
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(settings))
        with c2pa.Reader(kind, stream, sidecar, context) as reader:
            return _credential(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except (c2pa.C2paError, ValueError) as error:
        return Credential(INVALID, faults=(str(error)[:120],))


def _credential(found: Mapping[str, Any]) -> Credential:
    manifest = found.get("manifests", {}).get(found.get("active_manifest"), {})
    assertions = {one["label"]: one["data"] for one in manifest.get("assertions", ())}
    actions = [a for name, data in assertions.items() if "c2pa.actions" in name for a in data["actions"]]
    results = found.get("validation_results", {}).get("activeManifest", {})
    faults = tuple(fault["code"] for fault in results.get("failure", ()))
    state = {"Trusted": TRUSTED, "Valid": UNTRUSTED}.get(str(found.get("validation_state")), INVALID)
    return Credential(
        state,
        manifest.get("signature_info", {}).get("common_name"),
        assertions.get(ASSERTION, {}),
        any(action.get("digitalSourceType") in (SYNTHETIC, MEDIA) for action in actions),
        faults,
    )


class _Nowhere(io.RawIOBase):
    """A file that takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.place = self.length = 0

    def write(self, data: Any) -> int:
        self.place += len(data)
        self.length = max(self.length, self.place)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = (0, self.place, self.length)[whence] + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _library() -> Any:
    try:
        import c2pa
    except ImportError:
        raise Unavailable(NEEDED) from None
    return c2pa
