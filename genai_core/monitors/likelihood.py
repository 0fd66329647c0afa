"""Families with a likelihood: held-out nats that rise, latent dimensions of a VAE that carry nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genai_core.monitors.signals import Signal, signal

RISE = 0.005  # of the loss, over all rises: less is noise
CARRIED = 0.01  # nats that a latent dimension in use carries at least
ROWS = 1024


def rising(losses: Sequence[float]) -> Signal:
    """Of the validation losses so far: how many of the last ones each were worse than the one before."""
    rises = 0
    while rises + 1 < len(losses) and losses[-1 - rises] > losses[-2 - rises]:
        rises += 1
    if losses[-1] - losses[-1 - rises] < RISE * abs(losses[-1 - rises]):
        rises = 0
    return signal("rising", rises, f"the held-out loss has risen {rises} times in a row" if rises > 1 else "")


@torch.no_grad()
def posterior_collapse(model: Any, x: Tensor) -> Signal:
    """Share of a VAE's latent dimensions that say nothing of a record (Bowman et al. 2016).

    What a dimension says: nats between its posterior and the Gaussian of all posteriors together, which is the
    divergence from the best Gaussian prior, whatever the learnt prior is.
    """
    mean, log_scale = model.posterior_of(x[:ROWS])
    together = mean.var(0) + (2 * log_scale).exp().mean(0)
    nats = 0.5 * together.log() - log_scale.mean(0)
    share = float((nats < CARRIED).float().mean())
    said = f"{int(share * len(nats) + 0.5)} of {len(nats)} latent dimensions carry less than {CARRIED} nats"
    return signal("posterior_collapse", share, said)
