"""The gate before publishing: a job's records are made, judged, and only then become its output.

    OUT/_held/              the job's directory until then, as any output's: data, records of shards; readers of Parquet
                            pass over folders that begin with `_`
    OUT/_held/_DECISION.json    what was found and decided; written before the first file moves
    OUT/_held/evaluation.json, report.html
    OUT/_evaluation.json, _evaluation.html    the same, once published

To publish is to move every part and its record to OUT, then to write the manifest, as ever. Interrupted anywhere, the
same command goes on from the decision that stands. What fails stays held, with the report; `genai publish` or
`gate: {override: reason}` let it pass, and the manifest, the lineage and the run say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from genai_core import catalog
from genai_core.errors import InvalidInput, JobFailed, MissingCapability, OutputExists
from genai_core.evaluation.measures import MEASURES
from pipelines import evaluate
from pipelines.comparison import LINEAGE, Comparison, check_columns, evaluation_of, facts_of, opened
from pipelines.context import Context
from pipelines.gate_settings import DEFAULTS, GateSettings, Limit
from pipelines.outputs.sink import DATA, Sink, written
from pipelines.plan import canonical_hash
from pipelines.provenance.watermarks import SYNTHETIC
from pipelines.sources import Source, open_source
from pipelines.sources.parquet import ParquetSource
from pipelines.stores import storage

HELD, DECISION = "_held", "_DECISION.json"
PAGES = {evaluate.FILE: "_evaluation.json", evaluate.REPORT: "_evaluation.html"}  # held -> published
OF_TABLES = ("column_shapes", "pair_trends", "lost_categories", "singling_out", "utility")
OF_LIKELIHOODS = ("likelihood_gap", "likelihood_membership_auc")


def held_sink(sink: Sink) -> Sink:
    """Where the records of a gated job lie until they are published."""
    return Sink(storage.join(sink.uri, HELD))


def check_gate(
    gate: GateSettings, schema: pa.Schema | None, kind: str | None, modality: str | None
) -> list[str]:
    """Facts about a gate that can work. Raises InvalidInput: its sources, columns, or measures that there will not be.

    schema, kind, modality  of the output and of the model, where they are known by now
    """
    sources = opened(gate, Context())
    if schema is not None:
        check_columns(gate, compared_columns(schema, modality or "tabular"), sources)
    for name in gate.limits:
        if name == "utility" and gate.target is None:
            raise InvalidInput("gate: utility needs `target`, the column to predict")
        if name in OF_TABLES and modality not in (None, "tabular"):
            raise InvalidInput(f"gate: {name} is a measure of tables; the model's modality is {modality}")
        if (
            name in OF_LIKELIHOODS
            and kind is not None
            and "log_prob" not in catalog.FAMILIES[kind].capabilities
        ):
            raise MissingCapability(
                f"gate: {name} needs a likelihood; a {kind} model is implicit and has none"
            )
    limits = ", ".join(_said(name, limit) for name, limit in gate.limits.items())
    return [f"gate: {limits or 'no limits but those of privacy'}; what fails is held, not published"]


def _said(name: str, limit: Limit) -> str:
    ends = [f"{limit.min:g} <= "] if limit.min is not None else [""]
    return ends[0] + name + (f" <= {limit.max:g}" if limit.max is not None else "")


def compared_columns(schema: pa.Schema, modality: str) -> list[str]:
    """Of an output: its own columns; of other modalities than tables the first, the payload."""
    names = [name for name in schema.names if name not in (LINEAGE, SYNTHETIC)]
    return names if modality == "tabular" else names[:1]


def refuse_held(sink: Sink) -> None:
    """OutputExists when a gate holds what lies here: leaving it out of the job is no way to publish."""
    if (
        (standing := decision_of(sink)) is not None
        and not standing["passed"]
        and standing["override"] is None
    ):
        raise OutputExists(
            f"{storage.mask(sink.uri)} holds records that did not pass the gate of this job "
            f"({'; '.join(standing['failed'])}). Bring `gate:` back, or publish them: "
            f"genai publish {storage.mask(sink.uri)} --reason ..."
        )


def decision_of(sink: Sink) -> dict[str, Any] | None:
    """What was decided about what is held for an output; None: nothing yet."""
    held = held_sink(sink)
    try:
        with storage.explained(held.uri):
            found = json.loads(storage.read_bytes(held.filesystem, held.path(DECISION)))
    except (FileNotFoundError, ValueError):
        return None
    fits = isinstance(found, dict) and {
        "passed",
        "override",
        "failed",
        "checks",
        "summary",
        "plan",
        "provenance",
    } <= {*found}
    return found if fits else None


def decide(
    gate: GateSettings,
    sink: Sink,
    kept: Mapping[str, Any],
    facts: Mapping[str, Any],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Judge what is held and write down what follows; the evaluation is made once for the same data and sources.

    kept   what publishing needs: plan, provenance, summary, track, sign
    facts  of the batch: schema, modality, model (its directory), title
    """
    held = held_sink(sink)
    done = _evaluated(gate, held, facts, log)
    checks = [_check(name, done["measures"].get(name), gate.limits.get(name)) for name in _checked(gate)]
    failed = [check["said"] for check in checks if not check["passed"]]
    decision = {
        **kept,
        "passed": not failed,
        "failed": failed,
        "checks": checks,
        "override": gate.override if failed else None,
        "numbers": evaluate.numbers_of(done),
    }
    with storage.explained(held.uri):
        storage.put_bytes(held.filesystem, held.path(DECISION), written(decision))
    return decision


def _evaluated(
    gate: GateSettings, held: Sink, facts: Mapping[str, Any], log: Callable[[str], None]
) -> dict[str, Any]:
    source = {"kind": "parquet", "path": storage.join(held.uri, DATA)}
    if SYNTHETIC in facts["schema"].names:
        source["filter"] = f"{SYNTHETIC} == True"
    sources: dict[str, Source] = opened(gate, Context())
    sources["synthetic"] = open_source(ParquetSource.model_validate(source))
    asked = {name: getattr(gate, name) for name in Comparison.model_fields if name not in ("real", "holdout")}
    parts = {label: s.digest for label, s in sources.items() if label != "synthetic"}
    parts["synthetic"] = canonical_hash([record["sha256"] for record in held.records()])
    identity = f"gate-{canonical_hash({'asked': asked, 'sources': parts})[7:27]}"
    done = evaluate.read(held)
    if done is not None and done.get("job_id") == identity:
        return done
    names = compared_columns(facts["schema"], facts["modality"])
    found = evaluation_of(gate, sources, facts["modality"], names, facts["model"], log)
    return evaluate.write(held, found, identity, facts_of(sources), f"Gate of {facts['title']}")


def _checked(gate: GateSettings) -> list[str]:
    return [name for name in MEASURES if name in gate.limits or name in DEFAULTS]


def _check(name: str, measure: Mapping[str, Any] | None, limit: Limit | None) -> dict[str, Any]:
    """One line of the decision. A limit holds for the figure itself; a default fails only beyond both intervals."""
    if measure is None:
        missing = f"{name} could not be found out"
        return {"measure": name, "value": None, "passed": limit is None, "said": missing}
    made, real = measure["synthetic"], measure["real"]
    value = made["value"]
    if limit is None:
        passed = real is None or made["low"] <= real["high"]
        beside = f"{real['value']:.4g}, that of unseen real rows" if real else "anything"
        return {
            "measure": name,
            "value": value,
            "passed": passed,
            "said": f"{name} {value:.4g} is above {beside}",
        }
    if limit.max is not None and value > limit.max:
        return {
            "measure": name,
            "value": value,
            "passed": False,
            "said": f"{name} {value:.4g} is above {limit.max:g}",
        }
    if limit.min is not None and value < limit.min:
        return {
            "measure": name,
            "value": value,
            "passed": False,
            "said": f"{name} {value:.4g} is below {limit.min:g}",
        }
    return {"measure": name, "value": value, "passed": True, "said": _said(name, limit)}


def stopped(sink: Sink, decision: Mapping[str, Any]) -> JobFailed:
    """What a job that is held ends with."""
    where = storage.mask(sink.uri)
    return JobFailed(
        f"the gate holds these records, they are not published: {'; '.join(decision['failed'])}. Why: "
        f"{storage.join(where, HELD, evaluate.REPORT)}. Train longer or otherwise, or publish them all the same: "
        f'genai publish {where} --reason "..."'
    )


def may_pass(decision: Mapping[str, Any]) -> bool:
    """Whether it is to be published."""
    return bool(decision["passed"] or decision["override"])


def release(sink: Sink, decision: Mapping[str, Any]) -> dict[str, Any]:
    """Move what is held to its output, as far as it is not there yet; what the manifest says of it all."""
    held = held_sink(sink)
    with storage.explained(sink.uri):
        for record in list(held.records()):
            sink.adopt(held, record)
        sink.adopt_quarantined(held)
        for name in _pages(held):
            data = storage.read_bytes(held.filesystem, held.path(name))
            storage.put_bytes(sink.filesystem, sink.path(PAGES.get(name, name)), data)
    gate = {name: decision[name] for name in ("passed", "override", "failed")}
    gate["checked"] = {check["measure"]: check["value"] for check in decision["checks"]}
    return {**decision["summary"], "gate": gate, "evaluation": PAGES[evaluate.REPORT]}


def _pages(held: Sink) -> list[str]:
    """Files beside the data that people and other jobs read, such as reports."""
    names = [
        info.path[len(held.root) + 1 :]
        for info in storage.list_files(held.filesystem, held.root, recursive=False)
    ]
    return [name for name in names if name not in ("_JOB.json", DECISION) and not storage.is_temporary(name)]


def emptied(sink: Sink) -> None:
    """Remove what publishing left of the held directory: decision and records, after the manifest stands."""
    held = held_sink(sink)
    with storage.explained(held.uri):
        if storage.exists(held.filesystem, held.root):
            held.filesystem.delete_dir(held.root)
