"""What a job ran on, as facts that can be stored beside its results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from typing import Any

from pipelines.masking import mask_text

PACKAGES = ("genai-core", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "ray", "safetensors", "torch")
SERVING = ("genai-core", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch")


def versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions, without importing the packages; what is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def requirements() -> list[str]:
    """What a server needs to load a logged model: exact pins of what is installed here, local builds (+cpu) cut off."""
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions(SERVING).items()]


def git_commit() -> str | None:
    """The working directory's commit, or None outside a repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def environment() -> dict[str, Any]:
    """Versions, interpreter, platform, processors, command line (secrets masked), commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": versions(),
        "command": mask_text(" ".join(sys.argv)),
        "git_commit": git_commit(),
    }
