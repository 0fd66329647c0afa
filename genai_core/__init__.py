"""Generative models of tables: write more of the data, and tell what does not belong.

import genai_core as genai

model = genai.fit(table, max_seconds=60)        # pyarrow, pandas or numpy
more = model.sample(1000, where={"origin": "JFK"})
nats = model.log_prob(table)
model.save("model"); model = genai.load("model")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_WHERE = {
    "AnomalyDetector": "genai_core.detector",
    "FittedModel": "genai_core.fitted",
    "fit": "genai_core.train",
    "load": "genai_core.artifact",
    "read_header": "genai_core.artifact",
}
__all__ = ["AnomalyDetector", "FittedModel", "__version__", "fit", "load", "read_header"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'genai_core' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
