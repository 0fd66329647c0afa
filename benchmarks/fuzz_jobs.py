"""Fuzz targets: job files, overrides, checks of jobs, filters"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from benchmarks import fuzz_inputs as inputs
from benchmarks.fuzz_bench import Bench, Target
from jobs import documents, execute, overrides, spec
from pipelines import filters

SPECS = Path(spec.__file__).parent / "specs"


@cache
def _specs() -> list[str]:
    return [path.read_text() for path in sorted(SPECS.glob("*.yaml"))]


YAML_WORDS = [
    "&a ", "*a", "<<: ", "!!python/object/apply:os.system [id]", "!!binary ", "%YAML 1.1\n", "---\n",
    "...\n", "? ", ": ", "- ", "[", "]", "{", "}", "#", "|\n", ">\n", "'", '"', "\t", "\\x00", "~",
    "\u2028", "\x85", "job: train\n", "0x", "1e", "12:30:45", "2026-01-01", ".inf", ".nan", "\ufeff",
    "\x00", "[[[[", "{{{{", "@", "`", "name: a\n", "kind: ", "null", *inputs.NASTY_TEXTS,
]  # fmt: skip


def _yaml_text(random: Random) -> bytes:
    text = inputs.reworded(random.choice(_specs()), random, YAML_WORDS)
    data = text.encode("utf-8", "surrogatepass")
    return inputs.mutated(data, random, [data]) if random.random() < 0.3 else data


def _run_spec(bench: Bench, data: bytes) -> None:
    spec.entries(bench.file("job.yaml", data))


@cache
def _jobs() -> list[Any]:
    return [document.value for text in _specs() for document in documents.parse(text, "x")]


@st.composite
def _documents(draw: st.DrawFn) -> list[Any]:
    """Whole job files in which one to three values were replaced by what does not belong there."""
    found = draw(st.lists(st.sampled_from(_jobs()), min_size=1, max_size=2))
    random = Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 3))):
        found = [inputs.replaced(job, random, draw(inputs.values())) for job in found]
    return found


def _run_documents(bench: Bench, jobs: list[Any]) -> None:
    # JSON is YAML; what Python's json writes for infinities and lone surrogates is part of the attack
    text = "\n---\n".join(json.dumps(job, ensure_ascii=False) for job in jobs)
    spec.entries(bench.file("job.yaml", text.encode("utf-8", "surrogatepass")))


@st.composite
def _overrides(draw: st.DrawFn) -> tuple[str, list[str]]:
    keys = overrides.settable(spec.KINDS.values())
    one = st.builds(
        lambda key, tail, value: f"{key}{tail}={value}",
        st.sampled_from([*keys, "", ".", "job", "where", "where.x", "a..b", "model", "\x1b"]),
        st.sampled_from(["", "", "", ".x", ".", ".kind", " ", ".__class__"]),
        st.one_of(
            st.sampled_from([*YAML_WORDS, "1", "{kind: vae}"]),
            inputs.values().map(repr),
            st.text(max_size=30),
        ),
    )
    return draw(st.sampled_from(_specs())), draw(st.lists(one, min_size=1, max_size=3))


def _run_overrides(bench: Bench, given: tuple[str, list[str]]) -> None:
    text, sets = given
    spec.entries(bench.file("job.yaml", text.encode()), sets)


def _bases(bench: Bench) -> list[dict[str, Any]]:
    """Jobs that can run here, as long as nothing in them is changed."""
    source = {"kind": "parquet", "path": str(bench.folder / "lake"), "filter": "whole > 1"}
    track = {"enabled": False}
    common = {
        "model": str(bench.model),
        "sink": {"path": "out"},
        "compute": {"runner": "inline"},
        "track": track,
    }
    return [
        {"job": "train", "name": "t", "source": source, "modality": {"kind": "tabular", "exclude": ["time"]},
         "model": {"kind": "vae"}, "fit": {"seed": 1}, "track": track},
        {"job": "generate", "rows": 10, "where": {"text": "red"}, "seed": 1, "temperature": 1.0, **common},
        {"job": "score", "source": source, "scores": ["negative_log_likelihood"], "fdr": 0.1, "keep": ["kind"],
         **common},
    ]  # fmt: skip


@st.composite
def _checked(draw: st.DrawFn) -> tuple[int, int, Any]:
    return draw(st.integers(0, 2)), draw(st.integers(0, 2**32)), draw(inputs.values(2))


FIXED = {
    "track": {"enabled": False},
    "compute": {"runner": "inline"},
}  # or a server, a cluster would be asked


def _run_check(bench: Bench, given: tuple[int, int, Any]) -> None:
    number, seed, value = given
    job = inputs.replaced(_bases(bench)[number], Random(seed), value)
    if not isinstance(job, dict) or any("://" in str(part) for part in (job, job.get("source"))):
        return  # stores are asked over the network
    text = json.dumps(job | FIXED, ensure_ascii=False).encode("utf-8", "surrogatepass")
    path = bench.file("job.yaml", text)
    shutil.rmtree(bench.folder / "out", ignore_errors=True)
    execute.check_file(str(path), [], execute.Voice(quiet=True))


# -- filters ---------------------------------------------------------------------------------------------------

FILTER_WORDS = (
    "number", "whole", "text", "time", "flag", "price", "kind", "col('number')", "col()", "and", "or",
    "not", "in", "is", "null", "None", "==", "!=", "<", "<=", ">", ">=", "(", ")", ",", "'red'", "1", "-1",
    "1e400", "0.5", "'2026-01-01'", "true", "f''", "lambda: 0", "[x for x in y]", "__import__('os')",
    ".__class__", "1_000", "0x10", "b'x'", "...", "*", ":=", "**", "'\\ud800'", "9" * 5000, "(" * 150,
    "not " * 3000, "'", "\\", "\0", "é", "if", "else", "await", "{}",
)  # fmt: skip


def _filter(random: Random) -> str:
    base = random.choice(
        (
            "number > 0.5 and text in ('red', 'green')", "time >= '2026-01-01' or whole is null", "not flag",
            "price == 1.5 and kind != 'a'", "1 < whole <= 5", "col('whole') in (1, 2)", "",
        )
    )  # fmt: skip
    words = base.split(" ")
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(words) + 1)
        words[at : at + random.choice((0, 1, 1, 1))] = [random.choice(FILTER_WORDS)]
    return " ".join(words)


def _run_filter(bench: Bench, text: str) -> None:
    table = bench.kept.setdefault("table", inputs.table(20, Random(0)))
    condition = filters.parse(text, table.schema)
    filters.columns_of(text, table.schema)
    table.filter(condition)


TARGETS = (
    Target("yaml_text", 30_000, _yaml_text, _run_spec),
    Target("job_documents", 3_000, _documents(), _run_documents),
    Target("overrides", 3_000, _overrides(), _run_overrides),
    Target("checked_jobs", 2_000, _checked(), _run_check),
    Target("filters", 30_000, _filter, _run_filter),
)
