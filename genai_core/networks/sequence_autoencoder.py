"""Encoder and decoder of token sequences: convolutions that are pooled, and a recurrent network given the code"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.labels import Labels
from genai_core.networks.tokens import draw
from genai_core.observations import Observation
from genai_core.precision import at_least_float32
from genai_core.spaces import Sequence

LAYERS = 3  # of convolutions, each halving the length
WORD_DROPOUT = 0.3  # share of the tokens that the decoder must do without in training


class Ends:
    """Where the sequences of a space end."""

    def __init__(self, space: Sequence) -> None:
        self.space = space

    def counted(self, tokens: Tensor) -> Tensor:
        """Boolean, the shape of tokens: everything up to the first end and it as well."""
        if self.space.end is None:
            return torch.ones_like(tokens, dtype=torch.bool)
        ends = tokens == self.space.end
        return ends.cumsum(1) == ends.long()

    def trimmed(self, tokens: Tensor) -> Tensor:
        """Without what follows the longest sequence of the batch."""
        return tokens[:, : int(self.counted(tokens).sum(1).max())]


class SequenceEncoder(nn.Module):
    """x (batch, entries) -> (batch, hidden); what follows the end has no influence."""

    def __init__(self, space: Sequence, settings: Any) -> None:
        super().__init__()
        self.labels, self.ends = Labels(space.classes), Ends(space)
        width = settings.hidden
        self.embedding = nn.Embedding(space.vocabulary, settings.embedding)
        inputs = [settings.embedding] + [width] * (LAYERS - 1)
        self.convolutions = nn.ModuleList(nn.Conv1d(i, width, 5, stride=2, padding=2) for i in inputs)
        self.last = nn.Linear(2 * width, width)
        self.of_label = nn.Embedding(space.classes, width) if space.classes else None

    def forward(self, x: Tensor) -> Tensor:
        labels, tokens = self.labels.split(x)
        tokens = self.ends.trimmed(tokens) if self.training else tokens
        inside = self.ends.counted(tokens).unsqueeze(1).float()
        h = self.embedding(tokens).transpose(1, 2) * inside
        for convolution in self.convolutions:
            inside = inside[:, :, ::2]
            h = F.gelu(convolution(h)) * inside
        # the greatest value beside the mean keeps the code in use (Long et al. 2019)
        pooled = torch.cat([h.sum(2) / inside.sum(2), h.masked_fill(inside == 0, -torch.inf).amax(2)], 1)
        h = self.last(pooled)
        return F.gelu(h if self.of_label is None else h + self.of_label(labels))


class SequenceObservation(Observation):
    """p(label) p(tokens | h, label), token by token.

    A decoder that sees every token before the next one learns to do without h; so some are hidden from it in training
    (Bowman et al. 2016).
    """

    def __init__(self, space: Sequence, settings: Any) -> None:
        super().__init__()
        self.space, self.labels, self.ends = space, Labels(space.classes), Ends(space)
        width = settings.hidden
        self.start, self.hidden_token = space.vocabulary, space.vocabulary + 1
        self.embedding = nn.Embedding(space.vocabulary + 2, settings.embedding)
        self.of_label = nn.Embedding(space.classes, width) if space.classes else None
        self.at_first = nn.Linear(width, width)
        self.recurrence = nn.GRU(settings.embedding + width, width, batch_first=True)
        self.from_code = nn.Linear(width, width)
        self.head = nn.Linear(width, space.vocabulary)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        self.labels.initialise(x)
        _, tokens = self.labels.split(x)
        counts = torch.bincount(tokens[self.ends.counted(tokens)], minlength=self.space.vocabulary) + 1.0
        self.head.bias.copy_((counts / counts.sum()).log())

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        labels, whole = self.labels.split(x)
        tokens = self.ends.trimmed(whole) if self.training else whole
        h = self._given(h, labels)
        before = F.pad(tokens[:, :-1], (1, 0), value=self.start)
        if self.training:
            before = before.masked_fill(
                torch.rand(before.shape, device=x.device) < WORD_DROPOUT, self.hidden_token
            )
        logits, _ = self._step(before, h, self._first(h))
        logits = at_least_float32(logits).transpose(1, 2)
        nats = -F.cross_entropy(logits, tokens, reduction="none")
        nats = nats.masked_fill(~self.ends.counted(tokens), 0.0)
        nats = F.pad(nats, (0, whole.shape[1] - tokens.shape[1]))
        return torch.cat([self.labels.log_prob(x), nats], 1)

    @torch.no_grad()
    def draw(self, h: Tensor, generator: torch.Generator, conditions: Many[Condition] = ()) -> Tensor:
        return self.drawn(h, self.labels.draw(len(h), generator, conditions), generator)

    @torch.no_grad()
    def drawn(self, h: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        """Records (batch, entries) given h (batch, hidden) and their labels (batch,), or None without classes."""
        end = self.space.end
        h = self._given(h, labels)
        state = self._first(h)
        token = torch.full((len(h),), self.start, device=h.device)
        tokens = torch.full((len(h), self.space.length), 0 if end is None else end, device=h.device)
        ended = torch.zeros(len(h), dtype=torch.bool, device=h.device)
        for place in range(self.space.length):
            logits, state = self._step(token.unsqueeze(1), h, state)
            token = draw(logits[:, 0], torch.rand(len(h), generator=generator).to(h.device))
            if end is not None:
                token = token.masked_fill(ended, end)
                ended = token == end
            tokens[:, place] = token
            if bool(ended.all()):
                break
        return self.labels.join(labels, tokens)

    def _given(self, h: Tensor, labels: Tensor | None) -> Tensor:
        return h if self.of_label is None else h + self.of_label(labels)

    def _first(self, h: Tensor) -> Tensor:
        """State (1, batch, hidden) before the first token."""
        return torch.tanh(self.at_first(h)).unsqueeze(0)

    def _step(self, tokens: Tensor, h: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, places, vocabulary) after tokens (batch, places), and the state after the last."""
        given = h.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        out, state = self.recurrence(torch.cat([self.embedding(tokens), given], 2), state)
        return self.head(F.gelu(out + self.from_code(h).unsqueeze(1))), state
