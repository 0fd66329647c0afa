"""The prior of a variational autoencoder, learnt: a mixture of Gaussians behind an invertible map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.networks.tokens import draw
from genai_core.precision import in_float32

LOG_2PI = math.log(2 * math.pi)


class Mixture(nn.Module):
    """A mixture of Gaussians with diagonal covariances, z (..., latent)."""

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.randn(components, latent) * (0.5 if components > 1 else 0.0))
        self.log_scale = nn.Parameter(torch.zeros(components, latent))

    @in_float32
    def log_prob(self, z: Tensor) -> Tensor:
        """Nats (...)."""
        inverse = torch.exp(-2 * self.log_scale)
        # the square written out: one matrix product instead of a tensor of all differences
        distance = (
            z.square() @ inverse.T - 2 * z @ (self.mean * inverse).T + (self.mean.square() * inverse).sum(1)
        )
        nats = -0.5 * (distance + self.mean.shape[1] * LOG_2PI) - self.log_scale.sum(1)
        return torch.logsumexp(torch.log_softmax(self.weight, 0) + nats, -1)

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """z (rows, latent)."""
        uniform = torch.rand(rows, generator=generator)
        noise = torch.randn(rows, self.mean.shape[1], generator=generator)
        chosen = draw(self.weight.expand(rows, -1), uniform.to(self.weight.device))
        return self.mean[chosen] + self.log_scale[chosen].exp() * noise.to(self.mean)


class Coupling(nn.Module):
    """Half of z shifted and scaled by what the other half says (Dinh et al. 2017)."""

    keep: Tensor

    def __init__(self, latent: int, hidden: int, odd: bool) -> None:
        super().__init__()
        self.register_buffer("keep", (torch.arange(latent) % 2 == int(odd)).float(), persistent=False)
        self.inner, self.outer = nn.Linear(latent, hidden), nn.Linear(hidden, 2 * latent)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def _terms(self, z: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self.outer(F.gelu(self.inner(z * self.keep))).chunk(2, -1)
        return shift * (1 - self.keep), torch.tanh(scale) * (1 - self.keep)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the mixture, and the log of the volume's change."""
        shift, scale = self._terms(z)
        return (z + shift) * scale.exp(), scale.sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Back."""
        shift, scale = self._terms(z)
        return z * (-scale).exp() - shift


class LatentPrior(nn.Module):
    """p(z): what the plain Gaussian prior leaves empty between the codes, a learnt one does not draw."""

    def __init__(self, latent: int, components: int, couplings: int, hidden: int = 64) -> None:
        super().__init__()
        self.mixture = Mixture(latent, components)
        layers = [Coupling(latent, hidden, i % 2 == 1) for i in range(couplings)]
        self.couplings = nn.ModuleList(layers)

    def log_prob(self, z: Tensor) -> Tensor:
        """Nats (...) of z (..., latent)."""
        volume = z.new_zeros(())
        for coupling in self.couplings:
            z, change = coupling(z)
            volume = volume + change
        return self.mixture.log_prob(z) + volume

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """z (rows, latent)."""
        z = self.mixture.draw(rows, generator)
        for coupling in reversed([c for c in self.couplings if isinstance(c, Coupling)]):
            z = coupling.inverse(z)
        return z
