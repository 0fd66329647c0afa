"""Causal dilated convolutions over a sequence of ordered tokens: waveforms, one sample after the other"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.causal import CausalNetwork
from genai_core.networks.labels import Labels
from genai_core.networks.tokens import draw, sharpened
from genai_core.precision import at_least_float32
from genai_core.spaces import Sequence

CYCLE = 10  # dilations 1, 2, 4, ..., 512, and again
LAYERS, HIDDEN = 10, 48
ACTIVATIONS_AT_ONCE = 2**23


class DilatedNetwork(CausalNetwork):
    """WaveNet (van den Oord et al. 2016): gated convolutions of two samples, ever further apart, residual and skip.

    The softmax over the vocabulary is exact, so is the log-probability. While sampling, every layer keeps the states
    that it will look back at in a queue (Paine et al. 2016), so a sample costs the same however many went before.
    """

    learning_rate = 2e-3
    weight_decay = 0.01

    def __init__(self, space: Sequence, settings: Any) -> None:
        super().__init__()
        self.space = space
        width, layers = settings.hidden or HIDDEN, settings.layers or LAYERS
        self.dilations = [2 ** (i % CYCLE) for i in range(layers)]
        self.labels = Labels(space.classes)
        self.label = nn.Embedding(space.classes, layers * 2 * width) if space.classes else None
        self.start = space.vocabulary  # stands before the first token
        self.tokens = nn.Embedding(space.vocabulary + 1, width)
        self.value = nn.Parameter(torch.randn(width))  # times the token's place: neighbours sound alike
        self.past = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(layers))
        self.now = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))
        self.onward = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))  # residual, skip
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, 2 * width), nn.ReLU())
        self.logits = nn.Linear(2 * width, space.vocabulary)
        self.dropout = nn.Dropout(settings.dropout or 0.0)
        self._small_start()

    def _small_start(self) -> None:
        with torch.no_grad():
            self.tokens.weight.mul_(0.3)
            self.logits.weight.mul_(0.1)
            if self.label is not None:
                self.label.weight.mul_(0.1)

    # -- training --------------------------------------------------------------------------------------------
    def initialise(self, x: Tensor) -> None:
        self.labels.initialise(x)
        _, tokens = self.labels.split(x)
        counts = torch.bincount(tokens.flatten(), minlength=self.space.vocabulary) + 1.0
        self.logits.bias.data.copy_((counts / counts.sum()).log())

    def groups(self) -> list[dict]:
        """Matrices decay, vectors do not."""
        return [
            {"params": [p for p in self.parameters() if p.dim() >= 2]},
            {"params": [p for p in self.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._nats(x)
        together = max(ACTIVATIONS_AT_ONCE // (self.space.length * self.space.vocabulary), 1)
        return torch.cat([self._nats(part) for part in x.split(together)])

    def _nats(self, x: Tensor) -> Tensor:
        labels, tokens = self.labels.split(x)
        shifted = F.pad(tokens[:, :-1], (1, 0), value=self.start)
        state, skips = self._embed(shifted), torch.zeros(())
        biases = self._label_biases(labels)
        for layer, dilation in enumerate(self.dilations):
            back = F.pad(state, (0, 0, dilation, 0))[:, : state.shape[1]]
            state, skip = self._layer(layer, back, state, biases[layer])
            skips = skips + skip
        logits = at_least_float32(self.logits(self.head(self.dropout(skips))))
        nats = -F.cross_entropy(logits.flatten(0, 1), tokens.reshape(-1), reduction="none").view_as(tokens)
        return torch.cat([self.labels.log_prob(x), nats], 1)

    def _embed(self, tokens: Tensor) -> Tensor:
        """(..., width)."""
        middle = (self.space.vocabulary - 1) / 2
        place = torch.where(tokens == self.start, 0.0, (tokens - middle) / middle)
        return self.tokens(tokens) + place.unsqueeze(-1) * self.value

    def _label_biases(self, labels: Tensor | None) -> list[Tensor | float]:
        """What the label adds to the gates of each layer, (rows, 1, 2 width)."""
        if labels is None or self.label is None:
            return [0.0] * len(self.dilations)
        return list(self.label(labels).unsqueeze(1).chunk(len(self.dilations), -1))

    def _layer(self, layer: int, back: Tensor, state: Tensor, bias: Tensor | float) -> tuple[Tensor, Tensor]:
        """The next layer's state, and what goes to the head."""
        signal, gate = (self.past[layer](back) + self.now[layer](state) + bias).chunk(2, -1)
        residual, skip = self.onward[layer](torch.tanh(signal) * torch.sigmoid(gate)).chunk(2, -1)
        return state + residual, skip

    # -- sampling --------------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        rows: int,
        generator: torch.Generator,
        conditions: Many[Condition] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        training = self.training
        self.eval()
        labels = self.labels.draw(rows, generator, conditions)
        given = next((c.prefix for c in conditions if c.prefix is not None), None)
        biases = self._label_biases(labels)
        queues = [self.value.new_zeros(d, rows, len(self.value)) for d in self.dilations]
        token = torch.full((rows,), self.start, device=self.value.device)
        drawn = []
        for place in range(self.space.length):
            logits = sharpened(self._next(token, place, queues, biases), temperature, top_p)
            token = draw(logits, torch.rand(rows, generator=generator).to(logits.device))
            if given is not None and place < len(given):
                token = given[place].to(token).expand(rows)
            drawn.append(token)
        self.train(training)
        return self.labels.join(labels, torch.stack(drawn, 1))

    def _next(self, token: Tensor, place: int, queues: list[Tensor], biases: list[Tensor | float]) -> Tensor:
        """Logits (rows, vocabulary) of the token at a place, given the one before it and what the queues hold."""
        state, skips = self._embed(token), torch.zeros(())
        for layer, queue in enumerate(queues):
            slot = place % len(queue)
            back = queue[slot].clone()
            queue[slot] = state
            bias = biases[layer]
            state, skip = self._layer(layer, back, state, bias[:, 0] if isinstance(bias, Tensor) else bias)
            skips = skips + skip
        return self.logits(self.head(skips))
