"""From the bytes of texts to tokens and back: the bytes themselves, or a byte-pair encoding"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidInput, Unavailable

REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()  # written for a byte that no training text holds
LONGEST = 16  # bytes of a token


class Ragged(NamedTuple):
    """Tokens of many texts, one text after the other, and how many each has."""

    tokens: np.ndarray
    lengths: np.ndarray


class TextTokens(Protocol):
    """Tokens 0 .. vocabulary - 1 for any bytes."""

    vocabulary: int
    longest: int  # bytes of a token at most

    def encode(self, texts: pa.LargeBinaryArray) -> Ragged:
        """Of UTF-8 texts without nulls; one that is cut inside a character loses what is left of it."""
        ...

    def prefix(self, text: str) -> np.ndarray:
        """Tokens (n,) of the beginning of a text. Raises InvalidInput for what no text of the model can hold."""
        ...

    def written(self, tokens: Sequence[int]) -> bytes:
        """What tokens stand for; perhaps no UTF-8."""
        ...

    def widths(self, tokens: np.ndarray) -> np.ndarray:
        """How many bytes of an encoded text each token stands for."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything fitted, as JSON."""
        ...


class ByteTokens:
    """One token for each byte that the training texts hold, and one for all others: what was never seen stays odd."""

    longest = 1

    def __init__(self, seen: Sequence[int]) -> None:
        self.seen = np.array(sorted(seen), np.uint8)
        self.vocabulary = len(self.seen) + 1
        self._token_of = np.full(256, len(self.seen), np.int32)
        self._token_of[self.seen] = np.arange(len(self.seen))
        self._written = [bytes([byte]) for byte in self.seen] + [REPLACEMENT]

    def encode(self, texts: pa.LargeBinaryArray) -> Ragged:
        """See `TextTokens`; what is left of a cut character stays."""
        values, lengths = contents(texts)
        return Ragged(self._token_of[values], lengths)

    def prefix(self, text: str) -> np.ndarray:
        """See `TextTokens`."""
        strange = [c for c in text if not np.isin(list(c.encode()), self.seen).all()]
        if strange:
            raise InvalidInput(
                f"the prompt holds {strange[0]!r}, which no training text does; no text with it can be drawn"
            )
        return self._token_of[list(text.encode())]

    def written(self, tokens: Sequence[int]) -> bytes:
        """See `TextTokens`; the token of unseen bytes stands for the replacement character."""
        return b"".join([self._written[token] for token in tokens])

    def widths(self, tokens: np.ndarray) -> np.ndarray:
        """See `TextTokens`."""
        return np.ones(len(tokens), np.int64)

    def state(self) -> dict[str, Any]:
        """See `TextTokens`."""
        return {"kind": "bytes", "seen": self.seen.tolist()}


class PairTokens:
    """Byte-pair encoding (Sennrich et al. 2016) of bytes (Radford et al. 2019): frequent strings are tokens."""

    longest = LONGEST

    def __init__(self, rules: str) -> None:
        require_tokenizers()
        # the workers of a job share the cores already
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        self.rules, self._tokenizer = rules, Tokenizer.from_str(rules)
        self.vocabulary = self._tokenizer.get_vocab_size()
        letters = _byte_letters()
        names = [self._tokenizer.id_to_token(token) for token in range(self.vocabulary)]
        self._written = [bytes(letters[letter] for letter in name or "") for name in names]
        self._widths = np.array([len(written) for written in self._written], np.int64)

    @classmethod
    def fit(cls, texts: Sequence[str], vocabulary: int) -> PairTokens:
        """Merge the most frequent pairs until there are so many tokens; the same texts give the same tokens."""
        require_tokenizers()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=LONGEST,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    def encode(self, texts: pa.LargeBinaryArray) -> Ragged:
        """See `TextTokens`."""
        found = self._tokenizer.encode_batch_fast(
            [text.decode("utf-8", "ignore") for text in texts.to_pylist()]
        )
        ids = [np.array(encoding.ids, np.int32) for encoding in found]
        lengths = np.array([len(i) for i in ids], np.int64)
        return Ragged(np.concatenate(ids) if ids else np.zeros(0, np.int32), lengths)

    def prefix(self, text: str) -> np.ndarray:
        """See `TextTokens`."""
        return np.array(self._tokenizer.encode(text).ids, np.int32)

    def written(self, tokens: Sequence[int]) -> bytes:
        """See `TextTokens`."""
        return b"".join([self._written[token] for token in tokens])

    def widths(self, tokens: np.ndarray) -> np.ndarray:
        """See `TextTokens`."""
        return self._widths[tokens]

    def state(self) -> dict[str, Any]:
        """See `TextTokens`."""
        return {"kind": "bpe", "rules": json.loads(self.rules)}


def from_state(state: dict[str, Any]) -> TextTokens:
    """The inverse of `TextTokens.state`."""
    return ByteTokens(state["seen"]) if state["kind"] == "bytes" else PairTokens(json.dumps(state["rules"]))


def require_tokenizers() -> None:
    """Raise Unavailable where the library for byte-pair encoding is not installed."""
    if find_spec("tokenizers") is None:
        raise Unavailable(
            "byte-pair encoding needs the package tokenizers, which is not installed: pip install 'genai-core[text]', "
            "or set modality.tokens: bytes"
        )


def contents(texts: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """All bytes of an array without nulls, one text after the other, and how many each has."""
    _, offsets, values = texts.buffers()
    starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.zeros(0, np.uint8) if values is None else np.frombuffer(values, np.uint8)
    return data[starts[0] : starts[-1]], np.diff(starts)


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level encodings write the 256 bytes: printable ones as themselves, the others in order
    from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(others)}
