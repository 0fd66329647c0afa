"""Adversaries: a discriminator that wins too easily, or that knows its training records by heart (Karras et al. 2020);
a generator that no longer listens to its noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genai_core.monitors.signals import Signal, signal


@torch.no_grad()
def judged(model: Any, x: Tensor) -> Tensor:
    """Logits (packs,) of records x (rows, entries) by the model's critic; packs of different records."""
    critic = getattr(model, "critic", None)
    if critic is None:
        return model.discriminate(x)
    x = x[: len(x) // critic.pac * critic.pac]
    labels, _ = model.labels.split(x)
    return critic(model.generator.dense(x), labels).float()


@torch.no_grad()
def noise_ignored(model: Any, rows: int) -> Signal:
    """Share of the made records that stay the same, entry for entry, when their noise is another and all else the same.

    The first noise stays: a generator may take it for all. Tables are drawn from what the noise gives: the same numbers
    decide both times.
    """
    labels = model.labels.draw(rows, torch.Generator().manual_seed(0), ())
    z = torch.randn(2, rows, model.latent, generator=torch.Generator().manual_seed(1))
    z[1, 0] = z[0, 0]
    first, second = (
        model.generator.draw(
            one.to(model.labels.frequencies.device), labels, torch.Generator().manual_seed(2)
        )
        for one in z
    )
    same = float((first == second)[1:].all(1).float().mean())
    return signal("noise_ignored", same, f"{same:.0%} of the made records do not depend on their noise")


def discriminator(train: Tensor, held_out: Tensor, made: Tensor) -> list[Signal]:
    """From logits of training, held-out and made records, about equally many.

    The sign of D, on pairs as in a relativistic game: twice the share in which the training record looks more real,
    less 1.
    """
    wins = (train[:, None] > made).float().mean() + 0.5 * (train[:, None] == made).float().mean()
    sign = 2 * float(wins) - 1
    gap, apart = float(train.mean() - held_out.mean()), float(train.mean() - made.mean())
    noise = float((train.var() / len(train) + held_out.var() / len(held_out)).sqrt())
    overfit = gap / apart if apart > 0 and gap > 3 * noise else 0.0
    return [
        signal("saturation", sign, f"the discriminator tells {(sign + 1) / 2:.0%} of the pairs apart"),
        signal(
            "discriminator_overfit", overfit, f"held-out records look {overfit:.0%} of the way to made ones"
        ),
    ]
