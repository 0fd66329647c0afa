"""A fitted model as a directory: JSON and safetensors, never pickle.

    artifact.json        header: format, family, capabilities, schema, provenance, sha256 of the other files; it
                         carries its own digest, which names the model in manifests and footers
    codec.json           what the codec fitted
    arrays.safetensors   the codec's arrays, what scores have fitted, the calibration scores, how often the
                         held-out rows have each value of a column, and in which of some twenty parts of a
                         column each row that calibrates lies
    weights.safetensors  the network

Every hash is checked before a file is read: a changed byte is refused.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genai_core import catalog
from genai_core.errors import InvalidArtifact, MissingCapability, SchemaMismatch, Unavailable

if TYPE_CHECKING:
    from genai_core.calibration import Calibration
    from genai_core.codec import Codec
    from genai_core.drift import Profile
    from genai_core.fitted import FittedModel

FORMAT = 1
HEADER = "artifact.json"
PROFILE = "profile"  # the array of the columns' distribution
CALIBRATING = "calibrating"  # the array of the buckets of the rows that calibrate
FILES = ("arrays.safetensors", "codec.json", "weights.safetensors")
MAX_HEADER = 64 * 2**20
TYPES: dict[str, Any] = {
    "bound": str | None,
    "capabilities": list,
    "files": dict,
    "kind": str,
    "modality": str,
    "provenance": dict,
    "score_names": list,
    "settings": dict,
}
ROOM = 64 * 2**20  # bytes of parameters that a network may make and drop while it is built


@dataclass(frozen=True)
class Header:
    """What can be known of a model without torch."""

    format: int
    digest: str
    kind: str
    modality: str
    capabilities: tuple[str, ...]
    bound: str | None
    score_names: tuple[str, ...]
    schema: pa.Schema
    settings: dict[str, Any]
    provenance: dict[str, Any]
    files: dict[str, str]


def save(fitted: FittedModel, directory: str | os.PathLike[str]) -> str:
    """Write the directory (made if missing; must hold no other artifact's files) and return the digest."""
    from safetensors.numpy import save as numpy_bytes
    from safetensors.torch import save as torch_bytes

    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    settings, arrays = fitted.codec.state()
    arrays = {f"codec/{name}": value for name, value in arrays.items()}
    arrays |= {f"calibration/{name}": c.given for name, c in fitted.calibrations.items()}
    if fitted.profile is not None:
        arrays |= {PROFILE: fitted.profile.tokens}
        arrays |= {} if fitted.profile.rows is None else {CALIBRATING: fitted.profile.rows}
    for score, state in fitted.score_states.items():
        arrays |= {f"score/{score}/{name}": value.cpu().numpy() for name, value in state.items()}
    weights = {name: value.detach().cpu().contiguous() for name, value in fitted.model.state_dict().items()}
    contents = {
        "arrays.safetensors": numpy_bytes(arrays),
        "codec.json": _canonical(settings),
        "weights.safetensors": torch_bytes(weights),
    }
    header = _describe(fitted) | {"files": {name: _sha256(data) for name, data in contents.items()}}
    header["digest"] = _digest(header)
    for name, data in contents.items():
        (path / name).write_bytes(data)
    (path / HEADER).write_bytes(json.dumps(header, indent=1, sort_keys=True).encode())
    fitted.digest = header["digest"]
    return header["digest"]


def _describe(fitted: FittedModel) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": fitted.kind,
        "modality": fitted.modality,
        "capabilities": list(fitted.capabilities),
        "bound": fitted.bound,
        "score_names": list(fitted.score_names),
        "schema": base64.b64encode(fitted.schema.serialize().to_pybytes()).decode(),
        "settings": fitted.model.settings.model_dump(),  # type: ignore[union-attr, operator]
        "provenance": fitted.provenance,
    }


def read_header(directory: str | os.PathLike[str]) -> Header:
    """The header, its digest checked; quick and without torch. Raises InvalidArtifact."""
    path = Path(directory) / HEADER
    if not path.is_file():
        raise InvalidArtifact(
            f"no model at {str(directory)!r}: {HEADER} is missing. Give a directory written by a train job"
        )
    if path.stat().st_size > MAX_HEADER:
        raise InvalidArtifact(
            f"{str(path)!r} is larger than {MAX_HEADER >> 20} MiB; it is not a model's header"
        )
    try:
        found = json.loads(path.read_bytes())
        number, digest = found["format"], _digest(found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        raise InvalidArtifact(
            f"{str(path)!r} is not a model's header: it is damaged or something else"
        ) from None
    if type(number) is not int or number > FORMAT:
        raise InvalidArtifact(
            f"the model at {str(directory)!r} has format {number!r}; this version reads up to {FORMAT}. "
            "Upgrade genai-core"
        )
    if found.get("digest") != digest:
        raise InvalidArtifact(
            f"{str(path)!r} was changed after it was written: its digest does not fit. Restore it or train again"
        )
    return _header(found, path)


def _header(found: dict[str, Any], path: Path) -> Header:
    try:
        if not all(isinstance(found[name], kind) for name, kind in TYPES.items()):
            raise TypeError
        found["schema"] = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(found["schema"])))
        for name in ("capabilities", "score_names"):
            found[name] = tuple(found[name])
        header = Header(**found)
        if header.kind not in catalog.MODELS or header.modality not in catalog.MODALITIES:
            raise ValueError
        if set(header.files) != set(FILES) or {type(n) for n in header.capabilities + header.score_names} - {
            str
        }:
            raise ValueError
    except (TypeError, ValueError, KeyError, OSError, pa.ArrowException):
        raise InvalidArtifact(f"{str(path)!r} is not a header that this version understands") from None
    return header


def check_schema(header: Header, schema: pa.Schema) -> None:
    """Raise SchemaMismatch unless tables of `schema` fit the model; needs no torch and no fitted codec."""
    faults = catalog.codec_class(header.modality).schema_faults(header.schema, schema)
    if faults:
        raise SchemaMismatch("the table does not fit the model: " + "; ".join(faults))


def verify(directory: str | os.PathLike[str]) -> Header:
    """The header, after the hash of every file was checked; without torch. Raises InvalidArtifact."""
    header = read_header(directory)
    for name, digest in header.files.items():
        _checked(Path(directory), name, digest)
    return header


def load(directory: str | os.PathLike[str]) -> FittedModel:
    """The fitted model, every byte checked first. Raises InvalidArtifact."""
    header = read_header(directory)
    contents = {name: _checked(Path(directory), name, digest) for name, digest in header.files.items()}
    with _fitting_together(directory):
        return _assemble(header, contents)


@contextlib.contextmanager
def _fitting_together(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Hashes show that nothing was changed, not that it makes sense: a forged model may fail anywhere."""
    try:
        yield
    except (Unavailable, MissingCapability):
        raise
    except Exception as error:
        reason = str(error)[:500] or type(error).__name__
        raise InvalidArtifact(f"the model at {str(directory)!r} does not fit together: {reason}") from error


def _assemble(header: Header, contents: dict[str, bytes]) -> FittedModel:
    import torch
    from safetensors.numpy import load as numpy_arrays
    from safetensors.torch import load as torch_tensors

    from genai_core.fitted import FittedModel

    arrays = numpy_arrays(contents["arrays.safetensors"])
    codec = _codec(header, contents["codec.json"], arrays)
    with _no_larger_than(len(contents["weights.safetensors"]) + ROOM):
        model = catalog.build_model(header.kind, codec.space, header.settings)
    model.load_state_dict(torch_tensors(contents["weights.safetensors"]))
    states: dict[str, dict[str, Any]] = {}
    for path, array in arrays.items():
        if path.startswith("score/"):
            _, score, name = path.split("/", 2)
            states.setdefault(score, {})[name] = torch.from_numpy(array)
    known = (header.provenance, header.digest, _profile(codec, arrays))
    return FittedModel(
        header.kind, header.modality, codec, model.eval(), _calibrations(arrays), states, *known
    )


def load_calibration(directory: str | os.PathLike[str]) -> tuple[Profile | None, dict[str, Calibration]]:
    """What rows are held against, without torch: how the columns of a table were distributed (None: no table, or an
    older model), and the held-out scores by name.
    """
    from safetensors.numpy import load as numpy_arrays

    header = read_header(directory)
    data, settings = (
        _checked(Path(directory), n, header.files[n]) for n in ("arrays.safetensors", "codec.json")
    )
    with _fitting_together(directory):
        arrays = numpy_arrays(data)
        return _profile(_codec(header, settings, arrays), arrays), _calibrations(arrays)


def _profile(codec: Codec, arrays: Mapping[str, np.ndarray]) -> Profile | None:
    from genai_core.drift import Profile

    return Profile.of(codec.space, arrays.get(PROFILE), arrays.get(CALIBRATING))


def _calibrations(arrays: Mapping[str, np.ndarray]) -> dict[str, Calibration]:
    from genai_core.calibration import Calibration

    prefix = "calibration/"
    return {n.removeprefix(prefix): Calibration(a) for n, a in arrays.items() if n.startswith(prefix)}


@contextlib.contextmanager
def _no_larger_than(limit: int) -> Iterator[None]:
    """ValueError as soon as a network that is built here has more bytes of parameters: settings may ask for terabytes.

    The parameter is refused before anything is written into it, so that it has cost no memory.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    builder, used = threading.get_ident(), 0

    def refuse(module: Any, name: str, parameter: Any) -> None:
        nonlocal used
        if threading.get_ident() == builder and parameter is not None:
            used += parameter.numel() * parameter.element_size()
            if used > limit:
                raise ValueError("its settings describe a network far larger than its weights")

    hook = register_module_parameter_registration_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def load_codec(directory: str | os.PathLike[str]) -> Codec:
    """The codec alone, its bytes checked first: what the model has seen, without torch. Raises InvalidArtifact."""
    from safetensors.numpy import load as numpy_arrays

    header = read_header(directory)
    names = ("codec.json", "arrays.safetensors")
    settings, arrays = (_checked(Path(directory), name, header.files[name]) for name in names)
    with _fitting_together(directory):
        return _codec(header, settings, numpy_arrays(arrays))


def _codec(header: Header, settings: bytes, arrays: dict[str, Any]) -> Codec:
    prefix = "codec/"
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return catalog.codec_class(header.modality).from_state(json.loads(settings), own)


def _checked(directory: Path, name: str, digest: str) -> bytes:
    path = directory / name
    if not path.is_file():
        raise InvalidArtifact(f"the model at {str(directory)!r} is incomplete: {name} is missing")
    data = path.read_bytes()
    if _sha256(data) != digest:
        raise InvalidArtifact(
            f"{str(path)!r} was changed after it was written: its sha256 does not fit. Restore it or train again"
        )
    return data


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(header: dict[str, Any]) -> str:
    return "sha256:" + _sha256(
        _canonical({name: value for name, value in header.items() if name != "digest"})
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
