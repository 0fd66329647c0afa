"""What adversarial families share: losses and gradient penalties."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Pairs of logits (batch,): a real record should look more real than a made one (Jolicoeur-Martineau 2018)."""
    return F.softplus(fake - real).mean()


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The same game from the other side; with zero-centred penalties it converges (Huang et al. 2024, R3GAN)."""
    return F.softplus(real - fake).mean()


def gradient_penalty(logits: Tensor, inputs: Tensor) -> Tensor:
    """Mean squared gradient norm per record: R1 on real, R2 on made records (Mescheder et al. 2018)."""
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (1 + x.y / d)^3 (Binkowski et al. 2018, KID).

    a, b: features (rows, d), equally many rows. Zero in expectation for equal distributions; may be negative.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    within = sum((k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b)))
    return float(within - 2 * kernel(a, b).mean())
