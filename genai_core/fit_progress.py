"""How far a fit has come: what a checkpoint must carry beside the tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Steps are counted as the present replicas take them."""

    step: int = 0
    done: float = 0.0  # share of the schedule
    seconds: float = 0.0
    validating: float = 0.0  # of the seconds
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    steps_per_epoch: int = 0
    worlds: list[list[int]] = field(default_factory=list)  # [step, replicas from then on]
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the losses, by phase: float16 alone
    health: dict[str, Any] = field(default_factory=dict)  # see `genai_core.monitors.health`


def recount(p: Progress, steps_per_epoch: int) -> None:
    """Other replicas may take other steps for an epoch: steps are put where they are in the epochs."""
    factor = steps_per_epoch / p.steps_per_epoch
    if factor == 1:
        return
    p.step, p.best_step = round(p.step * factor), round(p.best_step * factor)
    p.history = [entry | {"step": round(entry["step"] * factor)} for entry in p.history]
    p.worlds = [[round(step * factor), world] for step, world in p.worlds]
