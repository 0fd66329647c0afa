"""From a table in memory to a fitted model. `pipelines.train` does the same for lakes, with the same pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import TypeAdapter

from genai_core import catalog
from genai_core.codec import Codec
from genai_core.errors import InvalidInput, nearest
from genai_core.fitted import FittedModel
from genai_core.growth import carry_over, extended, parent_facts
from genai_core.hyperparameters import FitSettings, ModalitySettings
from genai_core.loop import Fit, Progress
from genai_core.model import Model
from genai_core.privacy.checks import check_privacy, sized
from genai_core.spaces import Records
from genai_core.splits import held_out, seed_of, spread
from genai_core.tables.columns import is_categorical
from genai_core.tables.vectors import CLASSES
from genai_core.threads import threads as use_threads

if TYPE_CHECKING:
    from genai_core.privacy.gradients import PrivateFit

ENOUGH_EPOCHS, ENOUGH_STEPS = 6, 600
HELD_OUT, LEAST_HELD_OUT, MOST_HELD_OUT = 1000, 0.1, 0.25  # rows for p-values, and as shares of a table
ONLY_SCORED = {
    "kind": "tabular",
    "rare_below": 0,
}  # nothing is drawn, so rare values keep tokens of their own
# times the family's rate: of Adult at epsilon 3 a C2ST of .74 in place of .80; four times: .74, and less utility
PRIVATE_RATE = 2.0
SCORE_ROWS, SCORE_ENTRIES = 20_000, 20_000_000


def fit(
    data: Any,
    kind: str = "autoregressive",
    *,
    exclude: Sequence[str] = (),
    modality: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    threads: int = 1,
    on_step: Callable[[int, float], None] | None = None,
    score_effort: float | None = None,
    start: FittedModel | None = None,
    **settings: Any,
) -> FittedModel:
    """Learn a table: pyarrow Table, pandas DataFrame, or numpy matrix (rows, columns).

    kind      family: autoregressive, vae, gan, dcgan or cyclegan
    exclude   columns of a table that are not learnt
    modality  how records are read, e.g. {"kind": "image", "label": "digit"}; default: as a table
    model     settings of the family, e.g. {"hidden": 128}
    threads   of torch; the result depends on it in the last digits
    score_effort  share of their training that scores with networks of their own get; default: by how long the model's
              own took
    start     a fitted model of tables to go on from: its kind and settings are kept, new values of categories learnt
    settings  of the training loop, e.g. seed=7, max_seconds=60
    """
    if kind not in catalog.MODELS:
        raise InvalidInput(
            f"found kind {kind!r}{nearest(kind, catalog.MODELS)}; accepted: {', '.join(catalog.MODELS)}"
        )
    table = as_table(data)
    how = FitSettings(**settings)
    private: PrivateFit | None = None
    if start is not None:
        if model or modality or exclude:
            raise InvalidInput(
                "start: the settings are those of that model; leave model, modality and exclude out"
            )
        kind = start.kind
        codec: Codec = extended(start.codec, table.to_batches(max_chunksize=65536), table.schema)
    else:
        reading = modality_settings(modality or {"kind": "tabular", "exclude": list(exclude)}, kind, how.seed)
        codec, private = read(table.to_batches(max_chunksize=65536), table.schema, reading, kind, how)
    records = codec.encode(table)
    records = records.rows(records.readable())
    out = split(np.arange(len(records)), how)
    network = new_model(kind, codec, model or {}, how.seed, start, private is not None)
    source = {"rows": table.num_rows, "digest": "sha256:" + table_digest(table)}
    with use_threads(threads):
        validation = records.tokens[out] if private is None else private.initial
        progress = Fit(network, records.tokens[~out], validation, how, on_step=on_step, private=private).run()
        facts: dict[str, Any] = {"data": source, "fit": how.model_dump()}
        facts |= {} if start is None else {"parent": parent_facts(start.provenance, start.digest)}
        return finish(
            kind,
            codec,
            network,
            records.rows(out),
            records.tokens[~out],
            progress,
            facts,
            how.seed,
            score_effort,
            private,
        )


def read(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, reading: Any, kind: str, how: FitSettings
) -> tuple[Codec, PrivateFit | None]:
    """The codec of a stream; of a fit with `privacy` also what is spent of it. Raises what codecs raise."""
    if how.privacy is None:
        return catalog.codec_class(reading.kind).fit(batches, schema, reading), None
    from genai_core.privacy.codec import private_codec

    check_privacy(kind, reading, how)
    found: Any = private_codec(batches, schema, reading, how.privacy)
    return found


def settings_to_score(
    kind: str,
    table: pa.Table,
    score: str | None,
    seed: int,
    max_seconds: float | None,
    held_out: int = HELD_OUT,
) -> dict[str, Any]:
    """Settings of `fit` for a table that is learnt for one score of a family alone.

    score     None: the default of tables, which is one of OF_ANY_TABLE for every family
    held_out  rows that p-values compare with, as far as they lie between a tenth and a quarter of all
    """
    share = float(np.clip(held_out / max(table.num_rows, 1), LEAST_HELD_OUT, MOST_HELD_OUT))
    found: dict[str, Any] = {"seed": seed, "max_seconds": max_seconds, "validation_fraction": share}
    found["modality"] = ONLY_SCORED
    exact = catalog.FAMILIES[kind].bound == "exact"
    if score in (None, "ensemble") and exact and _many_valued(table):
        found["score_effort"] = 1.0
    elif (
        score is None or score in catalog.OF_ANY_TABLE
    ):  # the model itself is not asked, so it need not learn
        found |= {"max_epochs": 1, "evaluations": 1, "score_effort": 1.0}
    return found


def _many_valued(table: pa.Table) -> bool:
    """Whether the ensemble will ask the likelihood too: `genai_core.tables.vectors.many_valued` before the fit."""
    categories = [column for column in table.columns if is_categorical(column.type)]
    return any(pc.count_distinct(column).as_py() > CLASSES for column in categories)


def modality_settings(given: dict[str, Any] | Any, kind: str, seed: int = 0) -> Any:
    """Settings of a modality as a family's fit needs them. Raises MissingCapability: the family does not learn it."""
    if isinstance(given, dict):
        given = TypeAdapter(ModalitySettings).validate_python(given)
    catalog.scores_of(kind, given.kind)
    return given.for_job(kind, seed)


def split(numbers: np.ndarray, settings: FitSettings, certain: bool = True) -> np.ndarray:
    """Boolean (rows,): the held-out rows among those numbered `numbers`.

    certain: at least one is held out and at least one is not, even of two rows.
    """
    if settings.privacy is not None:  # nothing is looked at but by the training itself
        return np.zeros(len(numbers), bool)
    out = held_out(numbers, settings.validation_fraction, settings.seed)
    if certain and len(out) > 1:
        out[0] |= not out.any()
        out[-1] &= not out.all()
    return out


def new_model(
    kind: str,
    codec: Codec,
    settings: dict[str, Any] | Any,
    seed: int,
    start: FittedModel | None = None,
    private: bool = False,
) -> Model:
    """A network with its first weights drawn from the seed; with the settings and the weights of `start`, if given."""
    torch.manual_seed(seed_of(seed, "weights"))
    settings = sized(kind, settings) if private else settings
    if start is None:
        network = catalog.build_model(kind, codec.space, settings)
        network.learning_rate *= PRIVATE_RATE if private else 1.0
        return network
    network = catalog.build_model(kind, codec.space, start.model.settings)
    carry_over(network, start.model)
    return network


def finish(
    kind: str,
    codec: Codec,
    network: Model,
    held_out: Records,
    train: np.ndarray,
    progress: Progress,
    provenance: dict[str, Any],
    seed: int,
    score_effort: float | None = None,
    private: PrivateFit | None = None,
) -> FittedModel:
    """With fitted scores, calibrated, and with its history; a private one without what would look at the data again.

    network  holds the best weights
    held_out for calibration
    train    training records (rows, entries), or a sample of them: what scores with a memory look at
    """
    fitted = FittedModel(kind, codec.kind, codec, network.eval(), provenance=provenance)
    if private is not None:
        steps = {"best_step": progress.best_step, "steps": progress.step}
        fitted.provenance = provenance | {"training": steps, "privacy": private.facts(progress.step)}
        return fitted
    sample = train[spread(len(train), score_rows(train))]
    fitted.fit_scores(sample, held_out, seed, score_effort or effort(progress))
    facts = {"validation_loss": progress.best, "best_step": progress.best_step, "steps": progress.step}
    fitted.provenance = provenance | {"training": facts}
    return fitted


def effort(progress: Progress) -> float:
    """Share of their training that scores get: a model that was hardly trained, to try something, wants little."""
    epochs = progress.history[-1]["epoch"] if progress.history else 0.0
    return min(1.0, max((epochs / ENOUGH_EPOCHS) ** 2, progress.step / ENOUGH_STEPS, 0.05))


def score_rows(train: np.ndarray) -> int:
    """How many training records scores with a memory look at."""
    return min(SCORE_ROWS, max(SCORE_ENTRIES // max(train.shape[1], 1), 64))


def as_table(data: Any) -> pa.Table:
    """An Arrow table of what users hold: Table, DataFrame or matrix."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, np.ndarray):
        if data.ndim != 2:
            raise InvalidInput(f"found an array of shape {data.shape}; accepted is (rows, columns)")
        return pa.table({f"x{i}": np.ascontiguousarray(column) for i, column in enumerate(data.T)})
    if type(data).__module__.split(".")[0] == "pandas":
        table = pa.Table.from_pandas(data, preserve_index=False)
        return table.replace_schema_metadata(None)
    raise InvalidInput(
        f"found {type(data).__name__}; accepted: pyarrow.Table, pandas.DataFrame, numpy matrix"
    )


def table_digest(table: pa.Table) -> str:
    """sha256 of a table's schema and values, in IPC form."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()
