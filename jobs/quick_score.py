"""`genai score --train A --test B --out C`: fit on one table and score another in this process, nothing kept."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genai_core.catalog import MODELS, scores_of
from genai_core.errors import InvalidData, InvalidInput, SchemaMismatch, nearest
from jobs.outcome import Outcome, complain
from pipelines.progress import clock
from pipelines.stores import storage

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel

INPUTS = {".npz": "npz", ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv"}
OUTPUTS = (".npy", ".parquet")


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    train: str
    test: str
    out: str
    reference: str = "clean"
    model: str = "autoregressive"
    score: str | None = None
    seed: int = 0
    max_seconds: float | None = None
    exclude: tuple[str, ...] = ()


def fit_and_score(request: Request, quiet: bool) -> Outcome:
    """Refuse what cannot work, read, fit, score, write."""
    _refuse(request)
    train, test = _same_columns(_read(request.train), _read(request.test), request)
    tell = _silence if quiet else complain
    fitted = _fit(train, request, tell)
    scores = _scores(fitted, test, request)
    filesystem, path = storage.resolve(request.out)
    with storage.explained(request.out):
        storage.put_bytes(filesystem, path, _bytes(scores, request.out))
    tell(f"{test.num_rows:,} rows scored -> {request.out}")
    return Outcome(
        {
            "output": request.out,
            "rows": test.num_rows,
            "train_rows": train.num_rows,
            "score": scores.column_names[0],
        }
    )


def _refuse(request: Request) -> None:
    """What can be known before anything is read."""
    if request.model not in MODELS:
        hint = nearest(request.model, MODELS) or ";"
        raise InvalidInput(
            f"--model {request.model!r} is no model family{hint} accepted are {', '.join(MODELS)}"
        )
    able = scores_of(request.model, "tabular")
    if request.score not in (None, *able):
        hint = nearest(str(request.score), able) or ";"
        raise InvalidInput(
            f"--score {request.score!r} is none that {request.model} can give{hint} accepted are {', '.join(able)}"
        )
    for option, path in (("--train", request.train), ("--test", request.test)):
        _form(option, path, INPUTS)
    _form("--out", request.out, OUTPUTS)
    filesystem, path = storage.resolve(request.out)
    parent = str(PurePath(path).parent)
    if filesystem.type_name == "local" and not storage.exists(filesystem, parent):
        raise InvalidInput(f"--out {request.out!r}: the folder {parent!r} does not exist; make it first")


def _form(option: str, path: str, accepted: Sequence[str] | dict[str, str]) -> str:
    ending = PurePath(path).suffix.lower()
    if ending not in accepted:
        raise InvalidInput(
            f"{option} {path!r} ends in {ending or 'nothing'!r}; accepted are {', '.join(accepted)}"
        )
    return ending


def _read(path: str) -> pa.Table:
    kind = INPUTS[_form("", path, INPUTS)]
    if kind == "npz":
        return _read_npz(path)
    from pipelines.sources import CsvSource, ParquetSource, open_source

    tab = {"delimiter": "\t"} if path.lower().endswith(".tsv") else {}
    source = open_source(
        CsvSource(kind="csv", path=path, **tab) if kind == "csv" else ParquetSource(kind="parquet", path=path)
    )
    return pa.Table.from_batches(source.batches(), source.schema)


def _read_npz(path: str) -> pa.Table:
    """Array X as columns x0, x1, ...; never unpickles."""
    data = _bytes_at(path)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            names = list(arrays)
            matrix = arrays["X"]
    except KeyError:
        raise InvalidData(f"{path}: holds no array X; it has {', '.join(names) or 'nothing'}") from None
    except (ValueError, zipfile.BadZipFile, EOFError, OSError, AttributeError) as error:
        raise InvalidData(f"{path}: not readable as an .npz file of plain numbers: {error}") from None
    return _as_table(matrix, path)


def _bytes_at(path: str) -> bytes:
    filesystem, place = storage.resolve(path)
    try:
        with storage.explained(path):
            return storage.read_bytes(filesystem, place)
    except FileNotFoundError:
        raise InvalidData(f"{storage.mask(path)}: there is no such file") from None
    except OSError as error:
        raise InvalidData(f"{storage.mask(path)}: cannot be read: {error}") from None


def _as_table(matrix: np.ndarray, path: str) -> pa.Table:
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or not matrix.shape[1]:
        found = f"{matrix.dtype} {matrix.shape}"
        raise InvalidData(f"{path}: array X is {found}; expected numbers in two dimensions (rows, columns)")
    if not len(matrix):
        raise InvalidData(f"{path}: array X holds no rows")
    width = len(str(matrix.shape[1] - 1))
    columns = matrix.astype(np.float64, copy=False).T
    return pa.table({f"x{i:0{width}}": np.ascontiguousarray(column) for i, column in enumerate(columns)})


def _same_columns(train: pa.Table, test: pa.Table, request: Request) -> tuple[pa.Table, pa.Table]:
    """Both with the training table's columns, in types that hold both (a CSV's are guessed file by file)."""
    unknown = [name for name in request.exclude if name not in train.column_names]
    if unknown:
        hint = nearest(unknown[0], train.column_names)
        raise InvalidInput(f"--exclude {unknown[0]!r} is no column of {request.train}{hint}")
    train = train.drop_columns(list(request.exclude))
    if not train.num_columns:
        raise InvalidInput("--exclude leaves no column to learn from")
    missing = [name for name in train.column_names if name not in test.column_names]
    if missing:
        raise SchemaMismatch(
            f"{request.test} lacks {len(missing)} column(s) of {request.train}: {', '.join(missing[:10])}"
        )
    test = test.select(train.column_names)
    try:
        both = pa.unify_schemas(
            [train.schema.remove_metadata(), test.schema.remove_metadata()], promote_options="permissive"
        )
        return train.cast(both), test.cast(both)
    except pa.ArrowException as error:
        raise SchemaMismatch(
            f"{request.train} and {request.test} disagree about a column's type: {error}"
        ) from None


def _fit(train: pa.Table, request: Request, tell: Callable[[str], None]) -> FittedModel:
    """One fit; of a contaminated reference on its trusted core: strong models learn anomalies by heart otherwise."""
    if request.reference == "contaminated":
        from genai_core.tables.trusted_core import trusted_core

        core = trusted_core(train, request.seed)
        tell(f"trusted core: {len(core):,} of {train.num_rows:,} rows")
        train = train.take(core)
    return _fit_once(train, request, tell)


def _fit_once(train: pa.Table, request: Request, tell: Callable[[str], None]) -> FittedModel:
    from genai_core.train import fit, settings_to_score

    started = time.monotonic()
    how = settings_to_score(request.model, train, _score(request), request.seed, request.max_seconds)
    fitted = fit(train, request.model, **how)
    tell(f"fitted on {train.num_rows:,} rows in {clock(time.monotonic() - started)}")
    size = fitted.calibration_size(_score(request))
    tell(f"p-values compare with {size:,} held-out rows: the smallest is 1 / {size + 1:,}")
    return fitted


def _score(request: Request) -> str:
    return request.score or scores_of(request.model, "tabular")[0]


def _scores(fitted: FittedModel, test: pa.Table, request: Request) -> pa.Table:
    """The score and its p-value."""
    name = _score(request)
    totals = fitted.score(test, [name]).totals[name]
    columns = {name: totals, "p_value": fitted.p_values(name, totals)}
    return pa.table({title: pa.array(values, pa.float64()) for title, values in columns.items()})


def _bytes(scores: pa.Table, out: str) -> bytes:
    buffer = io.BytesIO()
    if _form("--out", out, OUTPUTS) == ".npy":
        np.save(buffer, scores.column(0).to_numpy(), allow_pickle=False)
    else:
        import pyarrow.parquet as pq

        pq.write_table(scores, buffer)
    return buffer.getvalue()


def _silence(text: str) -> None:
    """For `tell` when nothing shall be said."""
