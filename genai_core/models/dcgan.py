"""Deep convolutional GAN as published (Radford, Metz & Chintala 2016): the baseline for pictures.

Strided convolutions, batch normalisation, the non-saturating game of Goodfellow et al. 2014, Adam at a constant 2e-4
with beta1 .5, no averaged weights. Published without labels; where records have them, both networks are told (Mirza &
Osindero 2014). The sizes of the layers follow the pictures'; 64 x 64 gives the published ones.
"""

from __future__ import annotations

from torch import Tensor

from genai_core.adversarial import binary_discriminator_loss, non_saturating_generator_loss
from genai_core.errors import InvalidInput
from genai_core.hyperparameters import Dcgan as Settings
from genai_core.model import Discriminates, Samples
from genai_core.networks.dcgan import dcgan_players
from genai_core.spaces import Grid, Space
from genai_core.two_players import TwoPlayers


class Dcgan(TwoPlayers, Samples, Discriminates):
    """Samples; its discriminator tells made from real, which is not a density."""

    learning_rate = 2e-4
    constant_rate = True
    betas = (0.5, 0.999)
    ema = 0.0

    def __init__(self, space: Space, settings: Settings | None = None) -> None:
        if not isinstance(space, Grid):
            raise InvalidInput(
                f"found records in a {type(space).__name__}; a dcgan learns pictures: use a gan"
            )
        s = settings or Settings()
        super().__init__(space, *dcgan_players(space, s), s.latent)
        self.settings = s

    def forward(self, x: Tensor, phase: str) -> Tensor:
        real, made, labels = self.deal(x, phase)
        if phase == "generator":
            return non_saturating_generator_loss(self.critic(made, labels))
        return binary_discriminator_loss(self.critic(real, labels), self.critic(made, labels))


MODEL = Dcgan
