"""The software bill of materials: requirements.lock as CycloneDX JSON, with licences and who needs what

    python docs/sbom.py [FILE]     default: build/sbom.cdx.json; `make sbom` does this

Licences are what the installed packages say of themselves. A wheel may bundle more: soundfile's holds libsndfile
(LGPL-2.1), torch's OpenMP and others, numpy's OpenBLAS; their texts lie in the packages' own folders.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
import uuid
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK, PROJECT = ROOT / "requirements.lock", ROOT / "pyproject.toml"
FOR_WORK = ("demo", "test", "lint")  # extras for work on the project; users run with the others
UNKNOWN = {  # packages whose metadata name no licence, read from their files
    "huey": "MIT",
    "namex": "Apache-2.0",
    "skops": "MIT",
}


def pinned() -> dict[str, str]:
    """Name -> version of the lock."""
    lines = (line.partition("#")[0].strip() for line in LOCK.read_text().splitlines())
    pairs = (line.partition(";")[0].strip().split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def licence(name: str) -> str:
    """What a package says of its licence: an SPDX expression, or words; empty when it says nothing."""
    found = metadata(name)
    if expression := found.get("License-Expression"):
        return str(expression)
    classifiers = [c for c in found.get_all("Classifier") or [] if c.startswith("License ::")]
    words = [c.rpartition(" :: ")[2] for c in classifiers if c != "License :: OSI Approved"]
    text = str(found.get("License") or "").strip()
    short = text if text and "\n" not in text and len(text) < 80 else ""
    return " AND ".join(words) or short or text.partition("\n")[0][:80] or UNKNOWN.get(name, "")


def needed_by(name: str, extras: Iterable[str] = ()) -> set[str]:
    """Names of what a package needs on this machine."""
    environments = [{"extra": extra} for extra in ("", *extras)]
    try:
        wanted = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        return set()
    return {
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or any(one.marker.evaluate(environment) for environment in environments)
    }


def reached(start: Iterable[Requirement], known: set[str]) -> set[str]:
    """All packages of the lock that some requirements lead to."""
    found: set[str] = set()
    waiting = [(canonicalize_name(one.name), tuple(one.extras)) for one in start]
    while waiting:
        name, extras = waiting.pop()
        if name in known and name not in found:
            found.add(name)
            waiting += [(other, ()) for other in needed_by(name, extras)]
    return found


def bill() -> dict[str, Any]:
    """The whole document; the same lock gives the same bytes."""
    versions = pinned()
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    required = reached(map(Requirement, project["dependencies"]), set(versions))
    optional = reached(
        (Requirement(text) for extra in extras.keys() - set(FOR_WORK) for text in extras[extra]),
        set(versions),
    )
    scopes = {
        name: "required" if name in required else "optional" if name in optional else "excluded"
        for name in versions
    }
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    refs = {name: f"pkg:pypi/{name}@{version}" for name, version in versions.items()}
    direct = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    tree = [{"ref": own, "dependsOn": sorted(refs[name] for name in direct & refs.keys())}]
    for name in sorted(refs):
        tree.append({"ref": refs[name], "dependsOn": sorted(refs[n] for n in needed_by(name) & refs.keys())})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(hashlib.sha256(LOCK.read_bytes()).hexdigest()[:32], version=4)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "licenses": [{"expression": project["license"]}],
            }
        },
        "components": [
            _component(name, versions[name], refs[name], scopes[name]) for name in sorted(versions)
        ],
        "dependencies": tree,
    }


def _component(name: str, version: str, ref: str, scope: str) -> dict[str, Any]:
    said = licence(name)
    known = {"type": "library", "bom-ref": ref, "name": name, "version": version, "purl": ref, "scope": scope}
    is_expression = bool(metadata(name).get("License-Expression"))
    terms = [{"expression": said}] if is_expression else [{"license": {"name": said}}]
    return known | ({"licenses": terms} if said else {})


def main(arguments: list[str]) -> None:
    """Write the bill."""
    path = Path(arguments[0]) if arguments else ROOT / "build" / "sbom.cdx.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill(), indent=1) + "\n")
    print(path)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
