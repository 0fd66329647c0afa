"""Whether synthetic rows help, of an augment job: which real rows to test on, and what the comparison says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.artifact import Header
from genai_core.errors import InvalidData, InvalidInput, JobFailed
from genai_core.splits import held_out
from pipelines.context import Context
from pipelines.outputs.sink import Sink
from pipelines.pages import uplift_page
from pipelines.sources import Source, open_source
from pipelines.stores import storage

if TYPE_CHECKING:
    from pipelines.augment import AugmentJob

ROWS_PER_FILE = 2**40  # rows are numbered as training numbers them: see `pipelines.training.encoding`
MOST_CLASSES = 50
Chosen = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Holdout:
    """The real rows to test on.

    source  what they are read from
    chosen  of row numbers, which are test rows; None: all of `source`, which is another one than is augmented
    said    whose rows they are, and whether the model has learnt from them
    """

    source: Source
    chosen: Chosen | None
    said: str


def find_holdout(job: AugmentJob, source: Source, header: Header) -> Holdout:
    """The holdout of the job; else the rows that the model's training held out of this source; else a share of it.

    Raises InvalidInput when the model has learnt from the holdout.
    """
    learnt = list(_learnt(header))
    if job.holdout is not None:
        held = open_source(job.holdout)
        held.require_rows()
        _refuse_same(job, source, held, [digest for digest, _ in learnt])
        return Holdout(
            held,
            None,
            f"{storage.mask(job.holdout.path)}, which is none of the data sets that the model has learnt from "
            "(rows that are in both are not looked for)",
        )
    if len(learnt) == 1 and learnt[0][0] == source.digest and learnt[0][1] is not None:
        fit = learnt[0][1]
        return Holdout(
            source,
            _share(fit["validation_fraction"], fit["seed"]),
            "those of the source that the model's own training held out: it chose when to stop by them, and learnt "
            "from none",
        )
    return Holdout(
        source,
        _share(job.holdout_share, job.seed),
        f"a share of {job.holdout_share:g} of the source; WHETHER THE MODEL HAS LEARNT FROM THEM IS NOT KNOWN, since "
        "it was trained on another data set: give a holdout that it has not seen",
    )


def _learnt(header: Header) -> Iterator[tuple[str | None, Mapping[str, Any] | None]]:
    """Digest and settings of the fit, of the model and those that it goes on from."""
    known: Mapping[str, Any] | None = header.provenance
    while isinstance(known, dict):
        yield (known.get("data") or {}).get("digest"), (known.get("job") or {}).get("fit")
        known = known.get("parent")


def _refuse_same(job: AugmentJob, source: Source, held: Source, learnt: Sequence[str | None]) -> None:
    if held.digest in learnt:
        raise InvalidInput(
            f"holdout: the model was trained on {storage.mask(held.settings.path)}; give rows that it has not seen, or "
            "leave holdout out: then the rows that its training held out are taken"
        )
    if held.digest == source.digest:
        raise InvalidInput("holdout is the source itself; give other rows, or leave it out")
    missing = [name for name in source.schema.names if name not in held.schema.names]
    if missing:
        raise InvalidInput(f"holdout has no column {missing[0]!r}, which the source has; both need the same")


def _share(fraction: float, seed: int) -> Chosen:
    def chosen(numbers: np.ndarray) -> np.ndarray:
        return held_out(numbers, fraction, seed)

    return chosen


@dataclass(frozen=True)
class Counts:
    """Rows of each class: all real ones, those to learn from, those to test on."""

    all: dict[str, int]
    train: Mapping[str, int]
    test: Mapping[str, int]
    checked: bool

    @property
    def said(self) -> str:
        """In words, the rarest first."""
        total = max(sum(self.all.values()), 1)
        return ", ".join(f"{name} {count / total:.2%}" for name, count in self.all.items())

    def refuse_few(self, wanted: Mapping[str, int], holdout: Holdout) -> None:
        """InvalidData where the check could not tell anything."""
        from genai_core.evaluation.utility import LEAST_ROWS

        for name in wanted if self.checked else ():
            for rows, what in ((self.train.get(name, 0), "learn from"), (self.test.get(name, 0), "test on")):
                if rows < LEAST_ROWS:
                    raise InvalidData(
                        f"class {name!r} has {rows} row(s) to {what} (test rows: {holdout.said}); the check needs "
                        f"{LEAST_ROWS}. Give a holdout or a larger holdout_share, or set on_no_gain: skip"
                    )


def count_classes(job: AugmentJob, source: Source, holdout: Holdout) -> Counts:
    """One pass over the target alone. InvalidData: it has too many values to be a class, or only one."""
    train, test = Counter[str](), Counter[str]()
    for labels, numbers in _read(source, [job.target]):
        kept = holdout.chosen(numbers) if holdout.chosen else np.zeros(len(numbers), bool)
        for rows, mask in ((train, ~kept), (test, kept)):
            rows.update(_labels(labels.filter(pa.array(mask)), job.target))
        if len(train) > MOST_CLASSES:
            raise InvalidData(
                f"target {job.target!r} has more than {MOST_CLASSES} values; a job augment balances classes"
            )
    every = train + test
    if len(every) < 2:
        raise InvalidData(
            f"target {job.target!r} has {len(every)} value(s) in the source; classes are two or more"
        )
    if holdout.chosen is None:
        for labels, _ in _read(holdout.source, [job.target]):
            test.update(_labels(labels, job.target))
    ranked = sorted(every.items(), key=lambda item: (item[1], item[0]))
    return Counts(dict(ranked), train, test, job.on_no_gain != "skip")


def _labels(table: pa.Table, target: str) -> list[str]:
    from genai_core.tables.columns import keys_of

    return keys_of(table[target].combine_chunks()).drop_null().to_pylist()


def _read(source: Source, columns: Sequence[str]) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Rows that pass the filter with their numbers, batch by batch."""
    numbers = {fragment.path: i for i, fragment in enumerate(source.fragments())}
    for piece in source.pieces(2**16):
        for batch, rows in source.reader.stream(piece, list(columns)):
            yield pa.Table.from_batches([batch]), numbers[piece.path] * ROWS_PER_FILE + rows


def check_uplift(
    job: AugmentJob,
    source: Source,
    holdout: Holdout,
    columns: Sequence[str],
    classes: Sequence[str],
    sink: Sink,
    context: Context,
) -> dict[str, Any]:
    """What the manifest says of it, after a page was written. JobFailed: no gain, and the job refuses that."""
    from genai_core.evaluation.utility import sentence, uplift

    thinned = min(1.0, job.check_rows / max(source.rows, 1))
    train = _sampled(source, columns, job, thinned, holdout.chosen, test=False)
    of_test = min(1.0, job.check_rows / max(holdout.source.rows, 1))
    test = _sampled(holdout.source, columns, job, of_test, holdout.chosen, test=True)
    made = _synthetic(sink, columns, job, thinned)
    found = uplift(train, made, test, job.target, classes, seeds=range(job.check_seeds))
    said, facts = sentence(found), found.facts()
    context.log(f"{job.title}: {said}")
    summary = {
        "uplift": facts | {"test_rows_are": holdout.said, "share_of_rows": round(thinned, 6)},
        "average_precision_real": facts["average_precision_real"],
        "average_precision_augmented": facts["average_precision_augmented"],
        "average_precision_gain": facts["gain"]["mean"],
        "report": uplift_page.FILE,
    } | ({} if found.helps else {"warning": said})
    page = uplift_page.page(job.title, said, found, holdout.said)
    with storage.explained(sink.uri):
        storage.put_bytes(sink.filesystem, sink.path(uplift_page.FILE), page)
    if job.on_no_gain == "refuse" and not found.helps:
        raise JobFailed(
            f"{said}. Not published, since on_no_gain is refuse: the output has no manifest, its page is "
            f"{uplift_page.FILE}. Ask for fewer rows, train longer, or set on_no_gain: warn (into another sink.path)"
        )
    return summary


def _sampled(
    source: Source, columns: Sequence[str], job: AugmentJob, share: float, chosen: Chosen | None, test: bool
) -> pa.Table:
    """Rows with a label, at most about `job.check_rows` of them: chosen by their numbers alone."""
    pick = _share(share, job.seed + 1)
    parts = []
    for table, numbers in _read(source, columns):
        keep = pick(numbers) if share < 1 else np.ones(len(numbers), bool)
        if chosen is not None:
            keep &= chosen(numbers) == test
        keep &= table[job.target].is_valid().to_numpy()
        parts.append(table.filter(pa.array(keep)))
    return pa.concat_tables(parts)


def _synthetic(sink: Sink, columns: Sequence[str], job: AugmentJob, share: float) -> pa.Table:
    """The same share of the synthetic rows that were written."""
    pick, parts = _share(share, job.seed + 1), []
    for record in sink.records():
        if not record.get("synthetic"):
            continue
        with sink.filesystem.open_input_file(sink.path(record["file"])) as stream:
            table = pq.read_table(stream, columns=list(columns))
        if share < 1:
            numbers = (2**20 + record["id"]) * ROWS_PER_FILE + np.arange(table.num_rows)
            table = table.filter(pa.array(pick(numbers)))
        parts.append(table)
    return pa.concat_tables(parts)
