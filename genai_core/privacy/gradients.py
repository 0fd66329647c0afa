"""Steps of training that no single row can sway: gradients of single rows, clipped, summed, with Gaussian noise.

DP-SGD (Abadi et al. 2016). Rows are sampled independently of each other (Poisson), and the sum is divided by how many
are expected, not by how many there were. Sampling and noise come from the operating system's entropy and from no seed:
who knows them could take the noise off. So no two private fits are the same.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from genai_core.hyperparameters import Privacy
from genai_core.model import Model
from genai_core.privacy.accounting import Mechanism, epsilon, noise_for

TOGETHER = 256  # rows whose gradients are held at a time; a third of the time of 64


class PrivateFit:
    """What a fit under differential privacy does in place of looking at the data.

    initial   records (rows, entries) made from private statistics: what weights begin with
    before    what the budget was spent on already
    delta     what is left of it
    """

    def __init__(
        self, settings: Privacy, initial: np.ndarray, before: tuple[Mechanism, ...], delta: float
    ) -> None:
        self.settings, self.initial, self.before, self.delta = settings, initial, before, delta
        self.random = np.random.default_rng(secrets.randbits(256))
        self.generator = torch.Generator().manual_seed(secrets.randbits(63))
        self.sample, self.noise, self.batch = 0.0, 0.0, 0

    def plan(self, rows: int, batch: int, steps: int) -> None:
        """Fix the noise before the first step. batch: rows expected in one."""
        self.count, self.batch, self.sample = rows, batch, batch / rows
        self.noise = noise_for(self.settings.epsilon, self.delta, self.sample, steps, self.before)

    def rows(self) -> np.ndarray:
        """Numbers of a step's rows."""
        return np.flatnonzero(self.random.random(self.count) < self.sample)

    def gradient(self, model: Model, x: Tensor, phase: str, trained: list[Tensor]) -> Tensor:
        """Flat gradient (parameters,) of the rows x."""
        known = {id(p) for p in trained}
        named = {name: p.detach() for name, p in model.named_parameters() if id(p) in known}
        names = {id(p): name for name, p in model.named_parameters()}

        def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
            found: Tensor = functional_call(model, parameters, (row.unsqueeze(0), phase))
            return found

        each = vmap(grad(loss), in_dims=(None, 0), randomness=model.noise_of_records)
        order = [names[id(p)] for p in trained]
        total = torch.zeros(sum(p.numel() for p in trained))
        for part in x.split(TOGETHER):
            if len(part):
                total += _clipped_sum(each(named, part), order, self.settings.clip)
        noise = torch.randn(len(total), generator=self.generator) * (self.noise * self.settings.clip)
        return (total + noise) / self.batch

    def spent(self, steps: int) -> float:
        """Epsilon after so many steps, with everything before them."""
        return epsilon([*self.before, Mechanism(self.noise, self.sample, steps)], self.delta)

    def facts(self, steps: int) -> dict[str, Any]:
        """What the guarantee is, for the model's provenance."""
        from importlib.metadata import version

        return {
            "epsilon": round(self.spent(steps), 4),
            "delta": self.settings.delta,
            "protects": "one row: whether it was there or not",
            "accountant": f"Renyi divergence of sampled Gaussian mechanisms, opacus {version('opacus')}",
            "noise_multiplier": round(self.noise, 4),
            "sample_rate": round(self.sample, 6),
            "steps": steps,
            "clip": self.settings.clip,
            "columns_noise_multiplier": [round(m.noise, 4) for m in self.before],
        }


def _clipped_sum(gradients: dict[str, Tensor], order: list[str], clip: float) -> Tensor:
    """Sum of the rows' gradients, each of norm `clip` at the most; rows whose gradient is no number add nothing."""
    flat = [gradients[name].flatten(1) for name in order]
    norms = torch.stack([part.square().sum(1) for part in flat]).sum(0).sqrt()
    factors = (clip / norms.clamp(min=1e-12)).clamp(max=1.0)
    fine = torch.isfinite(norms)
    if not bool(fine.all()):
        flat, factors = [part[fine] for part in flat], factors[fine]
    return torch.cat([factors @ part for part in flat])
