"""`genai score`: reading what people have, refusing what cannot work, one score a row in order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from genai_core.errors import InvalidData, InvalidInput, SchemaMismatch
from jobs.cli import main
from jobs.quick_score import Request, fit_and_score

ROWS = 240


@pytest.fixture(autouse=True)
def few_steps(monkeypatch) -> None:
    """The networks of scores learn for a moment: what is read, refused and written does not depend on it."""
    monkeypatch.setattr("genai_core.scores.pseudo_likelihood.STEPS", 100)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Two correlated columns and noise; the last ten test rows are far out."""
    random = np.random.default_rng(5)
    x = random.normal(size=(2 * ROWS, 3))
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    train, test = x[:ROWS], x[ROWS:].copy()
    test[-10:] += 8
    np.savez(tmp_path / "train.npz", X=train)
    np.savez(tmp_path / "test.npz", X=test, y=np.zeros(ROWS))
    return {
        "train": str(tmp_path / "train.npz"),
        "test": str(tmp_path / "test.npz"),
        "out": str(tmp_path / "out.npy"),
    }


def quick(data: dict[str, str], **more) -> Request:
    return Request(**(data | {"max_seconds": 4.0} | more))


def test_matrices_in_scores_out_in_order(data, capfd) -> None:
    code = main(["score", *(f"--{name}={path}" for name, path in data.items()), "--max-seconds=4"])
    out, error = capfd.readouterr()
    line = json.loads(out.splitlines()[-1])
    assert code == 0 and line["status"] == "done" and (line["rows"], line["train_rows"]) == (ROWS, ROWS)
    scores = np.load(data["out"], allow_pickle=False)
    assert scores.shape == (ROWS,) and scores.dtype == np.float64 and np.isfinite(scores).all()
    assert set(np.argsort(scores)[-10:]) == set(range(ROWS - 10, ROWS)), (
        "the ten planted rows are the most anomalous"
    )
    assert "240 rows scored" in error


def test_tables_in_parquet_out_with_p_values(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    table = pa.table({
        "label": [0] * ROWS,
        "city": random.choice(["Bern", "Köln", None], ROWS),
        "size": random.integers(0, 50, ROWS),
    })  # fmt: skip
    pacsv.write_csv(table, tmp_path / "train.csv")
    pq.write_table(table.slice(0, 30).drop_columns(["label"]), tmp_path / "test.parquet")
    out = tmp_path / "out.parquet"
    request = Request(
        str(tmp_path / "train.csv"),
        str(tmp_path / "test.parquet"),
        str(out),
        exclude=("label",),
        max_seconds=4.0,
    )
    outcome = fit_and_score(request, quiet=True)
    found = pq.read_table(out)
    assert found.column_names == ["ensemble", "p_value"] and found.num_rows == outcome.facts["rows"] == 30
    p_values = found["p_value"].to_numpy()
    assert (p_values > 0).all() and (p_values <= 1).all()


def test_a_contaminated_reference_is_fitted_on_its_core(data, tmp_path: Path, capfd) -> None:
    random = np.random.default_rng(7)
    x = np.concatenate([random.normal(size=(ROWS, 3)), random.normal(6, 0.1, size=(ROWS // 10, 3))])
    np.savez(tmp_path / "both.npz", X=x)
    both = str(tmp_path / "both.npz")
    outcome = fit_and_score(quick(data, train=both, test=both, reference="contaminated"), quiet=False)
    assert f"trusted core: {round(0.6 * len(x))} of {len(x)} rows" in capfd.readouterr().err
    scores = np.load(outcome.facts["output"])
    assert scores[ROWS:].min() > np.quantile(scores[:ROWS], 0.95), "a dense clump of anomalies is not learnt"


def test_another_score_can_be_asked_for(data) -> None:
    outcome = fit_and_score(quick(data, score="memory"), quiet=True)
    assert outcome.facts["score"] == "memory"


def test_types_of_csv_files_are_agreed_upon(tmp_path: Path) -> None:
    from jobs.quick_score import _read, _same_columns

    (tmp_path / "a.csv").write_text("n,t\n1,2013-01-01\n2,2013-01-02\n")
    (tmp_path / "b.csv").write_text("extra,t,n\nx,2013-01-05,2.5\n")
    request = Request(str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "o.npy")
    train, test = _same_columns(_read(request.train), _read(request.test), request)
    assert train.schema == test.schema and train.schema.field("n").type == pa.float64()


WRONG = {
    "model": ({"model": "autoregresive"}, InvalidInput, "did you mean 'autoregressive'?"),
    "score": ({"score": "memry"}, InvalidInput, "did you mean 'memory'?"),
    "input form": ({"train": "x.xlsx"}, InvalidInput, "--train 'x.xlsx' ends in '.xlsx'; accepted are .npz"),
    "output form": (
        {"out": "x.txt"},
        InvalidInput,
        "--out 'x.txt' ends in '.txt'; accepted are .npy, .parquet",
    ),
    "output folder": ({"out": "/nowhere/x.npy"}, InvalidInput, "the folder '/nowhere' does not exist"),
    "missing file": ({"train": "nowhere.npz"}, InvalidInput, "nowhere.npz"),
    "excluded column": ({"exclude": ("x9",)}, InvalidInput, "--exclude 'x9' is no column of"),
    "all excluded": ({"exclude": ("x0", "x1", "x2")}, InvalidInput, "leaves no column"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_are_refused_before_anything_is_fitted(case: str, data, monkeypatch) -> None:
    monkeypatch.setattr("jobs.quick_score._fit_once", lambda *a: pytest.fail("fitted"))
    change, error, message = WRONG[case]
    with pytest.raises(error, match=message.replace("?", r"\?")):
        fit_and_score(quick(data, **change), quiet=True)


ARRAYS = {
    "no X": ({"Z": np.zeros((2, 2))}, "holds no array X; it has Z"),
    "one dimension": ({"X": np.zeros(3)}, "expected numbers in two dimensions"),
    "text": ({"X": np.array([["a", "b"]])}, "expected numbers in two dimensions"),
    "no rows": ({"X": np.zeros((0, 2))}, "holds no rows"),
    "no columns": ({"X": np.zeros((2, 0))}, "expected numbers in two dimensions"),
    "objects": ({"X": np.array([[{}]], dtype=object)}, "not readable as an .npz file of plain numbers"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_table(case: str, data, tmp_path: Path) -> None:
    arrays, message = ARRAYS[case]
    np.savez(tmp_path / "odd.npz", **arrays)
    with pytest.raises(InvalidData, match=message):
        fit_and_score(quick(data, train=str(tmp_path / "odd.npz")), quiet=True)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_a_damaged_archive_is_said_to_be_one(content: bytes, data, tmp_path: Path) -> None:
    (tmp_path / "odd.npz").write_bytes(content)
    with pytest.raises(InvalidData, match="not readable as an"):
        fit_and_score(quick(data, test=str(tmp_path / "odd.npz")), quiet=True)


def test_a_narrower_test_table_is_refused(data, tmp_path: Path) -> None:
    np.savez(tmp_path / "narrow.npz", X=np.zeros((4, 2)))
    with pytest.raises(SchemaMismatch, match="lacks 1 column"):
        fit_and_score(quick(data, test=str(tmp_path / "narrow.npz")), quiet=True)


def test_types_that_cannot_agree_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"a": [True, False]}), tmp_path / "test.parquet")
    request = Request(
        str(tmp_path / "train.parquet"), str(tmp_path / "test.parquet"), str(tmp_path / "o.npy")
    )
    with pytest.raises(SchemaMismatch, match="disagree about a column's type"):
        fit_and_score(request, quiet=True)
