"""Translate jobs: every row once, in the other domain; what is there already stays, what is unreadable is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genai_core import fit, load
from genai_core.errors import InvalidInput, MissingCapability, SchemaMismatch
from pipelines import translate
from pipelines.context import Context
from pipelines.translate import TranslateJob

ROWS = 60
CORRUPT = 7


def levels(rows: int = ROWS) -> np.ndarray:
    """Bright strokes on dark in even rows, dark ones on bright in odd rows."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 30, (rows, 8, 8)).astype(np.uint8)
    for picture in pictures:
        picture[:, random.integers(1, 7)] = 240
    pictures[1::2] = 255 - pictures[1::2]
    return pictures


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def pixels_of(column: pa.ChunkedArray) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data))) for data in column.to_pylist()]


@pytest.fixture(scope="module")
def pictures() -> pa.Table:
    return pa.table(
        {
            "id": range(ROWS),
            "picture": [png(one) for one in levels()],
            "side": pa.array(["dark", "light"] * (ROWS // 2)),
        }
    )


@pytest.fixture(scope="module")
def translator(pictures: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    fitted = fit(
        pictures,
        "cyclegan",
        modality={"kind": "image", "column": "picture", "label": "side"},
        model={"channels": 4, "blocks": 1},
        max_epochs=1,
        evaluations=1,
        validation_fraction=0.4,
    )
    directory = tmp_path_factory.mktemp("translator") / "model"
    fitted.save(directory)
    return directory


@pytest.fixture
def spec(workplace: Path, pictures: pa.Table, translator: Path) -> dict[str, Any]:
    """A lake of two files, one of its pictures cut short."""
    data = pictures.column("picture").to_pylist()
    data[CORRUPT] = data[CORRUPT][:40]
    table = pictures.set_column(1, "picture", pa.array(data))
    Path("lake").mkdir()
    for name, start, rows in (("a", 0, 40), ("b", 40, 20)):
        pq.write_table(table.slice(start, rows), f"lake/{name}.parquet", row_group_size=10)
    source = {"kind": "parquet", "path": "lake"}
    return {"model": str(translator), "source": source, "to": "light", "track": {"enabled": False}}


def job(spec: dict[str, Any], out: str = "out", **changes: Any) -> TranslateJob:
    return TranslateJob.model_validate({"sink": {"path": out}, **spec, **changes})


def run(spec: dict[str, Any], out: str = "out", **changes: Any) -> dict[str, Any]:
    return translate.run(job(spec, out, **changes), Context(log=lambda text: None))


def output(out: str = "out") -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(Path(out, "data").iterdir())])


def test_every_row_once_in_the_other_domain(spec: dict[str, Any], translator: Path) -> None:
    result = run(spec, keep=["id"], rows_per_shard=20)
    found = output()
    assert (result["rows"], result["shards"]) == (ROWS, 3)
    assert found.schema.names == ["id", "source_file", "source_row", "picture", "side", "fault"]
    assert found.column("id").to_pylist() == list(range(ROWS))
    assert found.column("source_row").to_pylist() == [*range(40), *range(20)]
    assert found.column("source_file").to_pylist() == ["a.parquet"] * 40 + ["b.parquet"] * 20
    fine = found.filter(pa.compute.is_null(found.column("fault")))
    assert fine.num_rows == ROWS - 1
    assert set(fine.column("side").to_pylist()) == {"light"}
    made, before = pixels_of(fine.column("picture")), levels()
    for row, pixels in zip(fine.column("id").to_pylist(), made, strict=True):
        assert np.array_equal(pixels, before[row]) == bool(row % 2)  # odd rows were there already
    again, faults = load(translator).translate(pq.read_table("lake/a.parquet"), "light")
    assert set(faults) == {CORRUPT}
    assert again.column("picture").to_pylist() == found.column("picture").to_pylist()[:40]


def test_what_cannot_be_read_is_null_says_why_and_is_counted(spec: dict[str, Any]) -> None:
    run(spec)
    row = output().to_pylist()[CORRUPT]
    assert row["picture"] is None and row["side"] is None and row["fault"]
    (record,) = (json.loads(path.read_text()) for path in Path("out/_shards").iterdir())
    assert sum(record["faults"].values()) == 1


def test_tensors_with_an_unreadable_row(workplace: Path) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(levels())
    table = pa.table({"picture": tensors, "side": [False, True] * (ROWS // 2)})
    reading = {"kind": "image", "label": "side"}
    small = {"channels": 4, "blocks": 1}
    fit(table, "cyclegan", modality=reading, model=small, max_epochs=1, validation_fraction=0.4).save("model")
    sides = [None if i == CORRUPT else bool(i % 2) for i in range(ROWS)]
    Path("lake").mkdir()
    pq.write_table(table.set_column(1, "side", pa.array(sides)), "lake/x.parquet")
    spec = {"model": "model", "source": {"kind": "parquet", "path": "lake"}, "track": {"enabled": False}}
    run(spec, to=True)
    found = output()
    assert found.schema.field("picture").type == tensors.type
    assert found.column("side").null_count == 1
    assert not np.any(found.column("picture")[CORRUPT].as_py())  # Parquet's null tensors cannot be read back
    assert "label missing" in found.column("fault")[CORRUPT].as_py()
    assert found.column("picture")[1].as_py() == tensors[1].as_py()


def test_how_rows_are_cut_into_shards_and_who_works_does_not_matter(spec: dict[str, Any]) -> None:
    run(spec, "small", rows_per_shard=10)
    run(spec, "large")
    assert output("small").to_pylist() == output("large").to_pylist()


def test_the_same_job_is_not_done_again(spec: dict[str, Any]) -> None:
    first, again = run(spec), run(spec)
    assert again["reused"]
    assert again["manifest"] == first["manifest"]


def test_the_manifest_says_that_rows_are_made_and_of_what(spec: dict[str, Any], translator: Path) -> None:
    run(spec)
    provenance = json.loads(Path("out/_MANIFEST.json").read_text())["provenance"]
    assert provenance["synthetic"] is True
    assert provenance["verb"] == "translate"
    assert provenance["source"]["path"] == "lake"
    assert provenance["model"] == {
        "uri": str(translator),
        "digest": load(translator).digest,
        "kind": "cyclegan",
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"to": "lihgt"}, InvalidInput, "to: side: 'lihgt' is no class.*did you mean 'light'.*dark, light"),
        ({"keep": ["idd"]}, InvalidInput, "no column 'idd'; did you mean 'id'"),
        ({"keep": ["picture"]}, InvalidInput, "a column 'picture' of its own"),
        ({"sink": {"path": "lake/light"}}, InvalidInput, "lies in the source lake"),
        ({"source": {"kind": "parquet", "path": "lake", "columns": ["id"]}}, SchemaMismatch, "picture"),
        ({"model": "tables"}, MissingCapability, "this autoregressive model cannot translate"),
    ],
)
def test_what_cannot_work_is_refused_by_check_and_by_run_and_nothing_is_written(
    spec: dict[str, Any], small_model: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    if changes.get("model"):
        changes = {"model": str(small_model)}
    before = sorted(Path().rglob("*"))
    for act in (translate.check, translate.run):
        with pytest.raises(error, match=message):
            act(job(spec, **changes), Context(log=lambda text: None))
    assert sorted(Path().rglob("*")) == before


def test_check_says_what_will_happen(spec: dict[str, Any]) -> None:
    facts = translate.check(job(spec), Context())
    assert "to: light" in facts
    assert f"source: {ROWS} rows before the filter in 2 file(s)" in facts
    assert "output: out (free)" in facts
    assert not Path("out").exists()
