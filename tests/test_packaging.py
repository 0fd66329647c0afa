"""The package, its lock file and its dependencies say the same thing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import import_module, metadata, resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
FLOORS = {"genai_core", "pipelines", "jobs"}


def canonical(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


DIRECT = sorted({canonical(requirement) for requirement in [*PROJECT["dependencies"], *EXTRAS]})


def lock_lines() -> list[str]:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_lock_holds_exact_versions_and_nothing_else() -> None:
    for line in lock_lines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), (
            f"not an exact public version: {line}"
        )
    assert "torch==2.13.0" in lock_lines()
    assert [canonical(line) for line in lock_lines()] == sorted({canonical(line) for line in lock_lines()})


def test_every_direct_dependency_is_locked() -> None:
    assert not set(DIRECT) - {canonical(line) for line in lock_lines()}


def test_every_import_is_declared() -> None:
    """What the three floors import is in pyproject's dependencies, not there by luck."""
    # extras, imported where they are needed, with an error that names them; and what pydantic itself pins
    part_of = {"c2pa-python", "cryptography", "deltalake", "faker", "keras", "opacus", "pyiceberg"}
    part_of |= {"pydantic-core", "s3fs", "soundfile", "tokenizers", "typing-extensions"}
    declared = {canonical(requirement) for requirement in PROJECT["dependencies"]} | part_of
    owners = metadata.packages_distributions()
    undeclared = {}
    for path in (path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")):
        for name in imported(path) - FLOORS - set(sys.stdlib_module_names):
            if not {canonical(owner) for owner in owners.get(name, [])} & declared:
                undeclared[name] = path.name
    assert not undeclared


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("name", DIRECT)
def test_no_direct_dependency_restricts_its_users(name: str) -> None:
    """No copyleft beyond file level (MPL), no source-available licence."""
    about = metadata.metadata(name)
    stated = [about.get("License-Expression") or "", (about.get("License") or "").partition("\n")[0]]
    stated += [item for item in about.get_all("Classifier") or [] if item.startswith("License")]
    text = " | ".join(stated)
    assert text.strip(" |"), "no licence stated"
    assert not re.search(r"\bA?GPL|Affero|SSPL|Business Source|BUSL|Commons Clause|Elastic License", text), (
        text
    )


def test_every_folder_of_a_floor_is_a_package() -> None:
    """setuptools leaves folders without __init__.py out of the wheel."""
    folders = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_the_command_and_the_package_data_are_there() -> None:
    module, _, name = PROJECT["scripts"]["genai"].partition(":")
    assert callable(getattr(import_module(module), name))
    files = resources.files("jobs")
    assert [item.name for item in (files / "specs").iterdir() if item.name.endswith(".yaml")]
    assert (files / "schema.json").is_file()
    assert (resources.files("genai_core") / "py.typed").is_file()
