"""Why a row is anomalous: the columns that contribute most to its score, with the values that stand there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

REASONS_PER_ROW = 5
TEXT_LENGTH = 200  # of a value, as shown
WHY = pa.list_(
    pa.struct(
        [
            ("column", pa.string()),
            ("nats", pa.float64()),
            ("value", pa.string()),
            ("expected", pa.string()),  # given all other columns; null where the model cannot tell
        ]
    )
)
Expect = Callable[[pa.Table, Sequence[str]], Mapping[str, pa.Array]]


def explain(
    table: pa.Table,
    shares: np.ndarray | None,
    columns: Sequence[str],
    chosen: np.ndarray,
    expect: Expect = lambda rows, names: {},
) -> pa.ListArray:
    """For the chosen rows (int64 numbers, ascending) the largest shares, falling; null for the others.

    shares: float (rows, columns), or None for a score that has no columns. expect: see `FittedModel.expected`.
    """
    if shares is None or not len(chosen):
        return pa.nulls(table.num_rows, WHY)
    picked = shares[chosen]
    best = np.argsort(-picked, axis=1, kind="stable")[:, :REASONS_PER_ROW]
    rows = table.take(pa.array(chosen))
    texts = {name: as_text(rows.column(name)) for name in columns}
    usual = _expected(rows, expect, [columns[i] for i in np.unique(best)])
    cells = best * len(chosen) + np.arange(len(chosen))[:, None]  # texts stand column after column
    nothing = pa.nulls(len(chosen), pa.string())
    reasons = pa.StructArray.from_arrays(
        [
            pa.array(list(columns), pa.string()).take(pa.array(best.ravel())),
            pa.array(np.take_along_axis(picked, best, 1).ravel().astype(np.float64)),
            pa.concat_arrays([texts[name] for name in columns]).take(pa.array(cells.ravel())),
            pa.concat_arrays([usual.get(name, nothing) for name in columns]).take(pa.array(cells.ravel())),
        ],
        fields=list(WHY.value_type),
    )
    return pa.ListArray.from_arrays(_offsets(table.num_rows, chosen, best.shape[1]), reasons)


def _expected(rows: pa.Table, expect: Expect, names: Sequence[str]) -> dict[str, pa.Array]:
    return {name: as_text(values) for name, values in expect(rows, names).items()}


def reason_text(reason: Mapping[str, Any], unit: str = "nats") -> str:
    """Such as `tailnum N/A: 7.2 nats, expected N14228`."""
    value = "missing" if reason["value"] is None else reason["value"]
    text = f"{reason['column']} {value}: {reason['nats']:.1f} {unit}"
    usual = reason.get("expected")
    return text if usual is None or usual == reason["value"] else f"{text}, expected {usual}"


def _offsets(rows: int, chosen: np.ndarray, length: int) -> pa.Array:
    """Of lists of one length for the chosen rows; a null offset makes a null list."""
    is_chosen = np.zeros(rows + 1, bool)
    is_chosen[chosen] = True
    starts = np.concatenate([[0], np.cumsum(is_chosen[:-1]) * length]).astype(np.int32)
    missing = ~is_chosen
    missing[-1] = False
    return pa.array(starts, mask=missing)


def as_text(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Values as people read them, cut to a bearable length; missing stays missing."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_duration(array.type):  # Arrow's own text is a bare number, and not in every process
        array = pa.array(
            [None if v is None else str(v) for v in array.cast(pa.duration("us"), safe=False).to_pylist()]
        )
    try:
        text = array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # bytes that are no text
        text = pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())
    return pc.utf8_slice_codeunits(text, 0, TEXT_LENGTH)
