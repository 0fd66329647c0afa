"""What a codec is: Arrow records -> tensors of a space -> Arrow records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa

from genai_core.spaces import Records, Tokens


class Codec(Protocol):
    """Fitted in one pass over the data; afterwards immutable and without randomness of its own."""

    kind: str
    schema: pa.Schema
    rows: int  # of the training data

    @property
    def space(self) -> Tokens:
        """The space of the encoded records."""
        ...

    @classmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: Any) -> Self:
        """Fit in one streaming pass; memory does not grow with the number of rows."""
        ...

    def encode(self, table: pa.Table) -> Records:
        """Records of the space, row by row. Missing, unseen and out-of-range values get tokens of their own."""
        ...

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A table of `schema`, exactly; `random` places values inside the cells that tokens stand for."""
        ...

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise SchemaMismatch, naming every fault, unless tables of `schema` can be encoded."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything fitted: a JSON-able dictionary and named arrays."""
        ...

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """The inverse of `state`."""
        ...


def encode_all(codec: Codec, batches: Iterable[pa.RecordBatch | pa.Table]) -> Iterator[Records]:
    """Encode a stream of batches one by one."""
    for batch in batches:
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        if table.num_rows:
            yield codec.encode(table)
