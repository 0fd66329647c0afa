"""What a scoring run found, put together after the last shard: partitions, the list of anomalies, pages for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core import artifact
from genai_core.covariate_shift import LEAST_EFFECTIVE
from pipelines.lakes.partitions import Partition, drift_facts, histogram, partitions, totals_of, with_flagged
from pipelines.lakes.weighting import Weighted, weigh
from pipelines.outputs.sink import Sink
from pipelines.pages import report
from pipelines.pages.report import Findings
from pipelines.scoring.anomalies import FILE as ANOMALIES
from pipelines.scoring.anomalies import Question, list_anomalies
from pipelines.scoring.duplicates import list_duplicates
from pipelines.stores import storage

PARTITIONS = "_partitions.json"
History = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class LakeFacts:
    """What the report of a lake job says beside that of its run; see `report.Findings`."""

    history: History = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    drifted: Mapping[str, str] = field(default_factory=dict)


def find(
    sink: Sink,
    provenance: Mapping[str, Any],
    asked: Question,
    model: Path,
    lake: LakeFacts | None,
) -> dict[str, Any]:
    """Write `_anomalies.parquet`, `_partitions.json` and `_report.html`; what the manifest says of all that.

    model  directory of the artifact
    lake   of a lake job, which withholds the rows of partitions that moved as a whole; None for other jobs
    """
    totals = totals_of(sink)
    profile, calibrations = artifact.load_calibration(model)
    weighted = {}
    if asked.calibration == "weighted":
        weighted = weigh(sink, totals, profile, calibrations[asked.score])
    judged = partitions(totals, profile, withhold=lake is not None, weighted=weighted)
    withheld = frozenset(name for name, one in judged.items() if one.withheld)
    asked = replace(asked, withheld=withheld, weighted=weighted)
    summary, flagged = list_anomalies(sink, provenance, asked)
    if asked.unique:
        summary |= list_duplicates(sink, asked.unique, provenance)
    parts = with_flagged(judged, flagged)
    summary |= drift_facts(parts) | {"report": report.FILE}
    with storage.explained(sink.uri):
        facts = {part.name: part.facts() for part in parts}
        storage.put_bytes(sink.filesystem, sink.path(PARTITIONS), json.dumps(facts, sort_keys=True).encode())
        page = report.page(_findings(sink, provenance, asked, summary, parts, histogram(totals), lake))
        storage.put_bytes(sink.filesystem, sink.path(report.FILE), page)
    return summary


def partitions_of(sink: Sink) -> list[dict[str, Any]]:
    """What an earlier run said of its partitions; empty for one without rows."""
    try:
        found = json.loads(storage.read_bytes(sink.filesystem, sink.path(PARTITIONS)))
    except (FileNotFoundError, ValueError):
        return []
    return [{"name": name, **facts} for name, facts in found.items()]


def _findings(
    sink: Sink,
    provenance: Mapping[str, Any],
    asked: Question,
    summary: Mapping[str, Any],
    parts: Sequence[Partition],
    bars: Mapping[str, Any] | None,
    lake: LakeFacts | None,
) -> Findings:
    listed, cut = _listed(sink, asked.score)
    lake = lake or LakeFacts()
    return Findings(
        # not the job's name, nor the output's: equal jobs leave equal bytes, whatever they are called
        title=f"Anomalies in {PurePosixPath(str(provenance['source']['path'])).name}",
        score=asked.score,
        unit=bars["unit"] if bars else "",
        facts=_facts(provenance, asked, summary, parts),
        partitions=parts,
        histogram=bars,
        cut=cut if asked.fdr is not None else None,
        listed=listed,
        history={**lake.history, "this run": [part.facts() for part in parts]},
        skipped=lake.skipped,
        drifted=lake.drifted,
    )


def _facts(
    provenance: Mapping[str, Any], asked: Question, summary: Mapping[str, Any], parts: Sequence[Partition]
) -> dict[str, str]:
    model, source = provenance["model"], provenance.get("source") or {}
    where = f" where {source['filter']}" if source.get("filter") else ""
    as_of = "".join(f", {name} {source[name]}" for name in ("version", "snapshot") if name in source)
    rows = sum(part.rows for part in parts)
    facts = {
        "Rows": f"{rows:,} of {source.get('path')}{where}{as_of}",
        "Flagged": f"{summary['flagged']:,}{_meaning(asked, summary)}",
        "Model": f"{model['uri']} ({model['kind']}, {model['digest'][:19]})",
        "Job": str(provenance["job_id"]),
    }
    if summary.get("withheld_rows"):
        where = f"{summary['withheld_partitions']:,} partition(s) that moved as a whole"
        facts["Withheld"] = f"{summary['withheld_rows']:,} rows in {where}"
    own = [part.weighted for part in parts if part.weighted is not None]
    if own:
        facts["Weighted"] = _weighted(own)
    return facts


def _weighted(own: Sequence[Weighted]) -> str:
    used = [one.effective for one in own if one.p_values is not None]
    few = len(own) - len(used)
    said = f"{len(used):,} partition(s) whose columns moved have p-values of their own"
    said += f", of at least {min(used):,.0f} effective held-out rows" if used else ""
    said += f"; {few:,} would have fewer than {LEAST_EFFECTIVE:.0f} and keep(s) the plain ones" if few else ""
    return said


def _meaning(asked: Question, summary: Mapping[str, Any]) -> str:
    if asked.fdr is None:
        return ", the highest scores; nothing is claimed about false alarms"
    smallest = f"smallest possible p {summary['smallest_p']:.2g}"
    return f", of which at most {asked.fdr:.0%} are expected to be false alarms; {smallest}"


def _listed(sink: Sink, score: str) -> tuple[list[dict[str, Any]], float | None]:
    """The first rows of the list, and the score of the last."""
    with sink.filesystem.open_input_file(sink.path(ANOMALIES)) as stream, pq.ParquetFile(stream) as parquet:
        if not parquet.metadata.num_rows:
            return [], None
        first = next(parquet.iter_batches(report.ROWS, row_groups=[0]))
        last = parquet.read_row_group(parquet.num_row_groups - 1, [score]).column(0)
    shown = [field.name for field in first.schema if not pa.types.is_large_binary(field.type)]
    return first.select(shown).to_pylist(), float(last[-1].as_py())
