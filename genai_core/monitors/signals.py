"""Signals and their limits: what is read at a validation, and from where on it is a warning or a reason to act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

FINE, WARN, ACT = 0, 1, 2


class Limit(NamedTuple):
    """From where on a signal warns and acts; `below`: it is a low value that is bad. None: it never does."""

    warn: float | None
    act: float | None
    below: bool = False
    meaning: str = ""


# sources: Karras et al. 2020 (ADA: sign of D, overfitting), Naeem et al. 2020 (coverage), Burda et al. 2016 (active
# units); the others are this project's, measured by benchmarks/sabotage.py
LIMITS: dict[str, Limit] = {
    "not_finite": Limit(None, 1.0, meaning="steps whose gradient is not a finite number"),
    "exploding": Limit(None, 20.0, meaning="gradient norm or loss, times its running median"),
    "diverging": Limit(None, 1.0, meaning="share of what was learnt that the training loss has lost again"),
    "frozen": Limit(1.0, None, meaning="players whose weights no longer move"),
    "tiny_batch": Limit(8.0, None, True, "records a step"),
    "tiny_data": Limit(256.0, None, True, "training records"),
    "rising": Limit(2.0, 3.0, meaning="validations in a row with a worse held-out likelihood"),
    "posterior_collapse": Limit(0.5, 0.95, meaning="share of latent dimensions that carry < .01 nats"),
    "saturation": Limit(
        0.99, 0.999, meaning="sign of the discriminator on pairs of a training and a made record"
    ),
    "discriminator_overfit": Limit(0.5, 0.8, meaning="(D train - D held out) / (D train - D made)"),
    "noise_ignored": Limit(
        0.9, 0.99, meaning="share of made records that stay the same when their noise is another"
    ),
    "coverage": Limit(
        0.8, 0.5, True, "share of held-out records near a made one, that of real records being 1"
    ),
    "dependence": Limit(
        0.5, None, True, "dependence between the made columns of a table, that between real ones being 1"
    ),
    "histogram": Limit(0.1, None, meaning="nats between made and real classes or clusters"),
    "missing": Limit(1.0, None, meaning="classes or clusters of over 1 % that are never made"),
    "duplicates": Limit(0.01, 0.05, meaning="share of made records that are near copies of one another"),
    "memorising": Limit(
        0.02, 0.10, meaning="share of made records nearer to training ones than real ones are"
    ),
}


@dataclass(frozen=True)
class Signal:
    """One reading. `said` says in words what was found, for people."""

    name: str
    value: float
    level: int
    said: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


def signal(name: str, value: float, said: str = "", margin: float = 0.0) -> Signal:
    """A reading with the level that its limit says; margin: what chance alone may add, at this sample's size."""
    limit, level = LIMITS[name], FINE
    sign = -1 if limit.below else 1
    for mark, bound in ((WARN, limit.warn), (ACT, limit.act)):
        if bound is not None and sign * value - margin >= sign * bound:
            level = mark
    return Signal(name, value, level, said)


DONE = {
    "": "",
    "back": "went back to the last good weights, learning rate halved",
    "restrain": "held the model back: more augmentation or penalty, or more free bits",
    "stop": "stopped; the best weights are kept",
}


def line(event: Mapping[str, Any]) -> str:
    """One readable line of an event."""
    level = {WARN: "warning", ACT: "alarm"}.get(event["level"], "note")
    did = f" -> {DONE[event['did']]}" if event["did"] else ""
    return f"step {event['step']}: {level}: {event['name']}: {event['said']}{did}"
