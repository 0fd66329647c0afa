"""Every step: gradients and losses that are not finite, that explode; losses that diverge; players that stand still."""

from __future__ import annotations

import hashlib
import math
from statistics import median
from typing import Any

import torch
from torch import nn

from genai_core.monitors.signals import LIMITS, Signal, signal

REMEMBERED, LEAST, SUSTAINED = 100, 30, 5  # steps: of the median, before it means something, that must agree
LIMIT = LIMITS["exploding"].act or math.inf
FIRST = 10  # steps whose loss says what an untrained model costs
NOISE, LITTLE = 4.0, 0.05  # standard errors; share of the first loss that is little to have learnt
PROBED = 64  # entries of every tensor that tell whether it moves


class Pulse:
    """Gradient norms and losses of the phases of a fit. All its state is in `kept`, plain values for a checkpoint.

    likelihood: losses are nats, so they are watched too; those of adversaries mean nothing by themselves.
    """

    def __init__(self, kept: dict[str, Any], likelihood: bool) -> None:
        self.kept, self.likelihood = kept, likelihood

    def beat(self, phase: str, norm: float, loss: float, step: int) -> Signal | None:
        """After the gradient of a step, equal on all replicas; a signal when something must be done at once."""
        if not math.isfinite(norm):
            return signal("not_finite", 1.0, f"the gradient of phase {phase!r} is not finite at step {step}")
        watched = [("gradient norm", "norm", norm)] + [("loss", "loss", loss)] * self.likelihood
        for name, key, value in watched:
            history = self.kept.setdefault(f"{phase}/{key}", [])
            history.append(float(f"{abs(value):.6g}"))
            del history[:-REMEMBERED]
            usual = self._usual(f"{phase}/{key}", step)
            if usual and min(history[-SUSTAINED:]) > usual * LIMIT:
                times = median(history[-SUSTAINED:]) / usual
                said = f"the {name} of phase {phase!r} is {times:.0f} times its running median at step {step}"
                return signal("exploding", times, said)
        if self.likelihood:
            self._sum(loss)
        return None

    def _usual(self, name: str, step: int) -> float:
        """The running median before the last steps; found anew every tenth step, which is often enough."""
        history, usual = self.kept[name], self.kept.setdefault("usual", {})
        if len(history) > LEAST + SUSTAINED and (step % 10 == 0 or name not in usual):
            usual[name] = median(history[:-SUSTAINED])
        return float(usual.get(name, 0.0))

    def _sum(self, loss: float) -> None:
        start = self.kept.setdefault("start", [])
        if len(start) < FIRST:
            start.append(loss)
        jump = loss - self.kept.get("last", loss)
        self.kept["last"], self.kept["sum"] = loss, self.kept.get("sum", 0.0) + loss
        self.kept["jumps"] = self.kept.get("jumps", 0.0) + jump * jump
        self.kept["steps"] = self.kept.get("steps", 0) + 1

    def diverging(self) -> Signal | None:
        """At a validation: how much of what was learnt the mean training loss since the last one has lost again.

        Less what chance adds: four standard errors, by the jumps from step to step (von Neumann 1941).
        """
        if (steps := self.kept.get("steps", 0)) < FIRST:
            return None
        now, first = self.kept["sum"] / steps, median(self.kept["start"])
        noise = (self.kept["jumps"] / 2 / (steps - 1) * (1 / steps + 1 / FIRST)) ** 0.5
        best = min(self.kept.get("best", first), first)
        self.kept |= {"best": min(best, now), "sum": 0.0, "jumps": 0.0, "steps": 0}
        if not math.isfinite(now):
            return signal("diverging", math.inf, f"the mean training loss is {now}")
        lost = max(now - best - NOISE * noise, 0.0) / max(first - best, LITTLE * abs(first), 1e-12)
        said = f"the training loss is {now:.4g}; it began at {first:.4g} and was {best:.4g}"
        return signal("diverging", lost, said)

    def calm(self) -> None:
        """After going back: what was seen on the way to failure is no measure."""
        for name in [n for n in self.kept if "/" in n]:
            self.kept[name] = []
        self.kept |= {"usual": {}, "sum": 0.0, "jumps": 0.0, "steps": 0}

    def begin_again(self) -> None:
        """After the model was asked to hold back: its loss is another one (more free bits), no loss of what it knew."""
        self.calm()
        self.kept["start"] = []
        self.kept.pop("best", None)


def probe(parameters: list[nn.Parameter]) -> str:
    """A hash of a few entries of every tensor: it changes when they move."""
    with torch.no_grad():
        entries = torch.cat([p.flatten()[:PROBED].float() for p in parameters if p.numel()])
    return hashlib.blake2b(entries.cpu().numpy().tobytes(), digest_size=8).hexdigest()
