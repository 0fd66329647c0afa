"""What a cluster runs for `genai submit`: compares its versions with the submitter's, then runs the jobs.

Until the versions are known to be right nothing of ours is imported, and nothing is used that an older Python lacks.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PARCEL = "submission.json"
REFUSED = 2


def main() -> int:
    """Run the jobs of the folder's PARCEL on the cluster that this process is in; returns `genai run`'s exit code."""
    parcel = json.loads(Path(PARCEL).read_text(encoding="utf-8"))
    wanted: dict[str, str] = parcel["versions"]
    found = versions(wanted)
    told = ", ".join(f"{name} {version}" for name, version in found.items())
    print(f"{parcel['file']}: starting on {told}", file=sys.stderr, flush=True)
    if fault := differences(wanted, found) or _untracked(parcel):
        print(f"error: {fault}", file=sys.stderr, flush=True)
        print(json.dumps({"status": "invalid", "file": parcel["file"], "error": fault}))
        return REFUSED
    from jobs import cli

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / parcel["file"]
        path.write_text(job_file(parcel["jobs"], os.environ.get("RAY_ADDRESS")), encoding="utf-8")
        return cli.main(["run", str(path)])


def job_file(jobs: Iterable[Mapping[str, Any]], address: str | None = None) -> str:
    """The text of a job file: what was written, as comments, then what came of it, as JSON, which is YAML too.

    Jobs that are not to run inline get the cluster at `address` as their runner.
    """
    from jobs.spec import KINDS

    documents = []
    for one in jobs:
        job = dict(one["job"])
        compute = dict(job.get("compute") or {})
        if address and compute.get("runner") != "inline" and "compute" in KINDS[job["job"]].model_fields:
            job["compute"] = {**compute, "runner": address}
        comments = "".join(f"# {line}".rstrip() + "\n" for line in one["text"].splitlines())
        documents.append(comments + json.dumps(job, indent=1, ensure_ascii=False) + "\n")
    return "---\n".join(documents)


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of Python without the patch, of packages without their build (+cpu, +cu130); "none" of what is not there."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    if name == "python":
        return ".".join(map(str, sys.version_info[:2]))
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "none"


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """A sentence about versions that are not the submitter's; empty when all are."""
    unlike = [
        f"{name} {wanted[name]} wanted, {found[name]} found" for name in wanted if wanted[name] != found[name]
    ]
    if not unlike:
        return ""
    return (
        f"the cluster's versions are not the submitter's: {'; '.join(unlike)} ({sys.executable}). The results would be "
        "others; install the same requirements.lock on all its machines, or submit from an environment like theirs"
    )


def _untracked(parcel: Mapping[str, Any]) -> str:
    if not parcel["tracks"] or os.environ.get("MLFLOW_TRACKING_URI"):
        return ""
    return (
        "neither the job nor the cluster says where runs are tracked, and a database in the job's folder would be "
        "lost; set MLFLOW_TRACKING_URI where you submit or on the cluster, or track.uri, or track.enabled=false"
    )


if __name__ == "__main__":
    sys.exit(main())
