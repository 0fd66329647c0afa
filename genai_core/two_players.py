"""What families of a generator and a critic share beside the game that they play: drawing, judging, validation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genai_core.model import Condition, Model
from genai_core.networks.adversaries import Critic, Generator
from genai_core.networks.labels import Labels
from genai_core.spaces import Space


class TwoPlayers(Model):
    """A model of a `Generator` and a `Critic`; a family adds `forward`, what each of them minimises."""

    phases: tuple[str, ...] = ("discriminator", "generator")
    weight_decay = 0.0

    def __init__(self, space: Space, generator: Generator, critic: Critic, latent: int) -> None:
        super().__init__(space)
        self.generator, self.critic, self.latent = generator, critic, latent
        self.smallest_batch = critic.pac
        self.labels = Labels(getattr(space, "classes", 0))

    def epochs(self, steps: int) -> int:
        few, most = self.generator.epochs, super().epochs(steps)
        return most if few is None else min(max(few[0], few[1] // steps), most)

    def initialise(self, x: Tensor) -> None:
        self.labels.initialise(x)
        self.generator.initialise(x)

    def parameters_of(self, phase: str) -> list[dict]:
        if phase == "discriminator":
            return [{"params": list(self.critic.parameters())}]
        return [{"params": self.generator.parameters_of(phase)}]

    def deal(self, x: Tensor, phase: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """Real and as many made records, dense, and the labels of both; whole packs, in random order.

        The loop's batches are in the order of the data: packs of neighbours would be more alike than made ones. Only in
        the generator's phase do made records carry gradients.
        """
        x = x[torch.randperm(len(x), device=x.device)[: len(x) // self.critic.pac * self.critic.pac]]
        if self.restraint:
            self.critic.hold_back()
        labels, _ = self.labels.split(x)
        z = torch.randn(len(x), self.latent, device=x.device)
        with torch.set_grad_enabled(phase == "generator"):
            made = self.generator(z, labels)
        return self.generator.dense(x), made, labels

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        """The generator's distance between held-out and made records: there is no likelihood to go by."""
        x = x[: self.generator.compared]
        made = self.sample(len(x), torch.Generator().manual_seed(0)).to(x.device)
        return self.generator.distance(x, made)

    def discriminate(self, x: Tensor) -> Tensor:
        """Logits (batch,): every record is judged in a pack of copies of itself."""
        labels, _ = self.labels.split(x)
        pac = self.critic.pac
        each = None if labels is None else labels.repeat_interleave(pac, 0)
        return self.critic(self.generator.dense(x).repeat_interleave(pac, 0), each)

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        """x (rows, entries), from noise and, in spaces with classes, labels as frequent as in the training data."""
        labels = self.labels.draw(rows, generator, conditions)
        z = torch.randn(rows, self.latent, generator=generator).to(self.labels.frequencies.device)
        return self.generator.draw(z, labels, generator)
