"""Publish: let through what a gate holds, for a reason that manifest, lineage and MLflow keep"""

from __future__ import annotations

from typing import Any

from genai_core.errors import InvalidInput
from pipelines.context import Context
from pipelines.gate import DECISION, decision_of, emptied, held_sink, may_pass, release
from pipelines.outputs.sink import Sink, written
from pipelines.plan import Plan, Shard
from pipelines.provenance import keys
from pipelines.provenance.sealing import seal
from pipelines.settings import TrackSettings
from pipelines.stores import storage
from pipelines.tracking import Run


def publish(output: str, reason: str, context: Context) -> dict[str, Any]:
    """Publish an output that its gate holds. Raises InvalidInput: nothing is held there, or no reason is given."""
    sink, reason = Sink(output), reason.strip()
    if len(reason) < 3 or len(reason) > 500:
        raise InvalidInput("--reason: say in 3 to 500 characters why these records may be published")
    decision = decision_of(sink)
    if decision is None:
        state = "is published already" if sink.manifest() else "holds nothing that a gate has stopped"
        raise InvalidInput(f"{storage.mask(output)} {state}; give the output of a job with `gate:`")
    if not may_pass(decision):
        decision["override"] = reason
    track = TrackSettings.model_validate(decision["track"])
    provenance = decision["provenance"]
    params = {"job_id": provenance["job_id"], "reason": reason, "failed": decision["failed"]}
    with Run.start(track, name=decision["title"], kind="publish", params=params, log=context.log) as run:
        held = held_sink(sink)
        with storage.explained(held.uri):
            storage.put_bytes(held.filesystem, held.path(DECISION), written(decision))
        plan = Plan(
            decision["plan"]["kind"], tuple(Shard.from_json(fields) for fields in decision["plan"]["shards"])
        )
        manifest = sink.finish(plan, provenance, release(sink, decision))
        if provenance.get("synthetic"):
            directory = keys.directory_for(decision["sign"]) if provenance.get("marked") else None
            seal(sink, manifest, keys.load(directory) if directory else None, run.run_id)
        emptied(sink)
        run.log_metrics({"rows": manifest["rows"], "bytes": manifest["bytes"], **decision["numbers"]})
        run.log_dataset(
            decision["title"], storage.mask(output), manifest["hash"], None, manifest["rows"], "output"
        )
        run.set_tags(
            {
                "genai.output": storage.mask(output),
                "genai.manifest": manifest["hash"],
                "genai.gate": "; ".join(decision["failed"]),
                "genai.gate.override": decision["override"],
            }
        )
        return {
            "output": storage.mask(output),
            "rows": manifest["rows"],
            "manifest": manifest["hash"],
            "gate": manifest["summary"]["gate"],
            "run_id": run.run_id,
        }
