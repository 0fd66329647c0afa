"""A training checkpoint as a directory: JSON and safetensors, so that nothing is unpickled."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, FACTS = "tensors.safetensors", "facts.json"


def write(directory: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Replace the checkpoint in `directory` by this one: whole or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".checkpoint-", dir=directory.parent))
    fill(beside, tensors, facts)
    old = beside.with_name(beside.name + "-old")
    if directory.exists():
        directory.replace(old)
    beside.replace(directory)
    shutil.rmtree(old, ignore_errors=True)


def fill(directory: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a checkpoint into an empty directory."""
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        directory / TENSORS,
    )
    (directory / FACTS).write_text(json.dumps(facts))


def read(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint, or None when there is no whole one."""
    if not (directory / TENSORS).is_file() or not (directory / FACTS).is_file():
        return None
    return load_file(directory / TENSORS), json.loads((directory / FACTS).read_text())
