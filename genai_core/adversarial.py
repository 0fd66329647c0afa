"""What adversarial families share: losses and gradient penalties."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.precision import at_least_float32, in_float32, penalties

if TYPE_CHECKING:  # its package needs this module
    from genai_core.networks.adversaries import Critic


@in_float32
def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Pairs of logits (batch,): a real record should look more real than a made one (Jolicoeur-Martineau 2018)."""
    return F.softplus(fake - real).mean()


@in_float32
def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The same game from the other side; with zero-centred penalties it converges (Huang et al. 2024, R3GAN)."""
    return F.softplus(real - fake).mean()


@in_float32
def gradient_penalty(logits: Tensor, inputs: Tensor) -> Tensor:
    """Mean squared gradient norm per record: R1 on real, R2 on made records (Mescheder et al. 2018)."""
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


@in_float32
def least_squares(judged: Tensor, wanted: float) -> Tensor:
    """Mean squared distance of what a discriminator says, of any shape, from what it should say (Mao et al. 2017)."""
    return (judged - wanted).square().mean()


@in_float32
def binary_discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """Cross-entropy of "real" and "made", logits (batch,) each (Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(made).mean()


@in_float32
def non_saturating_generator_loss(made: Tensor) -> Tensor:
    """Cross-entropy of calling made records real: steep where the discriminator wins (Goodfellow et al. 2014)."""
    return F.softplus(-made).mean()


def critic_loss(
    critic: Critic, real: Tensor, made: Tensor, labels: Tensor | None, loss: str, gamma: float
) -> Tensor:
    """What a critic minimises; real, made: dense records of equal shape, made without gradient."""
    if loss == "wasserstein":
        return (
            at_least_float32(critic(made, labels)).mean()
            - at_least_float32(critic(real, labels)).mean()
            + gamma * interpolated_penalty(critic, real, made, labels)
        )
    logit_real, penalty_real = penalised_logits(critic, real, labels)
    logit_made, penalty_made = penalised_logits(critic, made, labels)
    return relativistic_discriminator_loss(logit_real, logit_made) + 0.5 * gamma * (
        penalty_real + penalty_made
    )


def penalised_logits(critic: Critic, dense: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits of all records, and the gradient penalty of the share of them that the critic asks for."""
    rows = -(-int(len(dense) * critic.penalised) // critic.pac) * critic.pac
    logits, penalty = [], dense.new_zeros(())
    for first, last, with_penalty in ((0, rows, True), (rows, len(dense), False)):
        if first < last:
            part = at_least_float32(dense[first:last]).detach().requires_grad_(with_penalty)
            with penalties(part.device) if with_penalty else nullcontext():
                logits.append(critic(part, None if labels is None else labels[first:last]))
                penalty = gradient_penalty(logits[-1], part) if with_penalty else penalty
    return torch.cat([at_least_float32(part) for part in logits]), penalty


def generator_loss(critic: nn.Module, real: Tensor, made: Tensor, labels: Tensor | None, loss: str) -> Tensor:
    """What a generator minimises."""
    if loss == "wasserstein":
        return -at_least_float32(critic(made, labels)).mean()
    return relativistic_generator_loss(critic(real, labels), critic(made, labels))


def interpolated_penalty(critic: nn.Module, real: Tensor, made: Tensor, labels: Tensor | None) -> Tensor:
    """WGAN-GP (Gulrajani et al. 2017): squared distance of the gradient norm from 1 between real and made records."""
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = at_least_float32(share * real + (1 - share) * made).detach().requires_grad_(True)
    with penalties(between.device):
        (gradient,) = torch.autograd.grad(critic(between, labels).sum(), between, create_graph=True)
    return distance_from_one(gradient)


@in_float32
def distance_from_one(gradient: Tensor) -> Tensor:
    """Mean squared distance of the gradients' norms, one a record, from 1."""
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def kernel_distance(a: Tensor, b: Tensor, sharpness: float = 10.0) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012) with the kernel exp(sharpness (s - 1)).

    a, b: dense one-hot records (rows, d), equally many rows; s: the share of positions in which two records agree.
    Zero in expectation for equal distributions; may be negative. The sharper the kernel, the more whole records
    count and the less single columns: at 3 a generator with independent columns looked better than a trained one.
    """
    positions = a[0].sum()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(sharpness * (x @ y.T / positions - 1))

    n = len(a)
    near_a, near_b = ((k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b)))
    # relative to how close the records of a are to each other
    return float((near_a + near_b - 2 * kernel(a, b).mean()) / near_a)
