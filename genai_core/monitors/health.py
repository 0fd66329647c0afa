"""The health of a fit: reads all signals of the averaged weights at every validation, and decides what is done.

Deterministic: nothing is drawn from torch's global generator, and how many records are looked at follows from the
steps, not from the clock. The first replica reads, and what it decides holds for all. All state is in `kept`, plain
values that checkpoints carry.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genai_core.errors import TrainingFailed
from genai_core.model import Discriminates, LogProb, Model, Samples, Translates
from genai_core.monitors import likelihood
from genai_core.monitors.discriminator import discriminator, judged, noise_ignored
from genai_core.monitors.diversity import Real, clusters, diversity
from genai_core.monitors.gradients import Pulse, probe
from genai_core.monitors.signals import ACT, FINE, WARN, Signal, line, signal
from genai_core.monitors.views import columns, view
from genai_core.replicas import Replicas
from genai_core.spaces import Sequence, Tokens
from genai_core.splits import spread
from genai_core.two_players import TwoPlayers

MOST, LEAST = 1024, 50  # made records looked at
TRAIN = 2048  # training records that made ones are compared with
RATIO = 16  # records trained on for each one looked at, or the looking would cost too much
TEXT_RATIO = 64  # a token after the other is drawn
PATIENT = 1000  # validations: a family as patient ends its schedule, and is told of rises alone
YOUNG, SETTLED = 0.25, 0.5  # shares of the schedule: what made records say means nothing; is taken as it is
STEPS = 50  # before them a posterior has not come to say anything, also where seconds end the fit soon
BACKS, RESTRAINTS = 3, 3  # at most
STILL = 2  # validations without a better one; of 1000 modes a fit held back for its critic at a quarter found no more
ENOUGH = 0.9  # of the best coverage: a checkpoint with less is not chosen
GOOD = 0.8


class Alarm(Exception):
    """A step must not be taken: its gradient would do harm."""

    def __init__(self, found: Signal) -> None:
        super().__init__(found.said)
        self.found = found


@dataclass(frozen=True)
class Verdict:
    """Of a validation. do: "" nothing, "back", "restrain", "stop"; why: of what signal; told: lines for people."""

    signals: tuple[Signal, ...] = ()
    do: str = ""
    told: tuple[str, ...] = ()
    why: Signal | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Signals by name, and the worst level."""
        if not self.signals:
            return {}
        found = {f"health_{s.name}": float(s.value) for s in self.signals}
        return found | {"health_level": float(max(s.level for s in self.signals))}


class Health:
    """Of one fit; how: "act", "warn" or "off".

    records_between  that are trained on between two validations, of all replicas
    """

    def __init__(
        self,
        how: str,
        model: Model,
        train: np.ndarray,
        held_out: Tensor,
        batch: int,
        records_between: float,
        replicas: Replicas,
    ) -> None:
        self.how, self.model, self.train, self.held_out = how, model, train, held_out
        self.batch, self.replicas = batch, replicas
        self.implicit = not isinstance(model, LogProb)
        drawn_singly = isinstance(model.space, Sequence)
        self.ratio = TEXT_RATIO if drawn_singly else RATIO
        affordable = max(int(records_between // self.ratio), LEAST)
        self.rows = min(MOST, affordable, len(held_out), len(train))
        exact = getattr(model, "bound", None) == "exact" and not isinstance(model.space, Tokens)
        self.looks = self.rows >= LEAST and not exact and isinstance(model, Samples | Translates)
        self.real: Real | None = None
        self.resumed({})

    def resumed(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Go on from what a checkpoint has kept."""
        fresh: dict[str, Any] = {
            "rate": 1.0,
            "restraint": 0,
            "backs": 0,
            "since": 0,
            "events": [],
            "pulse": {},
        }
        self.kept = fresh | kept
        self.pulse = Pulse(self.kept["pulse"], not self.implicit)
        return self.kept

    @property
    def rate(self) -> float:
        """Factor of the learning rate: halved each time the fit goes back."""
        return float(self.kept["rate"])

    @property
    def restraint(self) -> int:
        """How often the model was asked to hold back: see `Model.restraint`."""
        return int(self.kept["restraint"])

    # -- every step ------------------------------------------------------------------------------------------
    def beat(self, phase: str, norm: float, loss: float, step: int) -> None:
        """Of the averaged gradient of a step, before it is used. Raises Alarm, TrainingFailed."""
        if self.how == "off" and math.isfinite(norm):
            return
        found = self.pulse.beat(phase, norm, loss, step)
        if found is None:
            return
        if self.how == "act":
            raise Alarm(found)
        if found.name == "not_finite":
            raise TrainingFailed(advice(found.said))
        self._remember(step, found, "")
        self.pulse.calm()

    # -- every validation ------------------------------------------------------------------------------------
    def read(
        self,
        averaged: Model,
        trained: Mapping[str, list[nn.Parameter]],
        losses: list[float],
        p: Any,
        steps: int,
    ) -> Verdict:
        """Read all signals. losses: of all validations; p: step and done; steps: since the last validation."""
        if self.how == "off":
            return Verdict()
        self.kept["since"] += steps * self.batch
        found: list[Signal] = []
        if self.replicas.rank == 0:
            done = 0.0 if getattr(averaged, "patience", 0) >= PATIENT else p.done
            found = [*self._of_losses(losses, done), *self._of_weights(trained), *self._of_size(p)]
            if isinstance(averaged, Model) and hasattr(averaged, "posterior_of"):
                carried = [likelihood.posterior_collapse(averaged, self.held_out)]
                found += carried if p.done >= YOUNG and p.step >= STEPS else _noted(carried)
            if self.looks and self.kept["since"] >= self.ratio * self.rows:
                self.kept["since"] = 0
                found += self._look(averaged, p.done, losses)
        found, kept = self.replicas.gather((found, self.kept))[0]
        self._share(kept)
        return self._decide(found, p.step)

    def _of_losses(self, losses: list[float], done: float) -> list[Signal]:
        found = []
        if not math.isfinite(losses[-1]):
            found.append(signal("not_finite", 1.0, f"the validation loss is {losses[-1]}"))
        if not self.implicit:
            lost = self.pulse.diverging()
            risen = [
                likelihood.rising(losses)
            ]  # at a high rate losses go up and down: the rate's fall mends that
            found += [*(risen if done >= SETTLED else _noted(risen)), *([lost] if lost else [])]
        return found

    def _of_weights(self, trained: Mapping[str, list[nn.Parameter]]) -> list[Signal]:
        before = self.kept.get("probes", {})
        now = {phase: probe(parameters) for phase, parameters in trained.items()}
        still = [phase for phase, p in now.items() if before.get(phase) == p]
        self.kept["probes"] = now
        said = f"the weights of {', '.join(still)} have not moved since the last validation" if still else ""
        return [signal("frozen", len(still), said)]

    def _of_size(self, p: Any) -> list[Signal]:
        if self.kept.get("sized"):
            return []
        self.kept["sized"] = True
        rows = len(self.train) * self.replicas.world
        return [
            signal("tiny_batch", self.batch, f"{self.batch} records a step: gradients are mostly noise"),
            signal("tiny_data", rows, f"{rows} records to learn from: they may be learnt by heart"),
        ]

    @torch.no_grad()
    def _look(self, averaged: Model, done: float, losses: list[float]) -> list[Signal]:
        """What made records, and those who judge them, say."""
        if self.real is None:
            self.real = self._real()
        model = (
            averaged if self.held_out.device.type == "cpu" or self.implicit else copy.deepcopy(averaged).cpu()
        )
        made = self._made(model)
        labels = made[:, 0].cpu() if getattr(model.space, "classes", 0) else None
        found = diversity(self.real, view(model.space)(made), labels)
        covered = next(s.value for s in found if s.name == "coverage")
        if isinstance(model, TwoPlayers):
            found.append(noise_ignored(model, self.rows))
        if isinstance(model, Discriminates):
            at = np.linspace(0, len(self.train) - 1, self.rows).astype(np.int64)
            train = self._tensor(self.train[at])
            logits = [judged(model, x) for x in (train, self._unseen, made)]
            judges = discriminator(*logits)
            found += judges if standing_still(losses) else [_at_most_warned(s) for s in judges]
        self.kept |= {
            "coverage": covered,
            "before": self.kept.get("coverage", 0.0),
            "best_coverage": max(covered, self.kept.get("best_coverage", 0.0)),
        }
        if self.kept["best_coverage"] < GOOD:  # it has not collapsed, it has not come so far
            found = [_at_most_warned(s) if s.name == "coverage" else s for s in found]
        return found if self._grown(done) else _noted(found)

    def _grown(self, done: float) -> bool:
        """Whether the model is old enough, or has once been good enough, for a lack of diversity to be a failure."""
        return done >= SETTLED or (done >= YOUNG and self.kept.get("best_coverage", 0.0) >= GOOD)

    def _made(self, model: Model) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        if isinstance(model, Samples):
            together = model.space.batches.draw
            parts = [
                model.sample(min(together, self.rows), generator) for _ in range(-(-self.rows // together))
            ]
            return torch.cat(parts)[: self.rows].to(self.held_out.device if self.implicit else "cpu")
        parts = [self._unseen[self._unseen[:, 0] == domain] for domain in (0, 1)]
        there = [model.translate(x, 1 - d) for d, x in enumerate(parts) if len(x)]  # type: ignore[operator]
        return torch.cat(there)

    @property
    def _unseen(self) -> Tensor:
        """Held-out records, from all over: they may be in the order of a column."""
        return self.held_out[torch.from_numpy(spread(len(self.held_out), self.rows))]

    def _real(self) -> Real:
        """Features of held-out and training records; groups are classes where records have them, else clusters."""
        space = self.model.space
        at = np.linspace(0, len(self.train) - 1, min(TRAIN, len(self.train))).astype(np.int64)
        # training records are often in the order of a column: the first ones must be like all
        train = torch.from_numpy(self.train[np.random.default_rng(0).permutation(at)].astype(np.int64))
        features = view(space)
        seen = features(train)
        if getattr(space, "classes", 0):
            known = space.class_names or [f"number {i}" for i in range(space.classes)]
            names = [f"{space.label_name} {name}" for name in known]
            groups = train[:, 0]
        else:
            groups = clusters(seen, 0)
            names = [f"cluster {i}" for i in range(int(groups.max()) + 1)]
        return Real(features(self.held_out[: self.rows]), seen, groups, names, columns(space))

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64)).to(self.held_out.device)

    def _share(self, kept: dict[str, Any]) -> None:
        """What the first replica has kept, for all; the pulse is the same anyhow."""
        pulse = self.kept["pulse"]
        self.kept.update(kept)
        self.kept["pulse"] = pulse
        if self.replicas.rank:
            self.pulse.diverging()

    # -- what is done ----------------------------------------------------------------------------------------
    def _decide(self, found: list[Signal], step: int) -> Verdict:
        do, why = (
            self._action({s.name: s for s in found if s.level == ACT}) if self.how == "act" else ("", None)
        )
        told = []
        for s in found:
            before = self.kept.setdefault("levels", {}).get(s.name, FINE)
            self.kept["levels"][s.name] = s.level
            more = s.name == "missing" and s.value > self.kept.get("missing", 0)  # others are named now
            if s.level > before or s is why or more:
                told.append(self._remember(step, s, do if s is why else ""))
        self.kept |= {s.name: s.value for s in found if s.name == "missing"}
        if do == "restrain":
            self.kept["restraint"] += 1
            self.pulse.begin_again()
        return Verdict(tuple(found), do, tuple(told), why)

    def _action(self, acting: dict[str, Signal]) -> tuple[str, Signal | None]:
        """What the worst signal asks for."""
        for name in ("not_finite", "exploding", "diverging"):
            if name in acting:
                return "back", acting[name]
        for name in ("coverage", "duplicates", "noise_ignored"):
            if name in acting and self.kept.get("before", 0.0) >= GOOD:
                self.kept["before"] = 0.0
                return "back", acting[name]
        held = (
            "coverage",
            "duplicates",
            "noise_ignored",
            "saturation",
            "discriminator_overfit",
            "memorising",
        )
        for name in held if self.implicit else ("posterior_collapse",):
            if name in acting and self.restraint < RESTRAINTS:
                return "restrain", acting[name]
        for name in ("rising", "memorising"):
            if name in acting and not self.implicit:
                return "stop", acting[name]
        return "", None

    def went_back(self, step: int, why: Signal) -> str:
        """After going back: the learning rate is halved. Raises TrainingFailed the fourth time; a line for people."""
        if self.kept["backs"] >= BACKS:
            steps = [str(e["step"]) for e in self.kept["events"] if e["did"] == "back"]
            raise TrainingFailed(
                advice(
                    f"{why.said}; going back to the last good weights at steps {', '.join(steps)} did not help"
                )
            )
        self.kept["backs"] += 1
        self.kept["rate"] /= 2
        self.kept["probes"] = {}  # the same weights again are no standstill
        self.pulse.calm()
        return self._remember(step, why, "back") if not self._told(step, why) else ""

    def prefers(self, value: float, best: float) -> bool:
        """Whether these weights are better than the best so far: by loss; of implicit models among those that cover.

        Adversaries: lowest kernel distance among the checkpoints with at least nine tenths of the best coverage.
        """
        if not self.implicit or "coverage" not in self.kept:
            return value < best
        needed = ENOUGH * self.kept["best_coverage"]
        covers, chosen = self.kept["coverage"] >= needed, self.kept.get("chosen", 0.0) >= needed
        better = math.isfinite(value) and (value < best if covers == chosen else covers)
        if better:
            self.kept["chosen"] = self.kept["coverage"]
        return better

    def _told(self, step: int, why: Signal) -> bool:
        return any(e["step"] == step and e["name"] == why.name for e in self.kept["events"])

    def _remember(self, step: int, s: Signal, did: str) -> str:
        self.kept["events"].append({"step": step, **s.as_dict(), "did": did})
        return line(self.kept["events"][-1])


def standing_still(losses: list[float]) -> bool:
    """Whether the last validations brought nothing better: a critic may win for as long as the generator learns."""
    return len(losses) > STILL and min(losses[-STILL:]) >= min(losses[:-STILL])


def _at_most_warned(s: Signal) -> Signal:
    return replace(s, level=min(s.level, WARN))


def _noted(found: list[Signal]) -> list[Signal]:
    """Readings that are kept and alarm nobody."""
    return [replace(s, level=FINE) for s in found]


def advice(reason: str) -> str:
    """What a user can do about it."""
    return f"{reason}; lower fit.learning_rate or fit.clip, or look for extreme values in the data"
