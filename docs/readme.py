"""Writes the parts of README.md that the code knows better: the capability table, the file tree, the faults survived.

    python docs/readme.py           rewrite them
    python docs/readme.py --check   exit 1 where they are out of date (a test does the same)
    python docs/readme.py --demo LOG    also show what `make demo > LOG` has printed, from the results on

A file's purpose in the tree is the first line of its docstring, so there is one place to keep it true.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FLOORS = ("jobs", "pipelines", "genai_core")
WIDTH = 116
OTHERS = {
    "tests/": "mirrors the three floors; tests/contract/ runs every property over every catalogue entry",
    "benchmarks/": "speed, memory and quality side by side with peers; results/ holds the figures",
    "docs/": "decisions/ (what was chosen, why, by which number), this README's generator, the picture",
    "infra/": "the runbook, the container image, a platform by Docker Compose, manifests for Kubernetes and KubeRay",
    ".ci/run": "what has to hold before a change is merged: tests, lint, types, import contracts",
    "Makefile": "make demo, make test, make lint; the environment in .venv is made first if need be",
    "pyproject.toml": "the package, its open version ranges, and the settings of the tools",
    "requirements.lock": "the exact versions that are tested",
}
LIKELIHOOD = {"exact": "exact", "lower": "lower bound", None: "none (implicit)"}
ABILITIES = ("samples", "reconstructs", "discriminates", "translates")


def capability_table() -> str:
    """Model families against modalities and abilities, then scores against who can give them, from the catalogue."""
    sys.path.insert(0, str(ROOT))
    from genai_core.catalog import FAMILIES, MODALITIES, MODELS

    heads = ["`model: {kind: ...}`", *(f"`{name}`" for name in MODALITIES), *ABILITIES, "likelihood"]
    rows = [_row(heads), "|---" * len(heads) + "|"]
    for kind in MODELS:
        family = FAMILIES[kind]
        marks = [name in family.scores for name in MODALITIES]
        marks += [name in family.capabilities for name in ABILITIES]
        rows.append(_row([f"`{kind}`", *("yes" if m else "" for m in marks), LIKELIHOOD[family.bound]]))
    return "\n".join([*rows, "", *_score_table()])


def _score_table() -> Iterator[str]:
    """For each score its unit, and the families that give it per modality; bold where it is the default."""
    from genai_core.catalog import FAMILIES, MODALITIES, SCORES

    heads = ["anomaly score", "unit", *(f"`{name}`" for name in MODALITIES)]
    yield _row(heads)
    yield "|---" * len(heads) + "|"
    for name in SCORES:
        cells = [
            ", ".join(
                f"**{kind}**" if family.scores[modality][0] == name else kind
                for kind, family in sorted(FAMILIES.items())
                if name in family.scores.get(modality, ())
            )
            for modality in MODALITIES
        ]
        yield _row([f"`{name}`", unit_of(name), *cells])


def unit_of(score: str) -> str:
    """The UNIT that a score's module states, without importing it (and torch)."""
    text = (ROOT / "genai_core" / "scores" / f"{score}.py").read_text(encoding="utf-8")
    found = re.search(r'^UNIT = "(.*)"', text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"genai_core/scores/{score}.py states no UNIT")
    return found.group(1)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def file_tree() -> str:
    """Every file of the three floors with its purpose, then what stands around them."""
    lines = [line for floor in FLOORS for line in _folder(ROOT / floor, 0)]
    lines += [_line(name, text, 0) for name, text in OTHERS.items() if (ROOT / name).exists()]
    return "\n".join(["```", *lines, "```"])


def _folder(folder: Path, depth: int) -> Iterator[str]:
    yield _line(folder.name + "/", purpose(folder / "__init__.py"), depth)
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".py", ".yaml", ".json")]
    for path in files:
        if path.name != "__init__.py":
            yield _line(path.name, purpose(path), depth + 1)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"):
        yield from _folder(inner, depth + 1)


def _column(depth: int) -> int:
    return 32 - 2 * depth


def _line(name: str, text: str, depth: int) -> str:
    head, margin = f"{'  ' * depth}{name:<{_column(depth) - 1}} ", " " * _column(0)
    return (
        textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=margin) if text else head.rstrip()
    )


def purpose(path: Path) -> str:
    """The first line of a module's docstring, or of a YAML file's leading comment."""
    if path.suffix == ".json":
        return "the schema of job files, for editors; written by `genai schema`"
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        first = re.search(r"^# (?!yaml-language-server)(.+)", text, re.MULTILINE)
        return _first_sentence(first.group(1)) if first else ""
    return _first_sentence((ast.get_docstring(ast.parse(text)) or "").partition("\n")[0])


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].strip().rstrip(".")


FAULT_SUMS = ("finished", "equal", "orphans", "hangs", "lost", "twice")


def chaos_table() -> str:
    """What was killed, how often by verb, and what came of the jobs, from benchmarks/results/chaos.json."""
    figures = json.loads((ROOT / "benchmarks/results/chaos.json").read_text(encoding="utf-8"))["figures"]
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for row in figures["table"]:
        counts = {row["verb"]: row["faults"], "jobs": row["jobs"], **{key: row[key] for key in FAULT_SUMS}}
        sums[row["killed"]].update(counts)
        sums["all"].update(counts)
    heads = ["killed or disturbed", "generate", "score", "train", "jobs", *FAULT_SUMS]
    rows = [
        _row([name, *(str(counts[key]) for key in heads[1:])])
        for name, counts in sums.items()
        if name != "all"
    ]
    whole = _row(["**all**", *(f"**{sums['all'][key]}**" for key in heads[1:])])
    return "\n".join([_row(heads), "|---" * len(heads) + "|", *rows, whole])


BLOCKS = {"capabilities": capability_table, "chaos": chaos_table, "tree": file_tree}


def rendered(text: str) -> str:
    """The README with every block between its markers made anew."""
    for name, make in BLOCKS.items():
        text = replaced(text, name, make())
    return text


def replaced(text: str, name: str, content: str) -> str:
    """The README with `content` between the markers of one block."""
    begin, end = f"<!-- {name}: written by docs/readme.py -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    after = rest.partition(end)[2]
    if not found or not after:
        raise SystemExit(f"README.md lacks the markers {begin} and {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def demo_results(log: str) -> str:
    """The results that a run of the demo has printed, without the progress before them."""
    start = log.find("How alike are")
    end = log.find("\n", log.find("\nseconds: ") + 1)
    if start < 0 or end < start:
        raise SystemExit("the log does not hold a complete run of the demo")
    return f"```\n{log[start:end]}\n```"


def main() -> int:
    """Rewrite or check; returns the exit code."""
    old = README.read_text(encoding="utf-8")
    new = rendered(old)
    match sys.argv[1:]:
        case ["--check"]:
            return int(old != new)
        case ["--demo", log]:
            new = replaced(new, "demo", demo_results(Path(log).read_text(encoding="utf-8")))
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
