"""Pictures from end to end, by the job files that ship: a folder is learnt, pictures are drawn, scored and shown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jobs.execute import Voice, check_file, run_file

SPECS = Path(__file__).parents[2] / "jobs" / "specs"
SMALL = {
    "autoregressive": ["model.hidden=16", "model.layers=1"],
    "dcgan": ["model.channels=4", "model.latent=4"],
    "gan": ["model.channels=4", "model.latent=4"],
    "vae": ["model.channels=4", "model.hidden=16", "model.importance_samples=2"],
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """180 digits, in the folders of their classes, and two files that are no pictures."""
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images[:180], digits.target, strict=False)):
        folder = Path("lake/digits") / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).save(folder / f"{number:03}.png")
    Path("lake/digits/3/empty.png").write_bytes(b"")
    Path("lake/digits/3/torn.png").write_bytes(Path("lake/digits/3/003.png").read_bytes()[:60])
    return tmp_path


def run(spec: str, *changes: str) -> dict[str, Any]:
    """What the job of a shipped file says of itself, with changes."""
    changes = ("track.enabled=false", *changes)
    outcome = run_file(str(SPECS / f"{spec}.yaml"), changes, Voice(quiet=True), lambda _: None)
    assert outcome.code == 0, outcome.sentence
    return outcome.line()


def train(kind: str) -> dict[str, Any]:
    changes = ("fit.max_epochs=1", "fit.evaluations=1", "sink.path=model", *SMALL[kind])
    return run(f"train_images_{kind}", *changes)


def test_pictures_are_learnt_drawn_by_class_and_scored(workplace: Path) -> None:
    unreadable = {"empty": 1, "truncated": 1}
    assert train("autoregressive")["unreadable"] == unreadable
    made = run("generate_images", "model=model", "rows=10")
    table = pq.read_table("out/synthetic-digits/data")
    assert made["overview"] == "_contact_sheet.png" and table.column_names == ["image", "label"]
    assert table["label"].to_pylist() == ["7"] * 10
    assert {Image.open(io.BytesIO(data)).size for data in table["image"].to_pylist()} == {(8, 8)}

    done = run("score_images", "model=model", "fdr=null", "top_k=5")
    scored = pq.read_table("out/odd-digits/data")
    assert done["rows"] == scored.num_rows == 182 and done["overview"] == "_contact_sheet.png"
    assert done["unreadable"] == unreadable
    faults = scored.filter(scored["fault"].is_valid()).to_pylist()
    assert {row["file"]: row["fault"].partition(":")[0] for row in faults} == {
        "3/empty.png": "empty",
        "3/torn.png": "truncated",
    }
    assert all(row["complexity"] is None and row["why"] is None for row in faults)
    odd = pq.read_table("out/odd-digits/_anomalies.parquet").to_pylist()
    assert len(odd) == 5 and odd[0]["complexity"] == max(row["complexity"] for row in odd)
    assert {Image.open(io.BytesIO(row["heat_map"])).size for row in odd} == {(8, 8)}, "faults take no place"
    assert any("rows" in why["value"] for why in odd[0]["why"] if why["column"] == "image")
    done = run("score_images", "model=model", "fdr=1e-9", "sink.path=out/none")
    assert done["flagged"] == 0 and "overview" not in done, "there is nothing to show"


def test_contact_sheets_show_the_pictures_and_belong_to_the_output(workplace: Path) -> None:
    train("vae")
    run("generate_images", "model=model", "rows=70", "where={}")
    sheet = Path("out/synthetic-digits/_contact_sheet.png")
    image = Image.open(sheet)
    first = Image.open(io.BytesIO(pq.read_table("out/synthetic-digits/data")["image"][0].as_py()))
    assert image.width > 8 * 112 and image.height > 8 * 112, "64 of the 70"
    assert np.array_equal(np.asarray(image)[15:120:14, 15:120:14, 0], np.asarray(first)), (
        "the first, enlarged"
    )
    manifest = json.loads(Path("out/synthetic-digits/_MANIFEST.json").read_text())
    assert manifest["summary"]["overview"] == sheet.name

    run("score_images", "model=model", "fdr=null", "top_k=5")
    shown = np.asarray(Image.open("out/odd-digits/_contact_sheet.png").convert("RGB")).astype(int)
    assert (shown[..., 0] - shown[..., 2] > 100).any(), "heat maps are red"


@pytest.mark.parametrize("kind", ["dcgan", "gan"])
def test_adversarial_families_learn_and_draw_pictures(workplace: Path, kind: str) -> None:
    train(kind)
    run("generate_images", "model=model", "rows=5")
    assert pq.read_table("out/synthetic-digits/data")["label"].to_pylist() == ["7"] * 5


def test_larger_pictures_are_learnt_as_codes_drawn_and_scored(workplace: Path) -> None:
    small = [
        f"modality.{setting}"
        for setting in ("codes=64", "factor=4", "channels=4", "steps=3", "size=[20, 20]")
    ]
    fit = ["fit.max_epochs=1", "fit.evaluations=1", "fit.max_seconds=null", *SMALL["autoregressive"]]
    learn = ("source.path=lake/digits", "sink.path=model", *small, *fit)
    assert run("train_images_codes", *learn)["unreadable"] == {"empty": 1, "truncated": 1}
    made = run("generate_images", "model=model", "rows=10")
    table = pq.read_table("out/synthetic-digits/data")
    assert made["overview"] == "_contact_sheet.png" and table["label"].to_pylist() == ["7"] * 10
    assert {Image.open(io.BytesIO(data)).size for data in table["image"].to_pylist()} == {(20, 20)}
    done = run("score_images", "model=model", "fdr=null", "top_k=5")
    assert done["rows"] == 182 and done["overview"] == "_contact_sheet.png"
    odd = pq.read_table("out/odd-digits/_anomalies.parquet").to_pylist()
    assert {Image.open(io.BytesIO(row["heat_map"])).size for row in odd} == {(20, 20)}
    assert all(row["why"] and np.isfinite(row["likelihood_ratio"]) for row in odd)


def test_a_family_that_cannot_use_codes_is_refused_before_anything_is_read(workplace: Path) -> None:
    spec = str(SPECS / "train_images_codes.yaml")
    changes = ("track.enabled=false", "sink.path=model", "source.path=lake/digits", "model.kind=dcgan")
    outcome = check_file(spec, changes, Voice(quiet=True))
    assert outcome.code != 0 and "for image_codes there are: autoregressive" in outcome.sentence
