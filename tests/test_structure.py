"""The shape of the project: the catalogue and its files, names, sizes, docstrings, what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genai_core import catalog
from pipelines.sources import SOURCES

ROOT = Path(__file__).parent.parent
FLOORS = ("genai_core", "pipelines", "jobs")
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
PYTHON = MODULES + sorted(
    path for folder in ("tests", "docs", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
CATALOGUE = {
    "genai_core/models": ("genai_core.catalog.MODELS", catalog.MODELS),
    "genai_core/modalities": ("genai_core.catalog.MODALITIES", catalog.MODALITIES),
    "genai_core/scores": ("genai_core.catalog.SCORES", catalog.SCORES),
    "pipelines/sources": ("pipelines.sources.SOURCES", SOURCES),
}
HEAVY = {"mlflow", "pandas", "ray", "sklearn", "torch"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", CATALOGUE)
def test_catalogue_tuples_are_sorted_and_say_what_the_folder_holds(folder: str) -> None:
    name, entries = CATALOGUE[folder]
    assert list(entries) == sorted(set(entries)), f"{name} has to be sorted, without repetition"
    files = {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_")}
    if folder == "pipelines/sources":  # what sources share stands beside them
        files = {
            stem
            for stem in files
            if f'Literal["{stem}"]' in (ROOT / folder / f"{stem}.py").read_text("utf-8")
        }
    assert not set(entries) - files, f"{name} names {set(entries) - files}, but {folder}/ has no such file"
    assert not files - set(entries), f"{folder}/ holds {files - set(entries)}: add the line to {name}"


def test_every_family_has_its_statement() -> None:
    assert tuple(sorted(catalog.FAMILIES)) == catalog.MODELS
    for kind, family in catalog.FAMILIES.items():
        assert set(family.scores) <= set(catalog.MODALITIES), kind
        assert {name for names in family.scores.values() for name in names} <= set(catalog.SCORES), kind
        assert ("log_prob" in family.capabilities) == (family.bound is not None), kind


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_files_have_a_telling_name_a_docstring_and_a_bearable_length(path: Path) -> None:
    assert path.stem not in {"utils", "util", "common", "helpers", "misc", "base"}, "say what the file is for"
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "would a reader rather meet two rooms?"
    assert ast.get_docstring(ast.parse(text)), "the first line says what the file is for"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_have_docstrings(path: Path) -> None:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    bare = [node.name for node in public if not ast.get_docstring(node)]
    assert not bare


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_unpickled_and_yaml_is_read_safely(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    imports = r"^\s*(import|from) (pickle|marshal|shelve|dill|joblib)\b"
    calls = r"torch\.load\(|allow_pickle\s*=\s*True|yaml\.(load|unsafe_load|full_load)\("
    assert not re.findall(f"{imports}|{calls}", text, re.MULTILINE)


@pytest.mark.parametrize(
    "module",
    ["jobs.cli", "jobs.spec", "pipelines.sources", "genai_core.catalog", "genai_core.evaluation.fidelity"],
)
def test_imports_stay_light(module: str) -> None:
    """`genai --help` and `genai check` must not pay for torch, Ray, MLflow, pandas and scikit-learn."""
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
