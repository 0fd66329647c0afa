"""Job files: every kind of wrong input is told with file, line and the nearest word, all at once."""

from __future__ import annotations

import copy
import functools
import io
import json
import operator
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genai_core.errors import InvalidSpec
from jobs.spec import KINDS, entries, load, schema, schema_text

TRAIN = """\
job: train
name: flights
source: {kind: parquet, path: lake/flights}
model: {kind: autoregressive}
"""
GENERATE = """\
job: generate
model: models:/flights@latest
rows: 100
sink: {path: out/synthetic}
"""
SCORE = """\
job: score
model: models:/flights@latest
source: {kind: parquet, path: lake/flights}
sink: {path: out/scores}
"""


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str, name: str = "job.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def refusal(path: Path, *overrides: str) -> list[str]:
    """The faults, without the folder of the file."""
    with pytest.raises(InvalidSpec) as caught:
        load(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def test_each_kind_of_job_is_read(write) -> None:
    jobs = load(write("---\n".join([TRAIN, GENERATE, SCORE])))
    assert [type(job) for job in jobs] == [KINDS["train"], KINDS["generate"], KINDS["score"]]
    assert jobs[0].name == "flights" and jobs[1].rows == 100 and jobs[2].source.path == "lake/flights"


def test_entries_carry_their_own_text_and_place(write) -> None:
    path = write(TRAIN + "---\n# synthetic\n" + GENERATE)
    first, second = entries(path, ["rows=5"])
    assert first.text == TRAIN and first.place == f"{path}:1"
    assert second.text == "# --set rows=5\n---\n# synthetic\n" + GENERATE and second.place == f"{path}:7"


WRONG = {
    "misspelt kind of job": (
        TRAIN.replace("job: train", "job: trian"),
        "job.yaml:1: job is 'trian'; did you mean 'train'?",
    ),
    "no kind of job": (
        TRAIN.replace("job: train", "jop: train"),
        "job.yaml:1: the key 'job' is missing (found 'jop')",
    ),
    "kind of job is a list": (TRAIN.replace("job: train", "job: [train]"), "job.yaml:1: job is a list"),
    "misspelt key": (
        TRAIN.replace("path: lake/flights", "path: x, filtr: y"),
        "job.yaml:3: 'filtr' is not a key of source; did you mean 'filter'?",
    ),
    "misspelt section": (
        TRAIN + "trak: {experiment: x}\n",
        "job.yaml:5: 'trak' is not a key of the job; did you mean 'track'?",
    ),
    "unknown key": (TRAIN + "zzz: 1\n", "job.yaml:5: 'zzz' is not a key of the job; accepted are"),
    "key in the wrong section": (
        TRAIN + "patience: 7\n",
        "job.yaml:5: 'patience' is not a key of the job; did you mean 'fit.patience'?",
    ),
    "misspelt source": (
        TRAIN.replace("kind: parquet", "kind: parqet"),
        "job.yaml:3: source.kind is 'parqet'; did you mean 'parquet'?",
    ),
    "misspelt model": (
        TRAIN.replace("autoregressive", "autoregresive"),
        "job.yaml:4: model.kind is 'autoregresive'; did you mean 'autoregressive'?",
    ),
    "misspelt modality": (
        TRAIN + "modality: {kind: tabluar}\n",
        "job.yaml:5: modality.kind is 'tabluar'; did you mean 'tabular'?",
    ),
    "another family's key": (
        TRAIN.replace("kind: autoregressive", "kind: gan, free_bits: 1"),
        "job.yaml:4: 'free_bits' is not a key of model; did you mean 'model.free_bits'?",
    ),
    "source without kind": (
        TRAIN.replace("kind: parquet, ", ""),
        "job.yaml:3: source needs the key 'kind'; accepted are",
    ),
    "source without path": (
        TRAIN.replace(", path: lake/flights", ""),
        "job.yaml:3: source needs the key 'path'",
    ),
    "source is text": (
        TRAIN.replace("{kind: parquet, path: lake/flights}", "lake/flights"),
        "job.yaml:3: source is 'lake/flights'; expected a mapping with the keys",
    ),
    "source left out": (TRAIN.replace("source", "# source"), "job.yaml:1: the job needs the key 'source'"),
    "source empty": (
        TRAIN.replace("{kind: parquet, path: lake/flights}", ""),
        "job.yaml:3: source is empty; expected a mapping",
    ),
    "text for a number": (
        TRAIN + "fit: {max_seconds: soon}\n",
        "job.yaml:5: fit.max_seconds is 'soon'; expected a number",
    ),
    "fraction for a count": (
        TRAIN + "fit: {max_epochs: 1.5}\n",
        "job.yaml:5: fit.max_epochs is 1.5; expected a whole number",
    ),
    "number for text": (
        GENERATE.replace("models:/flights@latest", "7"),
        "job.yaml:2: model is 7; expected text; put quotes around it",
    ),
    "mapping for text": (
        GENERATE.replace("models:/flights@latest", "{kind: vae}"),
        "job.yaml:2: model is a mapping; expected text",
    ),
    "text for a list": (
        SCORE + "keep: flight\n",
        "job.yaml:5: keep is 'flight'; expected a list such as [a, b]",
    ),
    "number inside a list": (SCORE + "keep: [a, 1]\n", "job.yaml:5: keep[1] is 1; expected text"),
    "list for a mapping": (
        GENERATE + "where: [a]\n",
        "job.yaml:5: where is a list; expected a mapping such as {key: value}",
    ),
    "negative seed": (TRAIN + "fit: {seed: -7}\n", "job.yaml:5: fit.seed is -7; it must be at least 0"),
    "negative rows": (GENERATE.replace("100", "-3"), "job.yaml:3: rows is -3; it must be "),
    "no rows": (GENERATE.replace("100", "0"), "job.yaml:3: rows is 0; it must be "),
    "absurd rows": (GENERATE.replace("100", "1" + "0" * 30), "job.yaml:3: rows"),
    "rows not a number": (GENERATE.replace("100", ".nan"), "job.yaml:3: rows"),
    "rows left out": (GENERATE.replace("rows: 100\n", ""), "job.yaml:1: the job: give rows, how many"),
    "sink left out": (GENERATE.replace("sink", "# sink"), "job.yaml:1: the job needs the key 'sink'"),
    "sink is text": (
        GENERATE.replace("{path: out/synthetic}", "out"),
        "job.yaml:4: sink is 'out'; expected a mapping with the keys path",
    ),
    "sink path empty": (GENERATE.replace("out/synthetic", "''"), "job.yaml:4: sink.path: the path is empty"),
    "fdr above one": (SCORE + "fdr: 2\n", "job.yaml:5: fdr is 2; it must be "),
    "no workers": (
        TRAIN + "compute: {workers: 0}\n",
        "job.yaml:5: compute.workers is 0; it must be at least 1",
    ),
    "misspelt runner": (
        TRAIN + "compute: {runner: rey}\n",
        "job.yaml:5: compute.runner: unknown runner 'rey'",
    ),
    "bad memory size": (
        TRAIN + "compute: {object_store_memory: lots}\n",
        "job.yaml:5: compute.object_store_memory is 'lots'; expected a number of bytes",
    ),
    "list as a job": (
        "- a\n- b\n",
        "job.yaml:1: a job is a mapping that starts with `job: train`; found a list",
    ),
    "text as a job": (
        "train\n",
        "job.yaml:1: a job is a mapping that starts with `job: train`; found 'train'",
    ),
    "nothing": ("# nothing\n", "job.yaml: holds no job; start with `job: train`"),
    "key twice": (TRAIN + "name: x\n", "job.yaml:5: 'name' stands here a second time (first on line 2)"),
    "anchor": (TRAIN + "fit: &a {seed: 1}\n", "job.yaml:5: the anchor or alias 'a' is not read"),
    "tag": (TRAIN + "fit: !!map {seed: 1}\n", "job.yaml:5: the tag"),
    "tab": (TRAIN + "fit:\n\tseed: 1\n", "job.yaml:6: not readable as YAML: found character '\\t'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_fault_names_line_and_remedy(case: str, write) -> None:
    text, message = WRONG[case]
    faults = refusal(write(text))
    assert len(faults) == 1, faults
    assert faults[0].startswith(message), faults[0]


def test_all_faults_of_all_documents_are_told_at_once_in_order(write) -> None:
    text = (
        TRAIN.replace("name", "nmae")
        + "fit: {sead: 1, max_epochs: x}\n---\n"
        + GENERATE.replace("100", "-1")
        + "---\njob: skore\n"
    )
    lines = [fault.split(": ")[0] for fault in refusal(write(text))]
    assert lines == ["job.yaml:2", "job.yaml:5", "job.yaml:5", "job.yaml:9", "job.yaml:12"]


FULL = {
    "train": {
        "job": "train", "name": "n", "source": {"kind": "csv", "path": "p", "filter": "a > 1", "types": {"a": "int64"}},
        "modality": {"kind": "tabular", "exclude": ["id"]}, "model": {"kind": "vae", "latent": 3},
        "fit": {"seed": 1, "max_seconds": 2.5}, "compute": {"workers": 1}, "track": {"register": "r"},
    },
    "generate": {"job": "generate", "model": "m", "rows": 3, "where": {"a": [1, "x"]}, "sink": {"path": "o"}},
    "score": {
        "job": "score", "model": "m", "source": {"kind": "parquet", "path": "p"}, "scores": ["reconstruction"],
        "fdr": 0.1, "keep": ["a"], "sink": {"path": "o"},
    },
}  # fmt: skip
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["gan", "csv", "1e400"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["kind", "path", "job", "x", "seed"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def paths(value: object, prefix: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(path for key, inner in items for path in paths(inner, (*prefix, key)))]


@pytest.mark.parametrize("kind", FULL)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_value_at_any_place_is_accepted_or_refused_in_our_words(kind: str, data, tmp_path: Path) -> None:
    document = copy.deepcopy(FULL[kind])
    *way, last = data.draw(st.sampled_from(paths(document)[1:]))
    functools.reduce(operator.getitem, way, document)[last] = data.draw(ODD)
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    try:
        load(path)
    except InvalidSpec as error:
        for fault in str(error).splitlines():
            assert fault.startswith(f"{path}:1: "), fault
            assert "pydantic" not in fault and "Traceback" not in fault and len(fault) < 1000


def test_two_jobs_may_not_share_a_sink(write) -> None:
    (fault,) = refusal(write(GENERATE + "---\n" + SCORE.replace("out/scores", "out/synthetic/")))
    assert fault.startswith(
        "job.yaml:6: sink.path 'out/synthetic/' is already the sink of the job at job.yaml:1"
    )


def test_values_of_the_file_cannot_write_to_the_terminal(write) -> None:
    (fault,) = refusal(write(TRAIN + '"\\e[31mred": 1\n'))
    assert "\x1b" not in fault and "\\x1b[31mred" in fault


def test_a_missing_file_offers_its_neighbour(write, tmp_path: Path) -> None:
    write(TRAIN, "train_flights.yaml")
    (fault,) = refusal(tmp_path / "train_flight.yaml")
    assert fault == "train_flight.yaml: there is no such file; did you mean 'train_flights.yaml'?"


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    assert "the folder" in refusal(tmp_path / "nowhere" / "x.yaml")[0]


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)[0]


def test_other_encodings_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(TRAIN.encode() + "where: {city: Zürich}\n".encode("latin-1"))
    assert refusal(path) == ["job.yaml:5: not UTF-8 text; save the file as UTF-8"]


def test_a_byte_order_mark_is_no_fault(write) -> None:
    assert len(load(write("\ufeff" + TRAIN))) == 1


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TRAIN.replace("name", "nmae").encode())))
    with pytest.raises(InvalidSpec, match=r"^<stdin>:2: 'nmae'"):
        load("-")


def test_the_shipped_schema_is_up_to_date() -> None:
    shipped = Path(sys.modules["jobs.spec"].__file__).with_name("schema.json")
    assert shipped.read_text(encoding="utf-8") == schema_text(), "run: genai schema > jobs/schema.json"


def test_the_schema_says_what_the_classes_say() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    good = {"job": "generate", "model": "m", "rows": 1, "sink": {"path": "o"}}
    assert validator.is_valid(good)
    assert not validator.is_valid(good | {"sedd": 7})
    assert not validator.is_valid(good | {"rows": -1})
    assert not validator.is_valid({"job": "generat"} | good | {"job": "generat"})
    assert json.loads(schema_text()) == schema()
