"""Lineage for people: one step back per indented paragraph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any


def render(tree: Mapping[str, Any]) -> str:
    """The tree of `pipelines.tracked.lineage.lineage` as indented lines."""
    lines = [str(tree["path"]), *("  " + line for line in _about(tree))]
    steps = (("job", _job), ("model", _model), ("training", _training))
    depth = 0
    for name, describe in steps:
        if name in tree:
            first, *more = describe(tree[name])
            lines += ["  " * depth + "└─ " + first, *("  " * depth + "   " + line for line in more)]
            depth += 1
    return "\n".join([*lines, *([tree["tracking"]] if "tracking" in tree else [])])


def _about(tree: Mapping[str, Any]) -> Iterator[str]:
    if "rows" in tree:
        yield f"{tree['rows']:,} rows in {tree['files']} files, manifest {tree['manifest']}"
    yield str(tree["state"])
    if gate := tree.get("gate"):
        yield _gate(gate)


def _gate(gate: Mapping[str, Any]) -> str:
    checked = gate.get("checked")
    values = checked.items() if isinstance(checked, Mapping) else ()
    found = ", ".join(f"{name} {value:.4g}" for name, value in values if isinstance(value, int | float))
    if gate.get("passed"):
        return f"passed its gate: {found}"
    return (
        f"published against its gate ({gate.get('override')}): {'; '.join(map(str, gate.get('failed', ())))}"
    )


def _job(job: Mapping[str, Any]) -> Iterator[str]:
    made = {True: ", synthetic rows", False: ""}.get(job.get("synthetic", False), "")
    yield f"made by {job['job_id']} ({job['verb']}{made})"
    if "shard" in job:
        yield f"shard {job['shard']}, seed {job.get('seed')}"
    if "spec" in job:
        yield f"spec {_brief(job['spec'])}"
    if source := job.get("source"):
        yield "of " + _data(source)
    yield from _runs(job)


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    uri = f" {model['uri']}" if "uri" in model else ""
    yield f"with the {model['kind']} model{uri}"
    yield f"digest {model['digest']}"
    if "state" in model:
        yield f"{model['state']}" + (f": {model['directory']}" if "directory" in model else "")


def _training(training: Mapping[str, Any]) -> Iterator[str]:
    job = training.get("job_id")
    yield f"trained by {job}" if job else "trained outside of a job"
    if training.get("data"):
        yield "on " + _data(training["data"])
    rights = training.get("rights")
    said = "; ".join(f"{k}: {v}" for k, v in rights.items()) if isinstance(rights, Mapping) else "not stated"
    yield f"rights: {said}"
    if isinstance(private := training.get("privacy"), Mapping):
        said = f"epsilon {private.get('epsilon')}, delta {private.get('delta')}; protects {private.get('protects')}"
        yield f"differential privacy: {said}"
    yield from _runs(training)


def _data(data: Mapping[str, Any]) -> str:
    path = data.get("path") or "a table in memory"
    where = f" where {data['filter']}" if data.get("filter") else ""
    rows = f", {data['rows']:,} rows" if data.get("rows") is not None else ""
    return f"{path}{where}{rows}, digest {data.get('digest')}"


def _runs(part: Mapping[str, Any]) -> Iterator[str]:
    for run in part.get("runs", ()):
        started = run["started"]
        when = f", {datetime.fromtimestamp(started / 1000, UTC):%Y-%m-%d %H:%M} UTC" if started else ""
        yield f"MLflow run {run['run_id']} in {run['experiment']} ({run['status'].lower()}{when})"


def _brief(spec: Any) -> str:
    """What was asked, without what was left at nothing."""
    if not isinstance(spec, Mapping):  # somebody else's _JOB.json
        return json.dumps(spec)
    return json.dumps({k: v for k, v in spec.items() if v not in (None, {}, [], "")}, ensure_ascii=False)
