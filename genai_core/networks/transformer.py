"""Causal transformer over token sequences that starts from what n-gram counts say; sampling keeps keys and values"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.errors import InvalidInput
from genai_core.model import Condition
from genai_core.networks.attention import Block, Cache, Linear, precision, turns
from genai_core.networks.causal import CausalNetwork
from genai_core.networks.labels import Labels
from genai_core.networks.ngrams import NGrams
from genai_core.networks.tokens import draw, sharpened
from genai_core.spaces import Sequence, rounded
from genai_core.watermark import marked

HIDDEN, LAYERS, HEAD, DROPOUT = 192, 4, 64, 0.1
RECENT = 4  # tokens whose embeddings a place reads directly
SMALL = 1024  # largest vocabulary for which tables of n-grams, and an embedding for each of RECENT, are cheap
TOKENS_AT_ONCE = 2**13  # without gradients: bounds the memory of attention and of tables of n-grams


class CausalTransformer(CausalNetwork):
    """log p(token | label, the tokens before it) of a `Sequence` whose tokens have no order.

    A transformer whose logits are added to the log-probabilities of a Kneser-Ney model (`NGrams`), these weighted by
    its state: it has to learn only what counts do not know.
    """

    learning_rate = 3e-3
    weight_decay = 0.1

    def __init__(self, space: Sequence, settings: Any) -> None:
        super().__init__()
        self.space, self.labels = space, Labels(space.classes)
        width = settings.hidden or HIDDEN
        self.heads = settings.heads or max(width // HEAD, 1)
        if width % (2 * self.heads):
            raise InvalidInput(
                f"found hidden = {width} with {self.heads} heads; accepted is a width that {2 * self.heads} divides"
            )
        dropout = DROPOUT if settings.dropout is None else settings.dropout
        few = space.vocabulary <= SMALL
        self.recent = RECENT if few else 1
        self.tokens = nn.Embedding((space.vocabulary + 1) * self.recent, width)
        nn.init.normal_(self.tokens.weight, std=0.5)
        self.label = nn.Embedding(space.classes, width) if space.classes else None
        self.dropout = nn.Dropout(dropout)
        layers = settings.layers or LAYERS
        self.blocks = nn.ModuleList(Block(width, self.heads, dropout) for _ in range(layers))
        self.head = Linear(width, space.vocabulary, 1e-2)
        self.bias = nn.Parameter(torch.zeros(space.vocabulary))
        self.ngrams = NGrams(space.vocabulary, space.end is None) if few else None
        if self.ngrams is not None:
            self.familiar = Linear(self.ngrams.order, width, 1e-2)
            self.trust = nn.Linear(width + self.ngrams.order, 1)
            nn.init.zeros_(self.trust.weight)
            nn.init.ones_(self.trust.bias)
        self.turns: Tensor
        self.register_buffer("turns", turns(space.length + 1, width // self.heads), persistent=False)

    # -- training --------------------------------------------------------------------------------------------
    def initialise(self, x: Tensor) -> None:
        self.labels.initialise(x)
        _, tokens = self.labels.split(x)
        counted = ~self._ended(tokens)
        if self.ngrams is not None:
            self.ngrams.initialise(tokens, counted)
        else:
            frequencies = torch.bincount(tokens[counted], minlength=self.space.vocabulary) + 1.0
            self.bias.data.copy_(torch.log(frequencies / frequencies.sum()))

    def groups(self) -> list[dict]:
        """Matrices decay; vectors, numbers and the discounts of n-grams do not."""
        discounts = set() if self.ngrams is None else set(self.ngrams.parameters())
        free = [p for p in self.parameters() if p.dim() < 2 or p in discounts]
        matrices = [p for p in self.parameters() if p.dim() >= 2 and p not in discounts]
        return [{"params": matrices}, {"params": free, "weight_decay": 0.0}]

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._nats(x)
        return torch.cat([self._nats(part) for part in x.split(max(TOKENS_AT_ONCE // self.space.length, 1))])

    def _nats(self, x: Tensor) -> Tensor:
        labels, tokens = self.labels.split(x)
        ended = self._ended(tokens)
        # nothing is computed beyond the longest record of the batch
        longest = int((~ended).sum(1).max())
        length = longest if self.training else min(tokens.shape[1], rounded(longest))
        read = tokens[:, :length]
        # a record that is trained on must not meet itself in the counts
        own = self.ngrams.blocks_of(tokens) if self.training and self.ngrams is not None else None
        logits = self.logits(read, labels, without=own)
        nats = -F.cross_entropy(logits.flatten(0, 1), read.reshape(-1), reduction="none").view_as(read)
        nats = F.pad(nats, (0, tokens.shape[1] - length)).masked_fill(ended, 0.0)
        return torch.cat([self.labels.log_prob(x), nats], 1)

    def _ended(self, tokens: Tensor) -> Tensor:
        """Boolean, the shape of tokens: what comes after the first end."""
        if self.space.end is None:
            return torch.zeros_like(tokens, dtype=torch.bool)
        ends = tokens == self.space.end
        return ends.cumsum(1) > ends.long()

    # -- the network -----------------------------------------------------------------------------------------
    def logits(
        self,
        tokens: Tensor,
        labels: Tensor | None,
        cache: Cache | None = None,
        without: Tensor | None = None,
    ) -> Tensor:
        """(rows, places, vocabulary): of each place, from the tokens before it.

        Without a cache the places are those of the tokens. With one they are those that it has not seen, up to the
        place after the last token. without: blocks of records not to be counted, see `NGrams`.
        """
        first, last = (0, tokens.shape[1]) if cache is None else (cache.length, tokens.shape[1] + 1)
        state = self._read(tokens, labels, first, last)
        if self.ngrams is not None:
            counted, seen = self.ngrams(tokens, first, last, without)
            state = state + self.familiar(seen)
        dtype = precision(state.device) if self.training else state.dtype
        turn = self.turns[:, first:last].to(dtype)
        for layer, block in enumerate(self.blocks):
            state = block(state, turn, cache, layer)
        if cache is not None:
            cache.length = last
        state = F.layer_norm(state, state.shape[-1:])
        logits = self.head(state.to(dtype)).to(state.dtype) + self.bias
        if self.ngrams is None:
            return logits
        return logits + self.trust(torch.cat([state, seen], -1)) * counted

    def _read(self, tokens: Tensor, labels: Tensor | None, first: int, last: int) -> Tensor:
        """(rows, places, width): embeddings of the tokens just before each place, of the label; a start token first."""
        start = self.space.vocabulary
        history = F.pad(tokens, (self.recent, 0), value=start)[:, first : last - 1 + self.recent]
        slots = torch.arange(self.recent, device=tokens.device) * (start + 1)
        near = (history.unfold(1, self.recent, 1) + slots).flatten(0, 1)
        state = F.embedding_bag(near, self.tokens.weight, mode="sum").view(len(tokens), last - first, -1)
        if self.label is not None:
            state = state + self.label(labels)[:, None]
        return self.dropout(state)

    # -- sampling --------------------------------------------------------------------------------------------
    def sample(
        self,
        rows: int,
        generator: torch.Generator,
        conditions: Many[Condition] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        labels = self.labels.draw(rows, generator, conditions)
        prompt = self._prompt(conditions).to(self.bias.device)
        training = self.training
        self.eval()
        tokens = self._continued(prompt.expand(rows, -1), labels, generator, temperature, top_p)
        self.train(training)
        return self.labels.join(labels, tokens)

    @torch.no_grad()
    def _continued(
        self,
        tokens: Tensor,
        labels: Tensor | None,
        generator: torch.Generator,
        temperature: float,
        top_p: float,
    ) -> Tensor:
        """tokens (rows, any), none of them the end -> (rows, length)."""
        ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        cache = self.cache(len(tokens))
        while tokens.shape[1] < self.space.length and not bool(ended.all()):
            logits = sharpened(self.logits(tokens, labels, cache)[:, -1], temperature, top_p)
            token = draw(logits, torch.rand(len(tokens), generator=generator).to(logits.device))
            token = marked(token, logits, tokens, generator)
            if self.space.end is not None:
                token = token.masked_fill(ended, self.space.end)
                ended = token == self.space.end
            tokens = torch.cat([tokens, token[:, None]], 1)
        return F.pad(tokens, (0, self.space.length - tokens.shape[1]), value=self.space.end or 0)

    def cache(self, rows: int) -> Cache:
        """An empty one."""
        head = 2 * self.turns.shape[-1]
        return Cache(len(self.blocks), rows, self.heads, self.space.length, head, self.bias)

    def _prompt(self, conditions: Many[Condition]) -> Tensor:
        """The tokens (n,) that every record starts with. Raises InvalidInput if none can start so."""
        given = [c.prefix for c in conditions if c.prefix is not None]
        prompt = given[0].long() if given else torch.zeros(0, dtype=torch.long)
        if len(prompt) > self.space.length:
            raise InvalidInput(
                f"found a prompt of {len(prompt)} tokens; the model's records have {self.space.length}: shorten it"
            )
        odd = (prompt < 0) | (prompt >= self.space.vocabulary)
        if self.space.end is not None:
            odd |= prompt == self.space.end
        if bool(odd.any()):
            raise InvalidInput(
                f"found the token {int(prompt[odd][0])} in a prompt; accepted are 0 to {self.space.vocabulary - 1} "
                f"except the end, {self.space.end}"
            )
        return prompt
