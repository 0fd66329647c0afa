"""Distributions of a pixel's levels: Bernoulli for two of them, a mixture of discretised logistics for more."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.networks.tokens import draw
from genai_core.precision import in_float32
from genai_core.spaces import Grid

MIXTURES = 5
MIN_LOG_SCALE = -7.0


class Levels(Protocol):
    """p(pixel | parameters). v are levels (batch, channels, ...), scaled to -1 .. 1; parameters (batch, count, ...)."""

    count: int

    def log_prob(self, parameters: Tensor, centre: Tensor, v: Tensor) -> Tensor:
        """Nats, the shape of v. centre: broadcasts with v, added to where the parameters place the levels."""
        ...

    def draw(self, parameters: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
        """v drawn."""
        ...

    def centre(self, mean: Tensor) -> Tensor:
        """What `centre` has to be for levels of this mean (in -1 .. 1), before anything else is known."""
        ...


def levels_of(space: Grid) -> Levels:
    """The distribution that suits the space."""
    return Bernoulli(space.channels) if space.levels == 2 else LogisticMixture(space.channels, space.levels)


class Bernoulli:
    """Two levels: one logit a channel."""

    def __init__(self, channels: int) -> None:
        self.count = channels

    @in_float32
    def log_prob(self, parameters: Tensor, centre: Tensor, v: Tensor) -> Tensor:
        return F.logsigmoid(v * (parameters + centre))

    def draw(self, parameters: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
        probability = torch.sigmoid(parameters + centre)
        uniform = torch.rand(probability.shape, generator=generator).to(probability.device)
        return torch.where(uniform < probability, 1.0, -1.0)

    def centre(self, mean: Tensor) -> Tensor:
        return torch.logit((1 + mean.clamp(-0.99, 0.99)) / 2)


class LogisticMixture:
    """A mixture of logistic distributions cut into levels (Salimans et al. 2017), exact over 0 .. levels - 1.

    The components are shared by a pixel's channels, and a channel's mean follows the channels before it.
    """

    def __init__(self, channels: int, levels: int, mixtures: int = MIXTURES) -> None:
        self.channels, self.levels, self.mixtures = channels, levels, mixtures
        self.parts = [1, channels, channels, channels * (channels - 1) // 2]
        self.count = mixtures * sum(self.parts)

    @in_float32
    def log_prob(self, parameters: Tensor, centre: Tensor, v: Tensor) -> Tensor:
        weight, mean, log_scale, follow = self._split(parameters)
        means = [mean[:, :, c] + centre[:, c, None] for c in range(self.channels)]
        place = self._following(means, follow, [v[:, c, None] for c in range(self.channels)])
        each = self._log_logistic(torch.stack(place, 2), log_scale, v.unsqueeze(1))
        joint = torch.logsumexp(torch.log_softmax(weight, 1) + each.cumsum(2), 1)
        return torch.diff(joint, dim=1, prepend=torch.zeros_like(joint[:, :1]))

    def draw(self, parameters: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
        weight, mean, log_scale, follow = self._split(parameters)
        logits = weight.movedim(1, -1)
        shape = logits.shape[:-1]
        uniform = torch.rand(shape, generator=generator).to(parameters.device)
        chosen = draw(logits.reshape(-1, self.mixtures), uniform.flatten()).view(shape).unsqueeze(1)
        mean, log_scale, follow = (_choose(part, chosen) for part in (mean, log_scale, follow))
        found: list[Tensor] = []
        for c in range(self.channels):
            uniform = torch.rand(mean[:, 0].shape, generator=generator).to(mean.device).clamp(1e-6, 1 - 1e-6)
            middle = mean[:, c] + centre[:, c] + self._added(follow, c, found)
            found.append(self._nearest(middle + log_scale[:, c].exp() * torch.logit(uniform)))
        return torch.stack(found, 1)

    def centre(self, mean: Tensor) -> Tensor:
        return mean

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, means, log scales, what channels add to later ones: each (batch, mixtures, own part, ...)."""
        by_mixture = parameters.unflatten(1, (self.mixtures, -1))
        weight, mean, log_scale, follow = by_mixture.split(self.parts, 2)
        return weight, mean, (log_scale - 2).clamp(min=MIN_LOG_SCALE), torch.tanh(follow)

    def _following(self, means: list[Tensor], follow: Tensor, values: list[Tensor]) -> list[Tensor]:
        by_channel = follow.movedim(2, 0)
        return [mean + self._added(by_channel, c, values, 0) for c, mean in enumerate(means)]

    @staticmethod
    def _added(follow: Tensor, channel: int, values: list[Tensor], dim: int = 1) -> Tensor | float:
        """What the channels before add to the mean of a channel; each pair of channels has its own coefficient."""
        first = channel * (channel - 1) // 2
        return sum((follow.select(dim, first + b) * values[b] for b in range(channel)), 0.0)

    def _log_logistic(self, mean: Tensor, log_scale: Tensor, v: Tensor) -> Tensor:
        """log of the logistic's mass in the level's interval; the outer levels take the tails.

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which loses no digits.
        """
        half = 1 / (self.levels - 1)
        inverse = torch.exp(-log_scale)
        above, below = (v - mean + half) * inverse, (v - mean - half) * inverse
        lowest, highest = v < -1 + half, v > 1 - half
        inside = torch.log(-torch.expm1(-2 * half * inverse))
        nats = torch.where(highest, 0.0, F.logsigmoid(above)) + torch.where(lowest, 0.0, F.logsigmoid(-below))
        return nats + torch.where(lowest | highest, 0.0, inside)

    def _nearest(self, v: Tensor) -> Tensor:
        level = torch.round((v + 1) / 2 * (self.levels - 1)).clamp(0, self.levels - 1)
        return level * (2 / (self.levels - 1)) - 1


def _choose(part: Tensor, chosen: Tensor) -> Tensor:
    """Of (batch, mixtures, n, ...) the chosen component (batch, 1, 1, ...): (batch, n, ...)."""
    index = chosen.expand(-1, -1, part.shape[2], *part.shape[3:])
    return part.gather(1, index).squeeze(1)


def scaled(levels: Tensor, space: Grid) -> Tensor:
    """Levels (batch, size) as pictures in -1 .. 1, (batch, channels, height, width)."""
    return levels.view(-1, *space.shape).float() * (2 / (space.levels - 1)) - 1


def whole(v: Tensor, space: Grid) -> Tensor:
    """The inverse of `scaled`: whole levels (batch, size)."""
    return torch.round((v + 1) / 2 * (space.levels - 1)).long().flatten(1)
