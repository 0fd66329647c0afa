"""Spaces: what a tensor is. A model sees a space, never a modality.

A record of any space is one row of whole numbers, x of shape (batch, entries): one storage, one training loop and one
checkpoint serve them all. What the entries of a row mean is the space's own business:

    Tokens    categorical variables with vocabularies of their own            tables
    Grid      [label] channels x height x width levels                        pictures, spectrograms
    Sequence  [label] length tokens of one vocabulary                         text, waveforms

log_prob and everything like it has the shape of x: nats per entry; `field_of` says which field an entry belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike

BUCKET = 32  # tokens


class Space(Protocol):
    """What all spaces state about their records."""

    fields: tuple[str, ...]  # names of what a record consists of: columns, or label and picture
    field_of: np.ndarray  # (entries,): the field of each entry
    dtype: DTypeLike  # in which records are kept on disk

    @property
    def entries(self) -> int:
        """Whole numbers in a record."""
        ...

    @property
    def batches(self) -> Batches:
        """How many records are handled together."""
        ...


class Batches(NamedTuple):
    """Records handled together. Drawing and scoring never use other sizes: results must not depend on neighbours."""

    train: int  # unless the job says otherwise
    draw: int
    score: int


class OffAxis(NamedTuple):
    """Where a value lies whose token says only `below`, `above` or `unseen`: its log measure m tells.

    Beyond the ends, which are `low` and `high` (standardised), by `reach` (exp((end - m) / 2) - 1); an unseen value
    lies at the share (between - m) / `tilt` of the way from low to high; 2 more, if it is off the axis' grid.
    """

    below: int
    above: int
    unseen: int
    low: float
    high: float
    end: float
    reach: float
    between: float
    tilt: float


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
    off_axis    what the log measure says of values that have no place on the axis
    """

    vocabulary: int
    field: int
    drawable: np.ndarray
    values: np.ndarray | None = None
    parent: int | None = None
    allowed: np.ndarray | None = None
    off_axis: OffAxis | None = None


class Implied(Protocol):
    """A field some of whose records follow from others: see `genai_core.tables.relations`.

    position  its token that says so, if it is not 0; decided before the others of the field
    own       its other positions, whose tokens then follow
    operands  fields that must be known before they do
    """

    @property
    def field(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def own(self) -> tuple[int, ...]: ...
    @property
    def operands(self) -> tuple[int, ...]: ...

    def tokens(self, x: np.ndarray) -> np.ndarray:
        """(rows, own positions) of records x (rows, positions) whose operands are known; -1 where nothing follows."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Records of categorical variables: x has shape (batch, positions), integers.

    fields names what the positions describe; several positions may share one field, and then the later ones
    refine the earlier (a quantile bin, then the rank inside it). implied: fields that may follow from others.
    """

    positions: tuple[Position, ...]
    fields: tuple[str, ...]
    implied: tuple[Implied, ...] = ()
    field_of: np.ndarray = field(init=False)
    dtype: DTypeLike = np.int16

    def __post_init__(self) -> None:
        object.__setattr__(self, "field_of", np.array([p.field for p in self.positions], dtype=np.int64))

    @property
    def entries(self) -> int:
        return len(self.positions)

    @property
    def batches(self) -> Batches:
        return Batches(512, 2048, 512)

    @property
    def vocabularies(self) -> list[int]:
        return [p.vocabulary for p in self.positions]

    def positions_of(self, field_index: int) -> list[int]:
        """Indices of the positions that describe one field, in their order."""
        return np.flatnonzero(self.field_of == field_index).tolist()

    def values_of(self, field_index: int) -> list[int]:
        """The same without the position that says whether the field follows from others."""
        says = {one.position for one in self.implied}
        return [i for i in self.positions_of(field_index) if i not in says]


@dataclass(frozen=True, eq=False)
class Grid:
    """Pictures of whole-number levels, and what looks like one: a log-mel spectrogram, a feature map.

    A row of x is [label,] then the levels 0 .. levels - 1 in the order (channel, row, column). The label is there
    when `classes` is not 0, and lies in 0 .. classes - 1.
    """

    channels: int
    height: int
    width: int
    levels: int = 256
    classes: int = 0
    name: str = "image"
    label_name: str = "label"
    class_names: tuple[str, ...] = ()
    dtype: DTypeLike = np.uint8

    def __post_init__(self) -> None:
        if self.levels > 256 or self.classes > 256:
            object.__setattr__(self, "dtype", np.int32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def size(self) -> int:
        """Levels of a picture."""
        return self.channels * self.height * self.width

    @property
    def labelled(self) -> int:
        """1 when the first entry is a label, else 0: where the levels begin."""
        return int(self.classes > 0)

    @property
    def entries(self) -> int:
        return self.labelled + self.size

    @property
    def fields(self) -> tuple[str, ...]:
        return ((self.label_name,) if self.classes else ()) + (self.name,)

    @property
    def field_of(self) -> np.ndarray:
        return _label_then(self.labelled, self.size)

    @property
    def batches(self) -> Batches:
        together = int(np.clip(2**18 // self.size, 8, 256))
        return Batches(min(together, 128), together, together)


@dataclass(frozen=True, eq=False)
class Sequence:
    """Tokens of one vocabulary in a row: text, or the mu-law levels of a waveform.

    A row of x is [label,] then `length` tokens. When `end` is a token, a record ends at its first: all entries after
    it are `end` too and cost nothing; a record without it fills the length and goes on somewhere else. When `end` is
    None, every record has `length` tokens. `ordered`: neighbouring tokens are neighbouring values (waveforms).
    """

    vocabulary: int
    length: int
    end: int | None = None
    ordered: bool = False
    classes: int = 0
    name: str = "text"
    label_name: str = "label"
    class_names: tuple[str, ...] = ()
    dtype: DTypeLike = np.uint8

    def __post_init__(self) -> None:
        if self.vocabulary > 256 or self.classes > 256:
            object.__setattr__(self, "dtype", np.int32)

    @property
    def labelled(self) -> int:
        """1 when the first entry is a label, else 0: where the tokens begin."""
        return int(self.classes > 0)

    @property
    def entries(self) -> int:
        return self.labelled + self.length

    @property
    def fields(self) -> tuple[str, ...]:
        return ((self.label_name,) if self.classes else ()) + (self.name,)

    @property
    def field_of(self) -> np.ndarray:
        return _label_then(self.labelled, self.length)

    @property
    def batches(self) -> Batches:
        together = int(np.clip(2**16 // self.length, 8, 256))
        return Batches(min(together, 32), together, together)


def rounded(length: int) -> int:
    """Up to the next multiple of BUCKET tokens."""
    return max(-(-length // BUCKET), 1) * BUCKET


def alike(space: Space, x: np.ndarray) -> list[np.ndarray]:
    """Row numbers of x (rows, entries) in groups that are scored apart: sequences by their rounded length.

    Nothing needs to be computed beyond a group's length, and what a row's score is computed with depends on the row
    alone.
    """
    rows = np.arange(len(x))
    if not isinstance(space, Sequence) or space.end is None:
        return [rows]
    ended = x[:, space.labelled :] == space.end
    lengths = np.where(ended.any(1), ended.argmax(1) + 1, space.length)
    buckets = -(-lengths // BUCKET)
    return [rows[buckets == bucket] for bucket in np.unique(buckets)]


def _label_then(labelled: int, size: int) -> np.ndarray:
    return np.concatenate([np.zeros(labelled, np.int64), np.full(size, labelled, np.int64)])


NO_FAULTS: Mapping[int, str] = MappingProxyType({})


class Records(NamedTuple):
    """A batch of encoded records, in numpy or torch.

    tokens       shape (batch, entries), integers
    log_measure  shape (batch, fields), nats: what turns the probability of a field's entries into the density of
                 its value under the field's reference measure (see `genai_core.tables.columns`); else zeros
    faults       row -> why it could not be read (a truncated picture, bytes that are no text); its entries mean nothing
    """

    tokens: np.ndarray
    log_measure: np.ndarray
    faults: Mapping[int, str] = NO_FAULTS

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: np.ndarray | slice) -> Records:
        """The records at `index`; they must be readable ones."""
        return Records(self.tokens[index], self.log_measure[index])

    def readable(self) -> np.ndarray:
        """Boolean (batch,): the rows without fault."""
        fine = np.ones(len(self.tokens), bool)
        fine[list(self.faults)] = False
        return fine
