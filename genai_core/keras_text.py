"""A network defined in Keras, as text: taken from a model or a file, refused where it could run code or read files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGEST = 4 * 2**20  # bytes of a file
MODULES = (
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.layers",
    "keras.models",
    "keras.regularizers",
    "keras.src.models.functional",
    "keras.src.models.sequential",
)
OPERATIONS = "keras.src.ops."  # keras.ops used between layers
REFUSED = {
    "FlaxLayer": "it holds code",
    "HashedCrossing": "it reads no pictures",
    "IntegerLookup": "it may read files",
    "JaxLayer": "it holds code",
    "Lambda": "it holds code: write it with layers or keras.ops",
    "StringLookup": "it may read files",
    "TFSMLayer": "it loads a file that holds code",
    "TextVectorization": "it may read files",
    "TorchModuleWrapper": "it holds a pickle",
}


def keras_json(value: Any) -> str | None:
    """The JSON of a network: of a keras.Model, of JSON text, or of the .json file at a path.

    A path is read here, when a job is read: the settings hold the network itself and never the path. ValueError for
    everything else, and for networks of parts that Keras does not define.
    """
    if value is None:
        return None
    if callable(getattr(value, "to_json", None)):
        value = value.to_json()
    if not isinstance(value, str):
        raise ValueError(
            f"found a {type(value).__name__}; accepted are a keras.Model, its JSON, or a .json file's path"
        )
    text = value if value.lstrip().startswith("{") else _read(value)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("found text that is no JSON; accepted is what model.to_json() gives") from None
    if not isinstance(found, dict) or not {"class_name", "config"} <= found.keys():
        raise ValueError("found JSON that is no Keras network; accepted is what model.to_json() gives")
    found.pop("compile_config", None)  # the family has losses and optimisers of its own
    _refuse_strange(found)
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _read(path: str) -> str:
    try:
        file = Path(path).expanduser()
        found = file.suffix == ".json" and file.is_file()
    except (OSError, RuntimeError):  # a name that is too long; a user that does not exist
        found = False
    if not found:
        raise ValueError(
            f"found {path[:200]!r}, which is neither JSON nor a .json file that exists; write the network with "
            "Path('network.json').write_text(model.to_json())"
        )
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{path!r} is larger than {LARGEST >> 20} MiB; a network's JSON holds no weights")
    return file.read_text(encoding="utf-8")


def _refuse_strange(part: Any) -> None:
    """ValueError unless every class is one that Keras itself defines and that runs nothing but tensors."""
    if isinstance(part, list):
        for each in part:
            _refuse_strange(each)
    if not isinstance(part, dict):
        return
    name, module = part.get("class_name"), part.get("module")
    if name is not None:
        if not isinstance(name, str):
            raise ValueError(f"the network has a layer whose class is {str(name)[:40]}, which is no name")
        if name in REFUSED:
            raise ValueError(f"the network has a {name} layer, which is refused: {REFUSED[name]}")
        known = module in MODULES or str(module).startswith(OPERATIONS) or name == "__keras_tensor__"
        if not known or ">" in str(part.get("registered_name")):
            raise ValueError(
                f"the network has a {name!r} of {module!r}, which Keras does not define; accepted are Keras's own "
                "layers and operations, not code that would have to be imported"
            )
    for each in part.values():
        _refuse_strange(each)
