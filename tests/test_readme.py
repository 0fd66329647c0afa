"""README.md tells the truth: its generated parts are current, its links lead somewhere, its examples run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from genai_core import catalog
from jobs import flights_lake

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GENAI = Path(sys.executable).with_name("genai")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no {language} example"
    return found.group(1)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([GENAI, *arguments], cwd=cwd, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: a lake of flights, the job file, a small table."""
    folder = tmp_path_factory.mktemp("reader")
    flights_lake.build(folder / "lake" / "flights")
    (folder / "flights.yaml").write_text(block("yaml"), encoding="utf-8")
    pq.write_table(flights_lake.read().slice(0, 2000), folder / "flights.parquet")
    return folder


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "readme.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_capability_table_and_file_tree_are_current(generator: ModuleType) -> None:
    assert generator.rendered(README) == README, "say: python docs/readme.py"


def test_the_table_names_every_family_and_its_scores(generator: ModuleType) -> None:
    table = generator.capability_table()
    cells = {line.split(" | ")[0].strip("|` "): line.split(" | ") for line in table.splitlines() if line}
    for kind, family in catalog.FAMILIES.items():
        for column, modality in enumerate(catalog.MODALITIES, 1):
            assert (cells[kind][column] == "yes") == (modality in family.scores)
            for score in family.scores.get(modality, ()):
                assert kind in cells[score][column + 1]


def test_the_tree_names_every_file(generator: ModuleType) -> None:
    tree = generator.file_tree()
    for floor in generator.FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            assert path.name == "__init__.py" or f" {path.name} " in tree, path


def test_links_and_named_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [h.lower().replace(" ", "-") for h in headings], link
    named = re.findall(r"`((?:genai_core|pipelines|jobs|docs|tests|infra)/[\w./]+)`", README)
    assert not [name for name in named if name.split("/")[-1] != "x.py" and not (ROOT / name).exists()]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("command", ["--help", "list", "schema", "check flights.yaml"])
def test_quick_commands_work(place: Path, command: str) -> None:
    assert run(*command.split(), cwd=place).stdout


def test_shown_commands_are_those_that_exist(place: Path) -> None:
    shown = set(re.findall(r"^\$ genai (\w+)", block("console"), re.MULTILINE))
    offered = run("--help", cwd=place).stdout
    assert shown and all(re.search(rf"^  {command}\b", offered, re.MULTILINE) for command in shown)


def test_fit_and_score_in_one_go(place: Path) -> None:
    table = pa.table({"x": np.arange(300.0), "y": np.arange(300) % 7})
    for name in ("a.csv", "b.csv"):
        pacsv.write_csv(table, place / name)
    line = re.search(r"^\$ genai (score .+?)(?:\s+#.*)?$", block("console"), re.MULTILINE)
    assert line
    run(*line.group(1).split(), "--max-seconds", "2", cwd=place)
    assert np.load(place / "scores.npy").shape == (300,)


def test_the_python_example_runs(place: Path) -> None:
    """As it stands in the README, with less time to learn."""
    code = block("python").replace("max_seconds=60", "max_seconds=3")
    assert "max_seconds=3)" in code
    code += "\nassert more.num_rows == 1000 and more.schema == table.schema\nassert len(oddest) == 10\n"
    script = shutil.which("python", path=str(Path(sys.executable).parent)) or sys.executable
    done = subprocess.run([script, "-c", code], cwd=place, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
