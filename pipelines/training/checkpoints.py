"""Checkpoints of a training job, on a disk or in a store: each one safetensors file, so that nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from genai_core.errors import InvalidData, Unavailable
from pipelines.stores import storage

KEPT = 2  # the one before the last is for whom a disk has damaged the last
RESULT, STATE, END, MARK = "result", "state-", ".safetensors", "job.json"
State = tuple[dict[str, Tensor], dict[str, Any]]


class Checkpoints:
    """Those of one job; a file appears whole or not at all: by a rename, or by one PUT.

    Whoever starts the same job again, on whatever machine, finds them by the job's id. Any process that is given
    `uri` can read them; one process at a time writes.
    """

    def __init__(self, uri: str, job_id: str) -> None:
        self.uri = uri
        with storage.explained(uri):
            self.filesystem, folder = storage.resolve(uri)
        self.folder = storage.join(folder, job_id)

    def announce(self) -> None:
        """Leave a file that tells workers elsewhere that they see the same place as the driver."""
        with storage.explained(self.uri):
            storage.put_bytes(self.filesystem, storage.join(self.folder, MARK), b"{}")

    def require(self) -> None:
        """Raises Unavailable where this machine does not see what the driver sees."""
        with storage.explained(self.uri):
            if storage.exists(self.filesystem, storage.join(self.folder, MARK)):
                return
        raise Unavailable(
            f"checkpoints: {storage.mask(self.uri)} is another place on this worker's machine than on the driver's; "
            "give a place that all machines reach, such as s3://bucket/checkpoints or a shared file system"
        )

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep a state of the fit, and the one before; facts: JSON, with the `history` of validations.

        Numbered by validation: a step has another number when workers have come or gone.
        """
        self._put(f"{STATE}{len(facts['history']):09d}", tensors, facts)
        for old in self._states()[:-KEPT]:
            storage.delete(self.filesystem, old)

    def load(self) -> State | None:
        """The last state, or None. Raises InvalidData."""
        states = self._states()
        return self._read(states[-1]) if states else None

    def save_result(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep what a finished fit has come to."""
        self._put(RESULT, tensors, facts)

    def result(self) -> State | None:
        """What a finished fit has come to, or None. Raises InvalidData."""
        path = self._path(RESULT)
        with storage.explained(self.uri):
            return self._read(path) if storage.exists(self.filesystem, path) else None

    def facts(self) -> dict[str, Any] | None:
        """Those of the last state, read without its tensors; None before there is one, or while it is replaced."""
        with storage.explained(self.uri):
            try:
                states = self._states()
                return _header(self.filesystem, states[-1]) if states else None
            except FileNotFoundError:
                return None

    def clear(self) -> None:
        """Remove everything of the job."""
        with storage.explained(self.uri):
            for file in storage.list_files(self.filesystem, self.folder):
                storage.delete(self.filesystem, file.path)
            if self.filesystem.type_name in storage.RENAMING and storage.exists(self.filesystem, self.folder):
                self.filesystem.delete_dir(self.folder)

    def _path(self, name: str) -> str:
        return storage.join(self.folder, name + END)

    def _states(self) -> list[str]:
        """Paths, the last state last."""
        with storage.explained(self.uri):
            files = storage.list_files(self.filesystem, self.folder, recursive=False)
        names = ((Path(file.path).name, file.path) for file in files)
        return [path for name, path in names if name.startswith(STATE) and name.endswith(END)]

    def _put(self, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        # clones: tensors may share memory, which the format refuses
        own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        with storage.explained(self.uri):
            storage.put_bytes(self.filesystem, self._path(name), save(own, {"facts": json.dumps(facts)}))

    def _read(self, path: str) -> State:
        with storage.explained(self.uri):
            data = storage.read_bytes(self.filesystem, path)
        try:
            return load(data), _facts(data[8 : 8 + int.from_bytes(data[:8], "little")])
        except (SafetensorError, ValueError, KeyError) as error:
            raise InvalidData(
                f"the checkpoint {storage.mask(self.uri)}: {Path(path).name} is damaged ({error}); remove it to go on "
                "from the one before, or all of the job's to begin again"
            ) from error


def _header(filesystem: pafs.FileSystem, path: str) -> dict[str, Any]:
    with filesystem.open_input_file(path) as file:
        return _facts(file.read(int.from_bytes(file.read(8), "little")))


def _facts(header: bytes) -> dict[str, Any]:
    """The format keeps strings beside the tensors; ours is one JSON object."""
    facts: dict[str, Any] = json.loads(json.loads(header)["__metadata__"]["facts"])
    return facts
