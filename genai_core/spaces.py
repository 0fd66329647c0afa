"""Spaces: what a tensor is. A model sees a space, never a modality."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class Position:
    """One categorical variable of a record.

    vocabulary  number of tokens
    field       index of the record field (a table's column) that it describes
    values      the tokens' places on the field's value axis, standardised; NaN for tokens off the axis
                (missing, unseen). Shape (vocabulary,), or (parent's vocabulary, vocabulary) when the place
                depends on the parent's token. None for unordered tokens.
    drawable    shape (vocabulary,); False for tokens that no record can be decoded from
    parent      index of an earlier position of the same field on which `allowed` depends, or None
    allowed     shape (parent's vocabulary, vocabulary); the tokens possible after each token of the parent
    """

    vocabulary: int
    field: int
    drawable: np.ndarray
    values: np.ndarray | None = None
    parent: int | None = None
    allowed: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Tokens:
    """Records of categorical variables: x has shape (batch, positions), integers.

    fields names what the positions describe; several positions may share one field, and then the later ones
    refine the earlier (a quantile bin, then the rank inside it).
    """

    positions: tuple[Position, ...]
    fields: tuple[str, ...]
    field_of: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "field_of", np.array([p.field for p in self.positions], dtype=np.int64))

    @property
    def vocabularies(self) -> list[int]:
        return [p.vocabulary for p in self.positions]

    def positions_of(self, field_index: int) -> list[int]:
        """Indices of the positions that describe one field, in their order."""
        return np.flatnonzero(self.field_of == field_index).tolist()


class Records(NamedTuple):
    """A batch of encoded records, in numpy or torch.

    tokens       shape (batch, positions), integers
    log_measure  shape (batch, fields), nats: what turns the probability of a field's tokens into the density of
                 its value under the field's reference measure (see `genai_core.columns`)
    """

    tokens: np.ndarray
    log_measure: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: np.ndarray | slice) -> Records:
        """The records at `index`."""
        return Records(self.tokens[index], self.log_measure[index])
