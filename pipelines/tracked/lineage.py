"""The way back from a file to its job, its model and the data that the model was trained on.

Everything is read from the manifest, the Parquet footer and the artifact's header, so it works when MLflow is gone;
the ids of runs are added when the tracking store can be asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from genai_core.artifact import HEADER, Header, read_header
from genai_core.errors import GenAIError, InvalidData, InvalidInput
from pipelines.gate import decision_of
from pipelines.lakes.lake_log import SCORED, LakeLog
from pipelines.outputs import footer as footers
from pipelines.outputs.sink import DATA, MANIFEST, Sink
from pipelines.outputs.sink_files import hash_fits, required
from pipelines.provenance.row_origin import jobs_in
from pipelines.stores import storage
from pipelines.tracked.lineage_text import render
from pipelines.tracked.model_uri import locate, registry_of
from pipelines.tracked.registry import Registry, Unknown, tracking_uri

__all__ = ["lineage", "render"]

ACCEPTED = "a job's output directory, one of its Parquet files, a model's directory, or models:/NAME@latest"
CHUNK = 2**22
Tree = dict[str, Any]


def lineage(path: str, verify: bool = False) -> Tree:
    """Where `path` comes from, as a JSON-able tree: {"kind", "path", "state", "job", "model", "training"}.

    A file's bytes are always compared with the manifest; those of a whole output only when `verify` is set.
    """
    if path.startswith(("models:", "runs:")):
        found = locate(path)
        if found.directory is None:
            raise InvalidInput(f"the files of {path} are not on this machine; name its directory")
        return _of_model(str(found.directory), path)
    filesystem, inside = storage.resolve(path)
    with storage.explained(path):
        kind = filesystem.get_file_info(inside).type
    if kind == pa.fs.FileType.NotFound:
        raise InvalidInput(f"{storage.mask(path)} does not exist; accepted are {ACCEPTED}")
    if kind == pa.fs.FileType.Directory:
        return _of_directory(path, verify)
    folder, _, name = path.rpartition("/")
    if name == MANIFEST:
        return _of_directory(folder or ".", verify)
    return _of_model(folder or ".", path) if name == HEADER else _of_file(path)


def _of_directory(path: str, verify: bool) -> Tree:
    if "://" not in path and (Path(path) / HEADER).exists():
        return _of_model(path, path)
    if "://" not in path and (Path(path) / "MLmodel").exists():
        return _of_model(str(locate(path).directory), path)
    sink = Sink(path)
    manifest = sink.manifest_as_found()  # a changed one is told of, not refused
    if manifest is not None:
        return _of_output(path, sink, manifest, verify)
    if newest := LakeLog(path).newest():
        return _of_lake(path, newest, verify)
    job = sink.job()
    if job is None:
        raise InvalidInput(
            f"{storage.mask(path)} holds neither an output nor a model; accepted are {ACCEPTED}"
        )
    if (decision := decision_of(sink)) is not None and decision["failed"]:
        state = f"held by its gate: {'; '.join(map(str, decision['failed']))}"
        return _with_runs(
            {"kind": "output", "path": storage.mask(path), "state": state, "job": _unfinished(job)}
        )
    done = sum(1 for _ in sink.records())
    state = f"unfinished: {done} shards are done; run the same job again to finish it"
    return _with_runs({"kind": "output", "path": storage.mask(path), "state": state, "job": _unfinished(job)})


def _of_lake(path: str, newest: Mapping[str, Any], verify: bool) -> Tree:
    """All files of a lake and the runs that hold their scores; the job and model are those of the latest of these."""
    entries = [entry for entry in LakeLog(path).entries(newest).values() if entry.state == SCORED]
    runs = sorted({entry.run for entry in entries if entry.run is not None})
    faults, trees = [], []
    for run in runs:
        sink = Sink(storage.join(path, run))
        manifest = sink.manifest_as_found()
        if manifest is None:
            faults.append(f"{run} has no manifest")
            continue
        faults += [f"{run}: {fault}" for fault in _faults(sink, manifest, verify)]
        trees.append(manifest)
    checked = "every byte is as the manifests say" if verify else "complete (sizes compared, not bytes)"
    tree: Tree = {
        "kind": "lake",
        "path": storage.mask(path),
        "state": "changed: " + "; ".join(faults) if faults else f"intact: {checked}, in {len(runs)} run(s)",
        "rows": sum(entry.rows for entry in entries),
        "files": len(entries),
        "manifest": newest["files"],
        "runs": runs,
    }
    return _traced(tree, trees[-1]["provenance"]) if trees else tree


def _unfinished(job: Mapping[str, Any]) -> Tree:
    parts = job.get("parts", {})
    known = {name: parts[name] for name in ("spec", "versions") if name in parts}
    return {"job_id": job["job_id"], "verb": job["verb"], **known}


def _of_output(path: str, sink: Sink, manifest: Mapping[str, Any], verify: bool) -> Tree:
    faults = _faults(sink, manifest, verify)
    checked = "every byte is as the manifest says" if verify else "complete (sizes compared, not bytes)"
    tree = {
        "kind": "output",
        "path": storage.mask(path),
        "state": "changed: " + "; ".join(faults) if faults else f"intact: {checked}",
        "rows": manifest["rows"],
        "files": len(manifest["shards"]),
        "manifest": manifest["hash"],
    }
    gate = manifest["summary"].get("gate")
    return _traced(tree | ({"gate": gate} if isinstance(gate, dict) else {}), manifest["provenance"])


def _manifest_faults(manifest: Mapping[str, Any]) -> list[str]:
    return [] if hash_fits(manifest) else ["the manifest's own hash does not fit"]


def _faults(sink: Sink, manifest: Mapping[str, Any], verify: bool) -> list[str]:
    """What is not as a manifest says."""
    return [*_manifest_faults(manifest), *_file_faults(sink, manifest, verify)]


def _file_faults(sink: Sink, manifest: Mapping[str, Any], verify: bool) -> list[str]:
    sizes = {info.path: info.size for info in storage.list_files(sink.filesystem, sink.path(DATA))}
    faults = []
    for shard in manifest["shards"]:
        size = sizes.pop(sink.path(shard["file"]), None)
        if size is None:
            faults.append(f"{shard['file']} is missing")
        elif size != shard["bytes"] or (verify and _sha256(sink, shard["file"]) != shard["sha256"]):
            faults.append(f"{shard['file']} has other bytes")
    return faults + [f"{path.removeprefix(sink.root + '/')} is not listed" for path in sizes]


def _sha256(sink: Sink, file: str) -> str:
    digest = hashlib.sha256()
    with sink.filesystem.open_input_stream(sink.path(file), compression=None) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _of_file(path: str) -> Tree:
    filesystem, inside = storage.resolve(path)
    try:
        with storage.explained(path):
            footer = footers.read(filesystem, inside)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidData(
            f"{storage.mask(path)} is no Parquet file, or damaged: {_first_line(error)}; "
            "of a picture or a sound, and of any one file, `genai verify FILE` says where it comes from"
        ) from error
    if footer is None or "job_id" not in footer:
        if named := jobs_in(path):
            return _of_strange_rows(path, named)
        raise InvalidInput(
            f"{storage.mask(path)} carries no lineage: it was not written by a job of this project, or rewritten by "
            f"another program since. Accepted are {ACCEPTED}"
        )
    tree = {"kind": "file", "path": storage.mask(path), "state": _file_state(path, footer)}
    return _traced(tree, footer)


def _of_strange_rows(path: str, named: Mapping[str, int]) -> Tree:
    """A file that another program wrote, whose rows carry the column `_lineage`: what jobs made them."""
    told = ", ".join(f"{job} ({rows:,} rows)" for job, rows in named.items())
    state = f"not verified: another program wrote it; its rows say that they were made by {told}"
    tree: Tree = {"kind": "rows", "path": storage.mask(path), "state": state, "jobs": dict(named)}
    first = next(iter(named))
    return _with_runs(tree | {"job": {"job_id": first, "verb": first.partition("-")[0], "synthetic": True}})


def _file_state(path: str, footer: Mapping[str, Any]) -> str:
    """What the manifest that lies above the file says about it."""
    folder, _, name = (path if "://" in path else str(Path(path).absolute())).rpartition("/")
    if footer.get("role") == "anomalies":
        return "a list made from the output's files; the manifest has no hash of it"
    root, inside, below = f"{folder}/".rpartition(f"/{DATA}/")  # below it lie partitions, month=1/
    sink = Sink(root or ".") if inside else None
    manifest = sink.manifest_as_found() if sink else None
    if sink is None or manifest is None or manifest["provenance"].get("job_id") != footer["job_id"]:
        return "not verified: its manifest is not beside it"
    listed = {shard["file"]: shard for shard in manifest["shards"]}
    shard = listed.get(f"{DATA}/{below}{name}")
    if not hash_fits(manifest):
        return "changed: the manifest's own hash does not fit"
    if shard is None:
        return "changed: the manifest does not list this file"
    if _sha256(sink, shard["file"]) != shard["sha256"]:
        return "changed: its bytes are not those that the manifest lists"
    return f"intact: {shard['rows']:,} rows, sha256 {shard['sha256']}, as the manifest says"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def _traced(tree: Tree, provenance: Mapping[str, Any]) -> Tree:
    """The job, the model and the training behind an output."""
    provenance = required("provenance", provenance, f"the provenance of {tree['path']}")
    job = ("job_id", "verb", "synthetic", "shard", "seed", "spec", "spec_hash", "versions", "source")
    tree["job"] = {name: provenance[name] for name in job if provenance.get(name) is not None}
    tree["model"] = dict(provenance["model"]) | _found(provenance["model"])
    tree["training"] = {
        "job_id": provenance.get("training_job"),
        "data": provenance.get("training_data"),
        "rights": provenance.get("rights"),
        "privacy": provenance.get("privacy"),
    }
    return _with_runs(tree)


def _found(model: Mapping[str, Any]) -> Tree:
    """Whether the model is still where the job found it."""
    try:
        directory = locate(model["uri"]).directory
        if directory is None:
            return {"state": "registered; its files are not on this machine"}
        same = read_header(directory).digest == model["digest"]
    except (GenAIError, Unknown):
        return {"state": "not found from here"}
    return {"state": "found" if same else "replaced: another model lies there", "directory": str(directory)}


def _of_model(directory: str, path: str) -> Tree:
    header = read_header(directory)
    changed = [name for name, digest in header.files.items() if _hash_of(Path(directory) / name) != digest]
    state = f"changed: {', '.join(changed)}" if changed else "intact: every byte is as its header says"
    return _with_runs(
        {
            "kind": "model",
            "path": path,
            "state": state,
            "model": {"digest": header.digest, "kind": header.kind, "directory": directory},
            "training": _training(header),
        }
    )


def _hash_of(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _training(header: Header) -> Tree:
    known = header.provenance
    facts = {
        name: known[name]
        for name in ("job_id", "name", "data", "rights", "privacy", "job", "training", "versions")
        if name in known
    }
    return {"job_id": None, "data": None} | facts


def _with_runs(tree: Tree) -> Tree:
    """The runs of the jobs, when MLflow can be asked; "tracking" says when it cannot."""
    try:
        registry = registry_of(tracking_uri())
        for part in ("job", "training"):
            if job_id := tree.get(part, {}).get("job_id"):
                tree[part]["runs"] = _runs(registry, job_id)
    except (GenAIError, Unknown) as error:
        tree["tracking"] = f"MLflow was not asked: {error}"
    return tree


def _runs(registry: Registry, job_id: str) -> list[Tree]:
    return [asdict(run) for run in registry.runs_of(job_id)]
