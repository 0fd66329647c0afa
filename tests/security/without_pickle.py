"""`genai` in a process that unpickles nothing but what it has pickled itself: python without_pickle.py ARGUMENTS

Told apart by their bytes: what `pickle.dumps` returned in this process may be loaded again (a copy made in memory).
Everything else raises, and so does every unpickler that is made some other way, as soon as it looks up a class:
the interpreter's audit event for that is raised by the C code itself. Only compiled modules (.pyc) may be
unmarshalled, by the import system.
"""

from __future__ import annotations

import _pickle
import hashlib
import io
import json
import marshal
import pickle
import sys
from typing import Any

OWN: set[bytes] = set()
LOADING = [0]
USED = {"copies": 0}
_dumps, _loads, _unmarshal = pickle.dumps, pickle.loads, marshal.loads


class Unpickled(BaseException):
    """No `except Exception` hides it."""


def dumps(*arguments: Any, **options: Any) -> bytes:
    made = _dumps(*arguments, **options)
    OWN.add(hashlib.sha256(made).digest())
    return made


def loads(data: Any, /, **options: Any) -> Any:
    if hashlib.sha256(bytes(data)).digest() not in OWN:
        raise Unpickled("pickle.loads of bytes that this process did not make")
    USED["copies"] += 1
    LOADING[0] += 1
    try:
        return _loads(data, **options)
    finally:
        LOADING[0] -= 1


def load(file: Any, **options: Any) -> Any:
    if not isinstance(file, io.BytesIO):
        raise Unpickled("pickle.load of a file")
    return loads(file.read(), **options)


def unmarshal(data: Any, /) -> Any:
    if "importlib" not in sys._getframe(1).f_code.co_filename:
        raise Unpickled("marshal.loads")
    return _unmarshal(data)


def refuse(*arguments: Any, **options: Any) -> Any:
    raise Unpickled("an unpickler was called")


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and not LOADING[0]:
        raise Unpickled(f"unpickled {arguments}")


def refuse_from_now_on() -> None:
    """Before anything else is imported, so that all see the same functions."""
    for module in (pickle, _pickle):
        module.dumps, module.loads, module.load = dumps, loads, load  # type: ignore[assignment]
    marshal.loads, marshal.load = unmarshal, refuse  # type: ignore[assignment]
    sys.addaudithook(watch)


def refuse_libraries() -> None:
    """The loaders of libraries that may unpickle, once they are imported."""
    import cloudpickle
    import joblib
    import numpy as np
    import pandas as pd
    import torch

    torch.load = pd.read_pickle = joblib.load = refuse
    cloudpickle.load = cloudpickle.loads = refuse
    plain = np.load
    np.load = lambda *a, allow_pickle=False, **o: refuse() if allow_pickle else plain(*a, **o)


LOADERS = (  # x holds a pickle that runs a command, m marshalled data
    "pickle.load(open('x', 'rb'))",
    "pickle.loads(open('x', 'rb').read())",
    "_pickle.Unpickler(open('x', 'rb')).load()",
    "pickle.Unpickler(open('x', 'rb')).load()",
    "pickle._Unpickler(open('x', 'rb')).load()",
    "torch.load('x')",
    "numpy.load('x', allow_pickle=True)",
    "joblib.load('x')",
    "marshal.loads(open('m', 'rb').read())",
)


def seen() -> list[str]:
    """Which of LOADERS raise, and that a copy in memory does not."""
    import joblib
    import numpy
    import torch

    names = {
        "_pickle": _pickle,
        "joblib": joblib,
        "marshal": marshal,
        "numpy": numpy,
        "pickle": pickle,
        "torch": torch,
    }
    found = []
    for code in LOADERS:
        try:
            eval(code, names)
        except Unpickled:
            found.append(code)
    copied = pickle.loads(pickle.dumps(io.BytesIO)) is io.BytesIO  # noqa: S301
    USED["copies"] = 0
    return [*found, *["a copy in memory is none"] * copied]


if __name__ == "__main__":
    refuse_from_now_on()
    refuse_libraries()
    tried = seen()
    from jobs.cli import main

    code = main(sys.argv[1:])
    print(json.dumps(USED | {"seen": tried}), file=sys.stderr)
    sys.exit(code)
