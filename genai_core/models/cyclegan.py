"""CycleGAN (Zhu et al. 2017): translates between two unpaired domains of pictures, the two values of the label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genai_core.adversarial import least_squares
from genai_core.errors import InvalidData
from genai_core.evaluation.frechet import kernel_distance
from genai_core.hyperparameters import Cyclegan as Settings
from genai_core.model import Discriminates, Model, Reconstructs, Translates
from genai_core.networks.keras_adapter import KerasPatches, KerasTranslator
from genai_core.networks.levels import scaled, whole
from genai_core.networks.picture_features import PictureFeatures
from genai_core.networks.picture_translation import PatchDiscriminator, TranslationGenerator
from genai_core.spaces import Grid, Space

DOMAINS = (0, 1)
VALIDATION_ROWS = 1024  # of each domain
VALIDATION_BATCH = 256
SCALE_MEMORY = 0.98  # of the running mean of the cycle's error
MIN_SCALE = 0.05  # levels


class Cyclegan(Model, Translates, Reconstructs, Discriminates):
    """Least-squares adversaries, cycle and identity losses, and a pool of made pictures for the discriminators.

    A batch holds both domains, unpaired; each record's label says which it is from. What a batch lacks by chance is
    left out of its losses.
    """

    phases = ("generator", "discriminator")
    learning_rate = 2e-4
    weight_decay = 0.0
    betas = (0.5, 0.999)
    ema = 0.99
    pool: Tensor
    pooled: Tensor
    scale: Tensor

    def __init__(self, space: Space, settings: Settings | None = None) -> None:
        super().__init__(space)
        grid = _two_domains(space)
        self.settings = s = settings or Settings()
        self.generators = nn.ModuleList(_generator(grid, s) for _ in DOMAINS)  # by the domain they make
        self.discriminators = nn.ModuleList(_discriminator(grid, s) for _ in DOMAINS)
        self.features = PictureFeatures(grid.channels)
        kind = torch.uint8 if grid.levels <= 256 else torch.int32
        self.register_buffer("pool", torch.zeros(len(DOMAINS), s.pool, grid.size, dtype=kind))
        self.register_buffer("pooled", torch.zeros(len(DOMAINS), dtype=torch.int64))
        # the maximum-likelihood scale of a Laplace distribution is its mean absolute deviation
        self.register_buffer("scale", torch.full((len(DOMAINS),), grid.levels / 16))

    def train(self, mode: bool = True) -> Cyclegan:
        """Leaving training empties the pool: what it holds may be all but copies of training pictures."""
        if not mode:
            self.pool.zero_()
            self.pooled.zero_()
        return super().train(mode)

    def parameters_of(self, phase: str) -> list[dict]:
        players = self.generators if phase == "generator" else self.discriminators
        return [{"params": list(players.parameters())}]

    def forward(self, x: Tensor, phase: str) -> Tensor:
        real = [self._of(x, domain) for domain in DOMAINS]
        if phase == "generator":
            return torch.stack([self._generator_loss(real[d], d) for d in DOMAINS if len(real[d])]).sum()
        if not all(map(len, real)):  # a discriminator that sees one side alone learns nothing true
            return sum(p.sum() * 0 for p in self.discriminators.parameters())  # type: ignore[return-value]
        return torch.stack([self._discriminator_loss(real, d) for d in DOMAINS]).sum()

    def _of(self, x: Tensor, domain: int) -> Tensor:
        """The pictures of a domain, in -1 .. 1."""
        return scaled(x[x[:, 0] == domain, 1:], self.space)

    def _generator_loss(self, real: Tensor, domain: int) -> Tensor:
        """What the pictures of one domain ask of the generators: to pass in the other, to come back, to stay."""
        there = self.generators[1 - domain](real)
        back = self.generators[domain](there)
        error = (back - real).abs().mean()
        with torch.no_grad():
            self.scale[domain].lerp_(error * ((self.space.levels - 1) / 2), 1 - SCALE_MEMORY)
        loss = least_squares(self.discriminators[1 - domain](there), 1) + self.settings.cycle * error
        if self.settings.identity:
            stayed = self.generators[domain](real)
            loss = loss + self.settings.identity * (stayed - real).abs().mean()
        return loss

    def _discriminator_loss(self, real: list[Tensor], domain: int) -> Tensor:
        with torch.no_grad():
            made = self._replayed(self.generators[domain](real[1 - domain]), domain)
        judge = self.discriminators[domain]
        return 0.5 * (least_squares(judge(real[domain]), 1) + least_squares(judge(made), 0))

    def _replayed(self, made: Tensor, domain: int) -> Tensor:
        """Half of the made pictures swapped for earlier ones (Shrivastava et al. 2017); the pool fills up first."""
        size, held = self.settings.pool, int(self.pooled[domain])
        levels, pool = whole(made, self.space), self.pool[domain]
        added = min(size - held, len(made))
        pool[held : held + added] = levels[:added].to(pool.dtype)
        self.pooled[domain] += added
        slots = torch.randperm(size, device=made.device)[: len(made) - added]
        swapped = torch.rand(len(slots), device=made.device) < 0.5
        slots, rows = slots[swapped], added + torch.arange(len(swapped), device=made.device)[swapped]
        earlier = pool[slots].long()
        pool[slots] = levels[rows].to(pool.dtype)
        return scaled(levels.index_copy(0, rows, earlier), self.space)

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        """What is lost on the way there and back, plus how far translated records are from real ones; no likelihood.

        Mean over both directions. The first part is the cycle's absolute error relative to that of the domain's mean
        picture, the second the kernel distance between translated and real records of the target domain relative to
        that between the two domains: doing nothing costs 1, and so does a translation that forgets where it came from.
        """
        real = [self._of(x, domain)[:VALIDATION_ROWS] for domain in DOMAINS]
        if min(map(len, real)) < 2:
            raise InvalidData(
                f"the held-out records hold {len(real[0])} and {len(real[1])} of the two domains; at least 2 of each "
                "are needed: raise fit.validation_fraction, or give more records"
            )
        apart = self._distance(*real)
        return sum(self._cost(real, domain, apart) for domain in DOMAINS) / len(DOMAINS)

    def _cost(self, real: list[Tensor], domain: int, apart: float) -> float:
        there, back = [], []
        for part in real[domain].split(VALIDATION_BATCH):
            there.append(self.generators[1 - domain](part))
            back.append(self.generators[domain](there[-1]))
        start = real[domain]
        forgotten = (start - start.mean(0)).abs().mean().clamp(min=1e-6)
        lost = float((torch.cat(back) - start).abs().mean() / forgotten)
        return lost + self._distance(torch.cat(there), real[1 - domain]) / max(apart, 1e-6)

    def _distance(self, a: Tensor, b: Tensor) -> float:
        """Kernel distance of two sets of pictures."""
        return kernel_distance(*(self.features(pictures).numpy(force=True) for pictures in (a, b)))

    def translate(self, x: Tensor, to: int) -> Tensor:
        made = whole(self.generators[to](scaled(x[:, 1:], self.space)), self.space)
        translated = torch.cat([torch.full_like(x[:, :1], to), made], 1)
        return torch.where(x[:, :1] == to, x, translated)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The picture's levels under a Laplace distribution, cut to the levels that there are, around the picture
        that comes back from the other domain; its scale is the mean error of the domain's training pictures. The
        label costs nothing."""
        domain = x[:, :1]
        back = torch.where(domain == 0, self._cycled(x, 0), self._cycled(x, 1))
        rate = 1 / self.scale.clamp(min=MIN_SCALE)[domain]
        nats = _laplace(x[:, 1:], back, rate, self.space.levels)
        return torch.cat([torch.zeros_like(nats[:, :1]), nats], 1)

    def _cycled(self, x: Tensor, domain: int) -> Tensor:
        """All records taken for ones of `domain`, to the other and back: levels (batch, size)."""
        there = self.generators[1 - domain](scaled(x[:, 1:], self.space))
        return whole(self.generators[domain](there), self.space)

    def discriminate(self, x: Tensor) -> Tensor:
        """The mean of the patches that the domain's own discriminator judges, less 1/2: undecided is 0."""
        pictures = scaled(x[:, 1:], self.space)
        first, second = (judge(pictures).mean(1) for judge in self.discriminators)
        return torch.where(x[:, 0] == 0, first, second) - 0.5


def _generator(space: Grid, settings: Settings) -> nn.Module:
    """Ours, or the one that the settings define in Keras."""
    text = settings.generator
    return KerasTranslator(text, space) if text else TranslationGenerator(space, settings)


def _discriminator(space: Grid, settings: Settings) -> nn.Module:
    """Ours, or the one that the settings define in Keras."""
    text = settings.discriminator
    return KerasPatches(text, space) if text else PatchDiscriminator(space, settings)


def _two_domains(space: Space) -> Grid:
    """The space, if the family can learn it. Raises InvalidData."""
    if not isinstance(space, Grid):
        raise InvalidData(
            f"found records of the space {type(space).__name__}; a cyclegan translates pictures: use the modality image"
        )
    if space.classes != len(DOMAINS):
        found = f"a label with {space.classes} values" if space.classes else "records without a label"
        raise InvalidData(
            f"found {found}; the two domains of a cyclegan are the two values of modality.label: name a column "
            "that holds exactly two values"
        )
    if min(space.height, space.width) < 8:
        raise InvalidData(
            f"found pictures of {space.height} x {space.width}; a cyclegan needs at least 8 x 8: set modality.size"
        )
    return space


def _laplace(levels: Tensor, centre: Tensor, rate: Tensor, count: int) -> Tensor:
    """log p(level), nats: exp(-rate |level - centre|), normalised over the levels 0 .. count - 1."""
    below = torch.exp(-rate * (centre + 1))
    above = torch.exp(-rate * (count - centre))
    total = (1 + torch.exp(-rate) - below - above) / -torch.expm1(-rate)
    return -rate * (levels - centre).abs() - total.log()


MODEL = Cyclegan
