"""Every column of a table given all others, at once: mixtures of logistics for numbers, a softmax for codes.

Trained on records with noise of a known strength added to their numbers and now and then some columns hidden, so that
the conditionals are smooth; the strength is an input. One pass gives all columns' conditionals, since the first layer
is a sum over columns from which a column's own part is taken away: the pseudo-likelihood (Besag 1975) of the any-order
model (Uria, Murray & Larochelle 2014).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Model
from genai_core.spaces import Space
from genai_core.tables.vectors import NUMBER, Vectors, vectors

CONTEXT, HIDDEN, COMPONENTS = 64, 48, 5
WEAKEST, STRONGEST, JUDGED = 0.07, 0.5, 0.1  # noise in training, and while scoring, in standard deviations
VISIBLE = 0.8  # of the other columns: a share drawn for each record from here to 1
SHARPEST = -4.0  # log scale of a logistic
VIEWS = 6
TOGETHER = 512  # records at a time: what they need stays in the cache
State = Mapping[str, Tensor]


class Conditionals(Model):
    """Learns from token records x (batch, positions); `view` is what `fit_vectors` found."""

    learning_rate = 3e-3
    weight_decay = 0.01
    ema = 0.98

    def __init__(self, space: Space, view: State) -> None:
        super().__init__(space)
        self.view = dict(view)
        kinds = view["kinds"]
        # where training rows have one code only, nothing is learnt about codes
        units, widest = len(kinds), int(kinds.max()) if bool(view["coded"].any()) else 0
        self.embedding = nn.Parameter(torch.randn(int(kinds.sum()), CONTEXT) * units**-0.5)
        self.source = nn.Parameter(torch.randn(units, VIEWS, CONTEXT) * (units * VIEWS) ** -0.5)
        self.strength = nn.Parameter(torch.zeros(3, CONTEXT))
        self.start = nn.Parameter(torch.randn(units, 1, CONTEXT) * 0.1)
        self.inner = nn.Parameter(torch.randn(units, CONTEXT, HIDDEN) * CONTEXT**-0.5)
        self.inner_bias = nn.Parameter(torch.zeros(units, 1, HIDDEN))
        self.outer = nn.Parameter(torch.randn(units, HIDDEN, HIDDEN) * HIDDEN**-0.5)
        self.outer_bias = nn.Parameter(torch.zeros(units, 1, HIDDEN))
        outputs = 3 * COMPONENTS + widest
        self.head = nn.Parameter(torch.randn(units, HIDDEN, outputs) * 0.3 * HIDDEN**-0.5)
        self.head_bias = nn.Parameter(_head_bias(kinds, widest))

    def initialise(self, x: Tensor) -> None:
        """The codes start at their frequencies."""
        if self.head_bias.shape[2] == 3 * COMPONENTS:
            return
        codes = vectors(self.view, x, None).codes
        with torch.no_grad():
            for unit, kinds in enumerate(self.view["kinds"].tolist()):
                counts = torch.bincount(codes[:, unit], minlength=kinds).float() + 0.5
                self.head_bias[unit, 0, 3 * COMPONENTS :][:kinds] = torch.log(counts / counts.sum())

    def forward(self, x: Tensor, phase: str) -> Tensor:
        """Mean nats a record of the columns given the others."""
        found = vectors(self.view, x, None)
        span = math.log(STRONGEST / WEAKEST)
        strength = WEAKEST * torch.exp(torch.rand(len(x), 1) * span)
        noisy = found.numbers
        noisy = noisy + strength * torch.randn_like(noisy) * (found.codes == NUMBER)
        share = VISIBLE + (1 - VISIBLE) * torch.rand(len(x), 1)
        visible = (torch.rand(found.codes.shape) < share).float()
        return nats(
            dict(self.named_parameters()), self.view, noisy, found.codes, strength, visible
        ).sum() / len(x)

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        own = dict(self.named_parameters())
        parts = [judged(own, self.view, part).sum() for part in vectors(self.view, x, None).split(TOGETHER)]
        return float(sum(parts)) / len(x)


def _head_bias(kinds: Tensor, widest: int) -> Tensor:
    mixture = torch.zeros(COMPONENTS, 3)
    mixture[:, 1] = torch.linspace(-1.5, 1.5, COMPONENTS)
    mixture[:, 2] = -0.7
    codes = torch.zeros(len(kinds), widest)
    codes.masked_fill_(torch.arange(widest) >= kinds[:, None], -30.0)  # codes that the unit does not have
    return torch.cat([mixture.T.reshape(1, -1).expand(len(kinds), -1), codes], 1)[:, None]


def judged(parameters: State, view: State, found: Vectors) -> Tensor:
    """Nats (rows, units) of records as they are: higher where a column does not follow from the others."""
    strength = torch.full((1, 1), JUDGED)
    return nats(parameters, view, found.numbers, found.codes, strength) + view["rarity"][found.places]


def nats(
    parameters: State,
    view: State,
    numbers: Tensor,
    codes: Tensor,
    strength: Tensor,
    visible: Tensor | None = None,
) -> Tensor:
    """Minus log p(unit | the visible others), (rows, units); strength (rows or 1, 1) of the noise in `numbers`."""
    out = _outputs(parameters, view, numbers, codes, strength, visible)
    density = _mixture(out[..., : 3 * COMPONENTS], numbers.T)
    on_axis = (codes.T == NUMBER) & view["numeric"][:, None]
    if out.shape[2] == 3 * COMPONENTS:
        return torch.where(on_axis, -density, view["never"]).T
    logits = out[..., 3 * COMPONENTS :].flatten(0, 1)
    found = F.cross_entropy(logits, codes.T.reshape(-1), reduction="none").view(len(out), -1)
    return torch.where(on_axis, found - density, found).T


def restored(parameters: State, view: State, found: Vectors) -> Tensor:
    """Squared error (rows, units) of every number guessed from the other columns; of codes 1 - p(code)."""
    numbers = found.numbers
    out = _outputs(parameters, view, numbers, found.codes, torch.full((1, 1), JUDGED), None)
    weight, mean, _ = out[..., : 3 * COMPONENTS].unflatten(2, (3, COMPONENTS)).unbind(2)
    guess = (torch.softmax(weight, 2) * mean).sum(2)
    on_axis = (found.codes.T == NUMBER) & view["numeric"][:, None]
    wrong = torch.ones_like(guess)
    if out.shape[2] > 3 * COMPONENTS:
        sure = torch.softmax(out[..., 3 * COMPONENTS :], 2)
        wrong = 1 - sure.gather(2, found.codes.T.unsqueeze(2)).squeeze(2)
    return torch.where(on_axis, (numbers.T - guess).square(), wrong).T


def _outputs(
    p: State, view: State, numbers: Tensor, codes: Tensor, strength: Tensor, visible: Tensor | None
) -> Tensor:
    """(units, rows, outputs): weights, means and log scales of the mixtures, then logits of the codes, if any."""
    added = _added(p, view, numbers, codes)
    if visible is not None:
        added = added * visible.T.unsqueeze(2)
    log = strength.log()
    known = torch.cat([log, log.square(), log**3 / 4], 1) @ p["strength"]
    h = F.silu((added.sum(0) + known) - added + p["start"])
    h = F.silu(torch.baddbmm(p["inner_bias"], h, p["inner"]))
    h = F.silu(torch.baddbmm(p["outer_bias"], h, p["outer"]))
    return torch.baddbmm(p["head_bias"], h, p["head"])


def _added(p: State, view: State, numbers: Tensor, codes: Tensor) -> Tensor:
    """What each unit adds to the context, (units, rows, CONTEXT)."""
    starts = (view["kinds"].cumsum(0) - view["kinds"])[:, None]
    none_off = p["head"].shape[2] == 3 * COMPONENTS and not bool(codes.any())
    embedded = F.embedding(starts if none_off else codes.T + starts, p["embedding"])
    z = numbers.T
    seen = torch.stack(
        [z / 2, torch.tanh(z), torch.tanh(3 * z), torch.tanh(z / 3), torch.exp(-2 * z * z), torch.arcsinh(z)],
        2,
    )
    return torch.baddbmm(embedded, seen, p["source"])


def _mixture(out: Tensor, z: Tensor) -> Tensor:
    """Log density (units, rows) of a mixture of logistics."""
    weight, mean, scale = out.unflatten(2, (3, COMPONENTS)).unbind(2)
    scale = scale.clamp(SHARPEST, 3.0)
    t = (z.unsqueeze(2) - mean) * torch.exp(-scale)
    return torch.logsumexp(torch.log_softmax(weight, 2) - t - scale - 2 * F.softplus(-t), 2)
