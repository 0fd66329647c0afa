"""THE training loop, for every family.

Each phase's loss is differentiated with respect to that phase's parameters, in as many parts as `accumulate` says, and
the gradients are averaged over the replicas. All randomness of a step is seeded by (seed, step, replica), so a resumed
fit goes on as if it had never stopped, and the same seed gives the same weights (unless `max_seconds` ends the fit:
then the speed of the machine has a say, or workers come and go).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from genai_core.errors import InvalidInput, TrainingFailed
from genai_core.fit_progress import Progress, recount
from genai_core.hyperparameters import FitSettings
from genai_core.model import Model
from genai_core.monitors.health import Alarm, Health, advice
from genai_core.monitors.signals import Signal
from genai_core.precision import MIN_SCALE, Precision
from genai_core.replicas import Replicas
from genai_core.spaces import Tokens
from genai_core.splits import seed_of, spread, validation_rows

if TYPE_CHECKING:
    from genai_core.privacy.gradients import PrivateFit

INITIAL_ROWS = 200_000  # sample for `Model.initialise`
INITIAL_ENTRIES = 50_000_000
EMA = 0.995
MIN_BATCH = 32
WIDE = 65_536  # tokens of a table whose activations are held at a time: with 500 columns 2.6 GB without
PRIVATE_EPOCHS = 6  # more of them mean more noise in each step: of Adult, ten are learnt no better
WARM_UP = 0.1  # share of the schedule
VALIDATING = 0.2  # share of a fit that is limited in seconds, beyond which a validation is left out


class Fit:
    """One fit of one model on encoded records held in memory (or memory-mapped), (rows, entries)."""

    def __init__(
        self,
        model: Model,
        train: np.ndarray,
        validation: np.ndarray,
        settings: FitSettings,
        replicas: Replicas | None = None,
        on_step: Callable[[int, float], None] | None = None,
        private: PrivateFit | None = None,
    ) -> None:
        self.model, self.train, self.settings, self.private = model, train, settings, private
        self.replicas = replicas or Replicas()
        self.on_step = on_step or (lambda step, done: None)
        self.device = next(model.parameters()).device
        self.precision = Precision(settings.precision, self.device)
        self.validation = self._tensor(validation[spread(len(validation), validation_rows(validation))])
        ema = EMA if model.ema is None else model.ema
        self.ema = ema if settings.ema is None else settings.ema
        self.progress, self.losses = Progress(), dict[str, Tensor]()
        self._plan_steps()
        if private:
            private.plan(len(train), self.batch, self.total_steps)
        between = self.total_steps * self.batch / settings.evaluations
        self.health = Health(
            "off" if private else settings.health,
            model,
            train,
            self.validation,
            self.batch,
            between,
            self.replicas,
        )

    def run(self) -> Progress:
        """Train; the model is left with the best averaged weights. Raises TrainingFailed."""
        self._prepare()
        self._resume()
        self.started = time.monotonic() - self.progress.seconds
        for step in range(self.progress.step, 0 if self.progress.stopped else self.total_steps):
            crossed = self._step(step)
            if crossed and self._evaluate():
                break
            if self.progress.done >= 1:
                break
        self.model.load_state_dict(self.best)
        self.model.eval()
        return self.progress

    # -- set-up ----------------------------------------------------------------------------------------------
    def _tensor(self, tokens: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int64)).to(self.device)

    def _mean(self, value: float) -> float:
        """Mean over the replicas."""
        return float(self.replicas.average(torch.tensor([value], dtype=torch.float64, device=self.device))[0])

    def _plan_steps(self) -> None:
        """Rows and steps, the same on all replicas; small tables get small batches, about 20 an epoch.

        batch: rows a step over all replicas, `share` of them this one's. A fixed batch makes the optimisation the
        same for any number of replicas; `scale_with_workers` gives every replica a whole one.
        """
        s, world = self.settings, self.replicas.world
        rows = round(self._mean(len(self.train)) * world)
        wanted, most = s.batch_size or self.model.space.batches.train, max(rows // 20, MIN_BATCH)
        of_one = min(wanted, most, rows)
        self.batch = of_one if s.scale_with_workers == "none" else min(wanted * world, most, rows)
        factor = self.batch / of_one
        self.faster = factor if s.scale_with_workers == "linear" else math.sqrt(factor)
        self.share = self.batch // world + (self.replicas.rank < self.batch % world)
        self.steps_per_epoch = max(rows // self.batch, 1)
        self.total_steps = self.steps_per_epoch * (self._epochs())
        least, smallest = self.model.smallest_batch, self.batch // world // s.accumulate
        wide = -(-self.share * self.train.shape[1] // WIDE) if isinstance(self.model.space, Tokens) else 1
        self.parts = max(s.accumulate, min(wide, self.share // max(least, 1)))
        if smallest < least:
            raise InvalidInput(
                f"{self.batch} records a step, for {world} worker(s) and fit.accumulate: {s.accumulate}, leave "
                f"{smallest} at a time; this model needs {least}: raise fit.batch_size (small tables: at most a "
                "twentieth of the rows), or lower the others"
            )

    def _epochs(self) -> int:
        own = PRIVATE_EPOCHS if self.private else self.model.epochs(self.steps_per_epoch)
        return self.settings.max_epochs or own

    def _prepare(self) -> None:
        s = self.settings
        at_most = min(INITIAL_ROWS, INITIAL_ENTRIES // self.train.shape[1]) // self.replicas.world
        known = self.train if self.private is None else self.private.initial
        sample = np.concatenate(self.replicas.gather(np.asarray(known[:at_most])))
        self.model.initialise(self._tensor(sample))
        self._same_start()
        rate = self.model.learning_rate if s.learning_rate is None else s.learning_rate
        decay = self.model.weight_decay if s.weight_decay is None else s.weight_decay
        self.peak = rate * self.faster
        self.optimisers = {
            phase: torch.optim.AdamW(
                self.model.parameters_of(phase),
                lr=rate,
                weight_decay=decay,
                betas=self.model.betas,
                foreach=True,
            )
            for phase in self.model.phases
        }
        self.trained = {
            phase: [p for group in optimiser.param_groups for p in group["params"]]
            for phase, optimiser in self.optimisers.items()
        }
        self.scalers = {phase: self.precision.scaler() for phase in self.optimisers}
        self.averaged = copy.deepcopy(self.model).eval()
        self.averaged.requires_grad_(False)
        self.best = {name: value.clone() for name, value in self.averaged.state_dict().items()}
        self._keep_good()

    def _same_start(self) -> None:
        """Other processors may have other last digits: average, so that all start from the same weights."""
        if self.replicas.world > 1:
            with torch.no_grad():
                parameters = list(self.model.parameters())
                mean = self.replicas.average(nn.utils.parameters_to_vector(parameters))
                nn.utils.vector_to_parameters(mean, parameters)
            self._same_buffers(self.model)

    def _same_buffers(self, model: Model) -> None:
        """Running statistics are each replica's own until a checkpoint: average them."""
        for buffer in model.buffers() if self.replicas.world > 1 else ():
            if buffer.is_floating_point():
                buffer.copy_(self.replicas.average(buffer.flatten()).view_as(buffer))

    # -- one step --------------------------------------------------------------------------------------------
    def _step(self, step: int) -> bool:
        """Train on one batch; True when it is time to validate."""
        s = self.settings
        torch.manual_seed(seed_of(s.seed, "step", step, self.replicas.rank))
        x = self._tensor(self.train[self.private.rows() if self.private else self._rows(step)])
        rate = self.peak * (1.0 if self.model.constant_rate else schedule(self.progress.done))
        self.model.train()
        self.model.done, self.model.restraint = self.progress.done, self.health.restraint
        try:
            for phase in self.model.phases:
                self.losses[phase] = self._descend(phase, x, rate * self.health.rate, step)
            self._average_weights(step)
        except Alarm as alarm:
            self._go_back(step, alarm.found)
        before, after = self.progress.done, self._agreed_done
        self.progress.step, self.progress.done = step + 1, after
        self.on_step(step + 1, after)
        crossed = math.floor(after * s.evaluations) > math.floor(before * s.evaluations)
        return crossed and (self._agreed_room or after >= 1)

    def _rows(self, step: int) -> np.ndarray:
        """Row numbers of this replica's batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if place == 0 or not hasattr(self, "_permutation"):
            random = np.random.default_rng(seed_of(self.settings.seed, "epoch", epoch, self.replicas.rank))
            self._permutation = random.permutation(len(self.train))
        # a replica with fewer rows than the others goes round again
        taken = self._permutation.take(np.arange(place * self.share, (place + 1) * self.share), mode="wrap")
        return np.sort(taken)  # kind to memory-mapped records

    def _descend(self, phase: str, x: Tensor, rate: float, step: int) -> Tensor:
        """One step of a phase's optimiser, the same on all replicas; the loss of this one's records."""
        optimiser, scaler = self.optimisers[phase], self.scalers[phase]
        loss, flat = self._gradient(x, phase)
        # the clock of replica 0 decides for all: it travels with the gradients
        clock = (self._done(step + 1), float(self._room())) if self.replicas.rank == 0 else (0.0, 0.0)
        told = flat.new_tensor([*(value * self.replicas.world for value in clock), float(loss)])
        flat = self.replicas.average(torch.cat([flat, told]))
        self._agreed_done, self._agreed_room = min(float(flat[-3]), 1.0), float(flat[-2]) > 0.5
        at = 0
        for p in self.trained[phase]:
            p.grad = flat[at : at + p.numel()].view_as(p)
            at += p.numel()
        scaler.unscale_(optimiser)  # in place: what p.grad shows of `flat`
        norm = float(flat[:-3].norm())
        if math.isfinite(norm) or not (scaler.is_enabled() and scaler.get_scale() > MIN_SCALE):
            self.health.beat(phase, norm, float(flat[-1]), step)
        flat *= min(1.0, self.settings.clip / (norm + 1e-12))
        for group in optimiser.param_groups:
            group["lr"] = rate
        scaler.step(optimiser)  # float16: not after an overflow, which lowers the scale
        scaler.update()
        return loss

    def _gradient(self, x: Tensor, phase: str) -> tuple[Tensor, Tensor]:
        """Loss of this replica's records and its flat gradient, such that the replicas' mean is the batch's.

        Computed in `accumulate` parts, so that only one part's activations are held at a time; in more of them where a
        table is wide.
        """
        loss, flat = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        if self.private:  # the loss is one of the data: nobody is told
            return loss, self.private.gradient(self.model, x, phase, self.trained[phase])
        for part in x.tensor_split(self.parts):
            weight = len(part) * self.replicas.world / self.batch
            with self.precision.layers():
                value = self.model(part, phase) * weight
            scaled = self.scalers[phase].scale(value)
            gradients = torch.autograd.grad(scaled, self.trained[phase], allow_unused=True)
            own = _flat(gradients, self.trained[phase])
            del gradients  # a third of the memory of a step of wide tables
            flat = flat.add_(own) if flat.dim() else own
            loss = loss + value.detach()
        return loss, flat

    def _done(self, step: int) -> float:
        by_steps = step / self.total_steps
        if self.settings.max_seconds is None:
            return by_steps
        return min(max(by_steps, (time.monotonic() - self.started) / self.settings.max_seconds), 1.0)

    def _room(self) -> bool:
        """Whether there is time for a validation. With 60 seconds for a model of sounds they took 49 of them."""
        return self.settings.max_seconds is None or self.progress.validating <= VALIDATING * (
            time.monotonic() - self.started
        )

    @torch.no_grad()
    def _average_weights(self, step: int) -> None:
        decay = min(self.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)
        for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)

    # -- validation and checkpoints --------------------------------------------------------------------------
    def _evaluate(self) -> bool:
        """Validate the averaged weights; True when the fit should stop."""
        if self.private:
            return self._go_on_unseen(self.private)
        begun = time.monotonic()
        for model in (self.model, self.averaged):
            self._same_buffers(model)
        self.averaged.train()  # drops what a model derived from earlier weights
        self.averaged.eval()
        torch.manual_seed(seed_of(self.settings.seed, "validation"))
        value = self._mean(self.averaged.validation_loss(self.validation))
        p = self.progress
        p.seconds = time.monotonic() - self.started
        seen = [entry["validation_loss"] for entry in p.history]
        steps = p.step - int(p.history[-1]["step"] if p.history else 0)
        verdict = self.health.read(self.averaged, self.trained, [*seen, value], p, steps)
        p.validating += time.monotonic() - begun
        if self.health.prefers(value, p.best):
            p.best, p.best_step, p.stale = value, p.step, 0
            self.best = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
        else:
            p.stale += 1
        metrics = {"validation_loss": value, "seconds": p.seconds, "epoch": p.step / self.steps_per_epoch}
        metrics |= {f"loss_{phase}": float(loss) for phase, loss in self.losses.items()} | verdict.metrics
        p.history.append({"step": p.step, **metrics})
        p.scales = {phase: scaler.state_dict() for phase, scaler in self.scalers.items()}
        self.replicas.report(metrics, p.step, p.done)
        for line in verdict.told:
            self.replicas.tell(line)
        if verdict.why is not None and verdict.do == "back":
            self._go_back(p.step, verdict.why)
        self._keep_good()
        p.stopped = verdict.do == "stop" or p.stale >= (self.settings.patience or self.model.patience)
        self.replicas.save(self._tensors(), vars(p).copy())
        if not math.isfinite(value) and verdict.do != "back":
            raise TrainingFailed(advice(f"the validation loss is {value} at step {p.step}"))
        return p.stopped

    def _go_on_unseen(self, private: PrivateFit) -> bool:
        """No row is looked at: the latest weights are kept, and what they have cost is told."""
        p = self.progress
        self.best = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
        p.seconds, p.best_step = time.monotonic() - self.started, p.step
        metrics = {"epsilon": private.spent(p.step), "seconds": p.seconds}
        p.history.append({"step": p.step, "epoch": p.step / self.steps_per_epoch, **metrics})
        self.replicas.report(metrics, p.step, p.done)
        self.replicas.save(self._tensors(), vars(p).copy())
        return False

    def _keep_good(self) -> None:
        """What the fit goes back to."""
        if self.settings.health == "act":
            found = {name: value.clone() for name, value in self._tensors().items()}
            self.good = {name: value for name, value in found.items() if not name.startswith("best/")}

    def _go_back(self, step: int, why: Signal) -> None:
        """To the weights of the last validation, or the first ones, with half the learning rate; time goes on."""
        if line := self.health.went_back(step, why):
            self.replicas.tell(line)
        self._restore(self.good)

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for prefix, module in (("model", self.model), ("averaged", self.averaged)):
            found |= {f"{prefix}/{name}": value for name, value in module.state_dict().items()}
        found |= {f"best/{name}": value for name, value in self.best.items()}
        for phase, optimiser in self.optimisers.items():
            for number, state in optimiser.state_dict()["state"].items():
                found |= {
                    f"optimiser/{phase}/{number}/{name}": torch.as_tensor(v) for name, v in state.items()
                }
        return found

    def _resume(self) -> None:
        kept = self.replicas.restore()
        if kept is not None:
            self._load(*kept)
        p = self.progress
        p.health = self.health.resumed(p.health)
        p.steps_per_epoch = self.steps_per_epoch
        if not p.worlds or p.worlds[-1][1] != self.replicas.world:
            p.worlds.append([p.step, self.replicas.world])

    def _load(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.progress = Progress(**facts)
        recount(self.progress, self.steps_per_epoch)
        self._restore(tensors)
        self.best = _below(tensors, "best/")
        self._keep_good()

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(_below(tensors, "model/"))
        self.averaged.load_state_dict(_below(tensors, "averaged/"))
        for phase, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _below(tensors, f"optimiser/{phase}/").items():
                number, key = name.split("/")
                state.setdefault(int(number), {})[key] = value.clone()
            optimiser.load_state_dict(
                {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
            )
            scaler = self.scalers[phase] = self.precision.scaler()  # an alarm comes in the middle of a step
            scaler.load_state_dict(self.progress.scales.get(phase) or scaler.state_dict())


def _flat(gradients: Iterable[Tensor | None], parameters: list[Tensor]) -> Tensor:
    """One vector; zeros where a parameter had no part."""
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def schedule(done: float) -> float:
    """Learning-rate factor over the fit: linear warm-up, then a cosine to zero (Smith & Topin 2019, one cycle)."""
    if done < WARM_UP:
        return 0.04 + 0.96 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) + 1e-4
