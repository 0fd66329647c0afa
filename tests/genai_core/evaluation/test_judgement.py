"""The whole evaluation: what is wrong with a synthetic table is found by the measure that is there for it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from genai_core.errors import InvalidData, SchemaMismatch
from genai_core.evaluation import MEASURES, Evaluation, evaluate
from genai_core.evaluation.verdicts import verdicts

ROWS = 1000


def people(seed: int, rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(seed)
    town = random.choice(["Bern", "Oslo", "Rome", "Kyiv"], rows, p=[0.5, 0.3, 0.15, 0.05])
    age = random.normal(40, 12, rows).round(1)
    income = (age * 100 + (town == "Oslo") * 2000 + random.normal(0, 300, rows)).round(0)
    likes = np.where(income + random.normal(0, 500, rows) > 4500, "tea", "coffee")
    extra = random.normal(0, 1, (3, rows)).round(3)
    names = dict(zip("abc", extra, strict=True))
    return pa.table({"town": town, "age": age, "income": income, "likes": likes, **names})


REAL, HOLDOUT = people(1), people(2)


def judged(synthetic: pa.Table, **more: object) -> Evaluation:
    return evaluate(REAL, HOLDOUT, synthetic, seed=5, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def good() -> Evaluation:
    return judged(people(3), target="likes")


def test_real_rows_pass_as_synthetic_ones_and_every_figure_has_its_interval(good: Evaluation) -> None:
    for name, measure in good.measures.items():
        made, real = measure.synthetic, measure.real
        assert name in MEASURES and real is not None
        assert made.low <= made.value <= made.high, name
        spread = made.high - made.low + real.high - real.low
        assert abs(made.value - real.value) <= max(spread, 0.02), name
    assert {"utility", "copies", "singling_out", "lost_categories"} <= set(good.measures)
    assert {one.about: one.mark for one in verdicts(good)} == dict.fromkeys(
        ("fidelity", "diversity", "utility", "privacy"), "good"
    )


def test_a_dropped_class_is_named_although_the_classifier_hardly_sees_it() -> None:
    made = people(3, 3000)
    made = made.filter(pc.not_equal(made["town"], "Kyiv")).slice(0, ROWS)
    found = judged(made)
    lost = found.details["lost_categories"]["synthetic"]["lost"]
    assert [(one["column"], one["value"], one["found"]) for one in lost] == [("town", "Kyiv", 0)]
    assert found["c2st_auc"].value < 0.56
    diversity = next(one for one in verdicts(found) if one.about == "diversity")
    assert diversity.mark == "poor" and "town = Kyiv never occurs" in diversity.text


def test_copies_are_found_among_all_training_rows_and_by_every_attack(good: Evaluation) -> None:
    parts = [REAL.slice(start, 250) for start in range(0, ROWS, 250)]
    found = judged(pa.concat_tables([people(3).slice(0, 500), REAL.slice(0, 500)]), all_real=iter(parts))
    assert found["copies"].value == 0.5 and found.details["searched"] == ROWS
    assert good["copies"].value == 0
    for name in ("nearer_to_train", "close_to_train", "membership_auc"):
        assert found[name].low > good[name].high, name
    assert found["singling_out"].value > found.measures["singling_out"].real.high  # type: ignore[union-attr]
    assert next(one for one in verdicts(found) if one.about == "privacy").mark == "poor"


def test_unseen_records_of_another_kind_prove_nothing_about_privacy_but_copies_still_do() -> None:
    later = HOLDOUT.set_column(1, "age", pc.add(HOLDOUT["age"], 15.0))
    found = evaluate(REAL, later, people(3), seed=5)
    assert found["nearer_to_train"].low > 0.53  # since the unseen ones are older
    privacy = next(one for one in verdicts(found) if one.about == "privacy")
    assert privacy.mark == "fair" and "hold out records at random" in privacy.text
    copied = evaluate(REAL, later, pa.concat_tables([people(3).slice(0, 500), REAL.slice(0, 500)]), seed=5)
    privacy = next(one for one in verdicts(copied) if one.about == "privacy")
    assert privacy.mark == "poor" and "copies" in privacy.text


def test_a_shuffled_column_is_what_gives_the_rows_away(good: Evaluation) -> None:
    made = people(3)
    order = pa.array(np.random.default_rng(0).permutation(ROWS))
    made = made.set_column(2, "income", made["income"].take(order))
    found = judged(made, target="likes")
    assert found.details["giveaways"][0]["column"] in ("income", "age")
    assert found["c2st_auc"].low > 0.7 and found["pair_trends"].high < good["pair_trends"].low
    assert found["column_shapes"].value > 0.95  # column by column nothing is wrong
    assert found["utility"].value < good["utility"].low


def test_a_table_that_collapsed_has_no_recall_and_no_coverage() -> None:
    made = people(3, 20).take(pa.array(np.random.default_rng(0).integers(0, 20, ROWS)))
    found = judged(made)
    assert found["coverage"].value < 0.3 and found["recall"].value < 0.3
    assert found["lost_clusters"].value > 0


def test_tables_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="town"):
        judged(people(3).drop_columns(["town"]))
    with pytest.raises(InvalidData, match="at least 50"):
        judged(people(3, 20))
    with pytest.raises(InvalidData, match="target"):
        judged(people(3), target="tea")


def test_pictures_are_compared_in_features_and_copies_found() -> None:
    def pictures(seed: int, rows: int = 100) -> pa.Table:
        import io

        from PIL import Image

        random = np.random.default_rng(seed)
        cells = []
        for _ in range(rows):
            x, y, size = random.integers(2, 12), random.integers(2, 12), random.integers(3, 9)
            levels = random.normal(40, 8, (24, 24)).clip(0, 255)
            levels[y : y + size, x : x + size] = 200
            file = io.BytesIO()
            Image.fromarray(levels.astype(np.uint8)).save(file, "PNG")
            cells.append(file.getvalue())
        return pa.table({"image": pa.array(cells, pa.binary())})

    real, holdout = pictures(1), pictures(2)
    fine = evaluate(real, holdout, pictures(3), modality="image", column="image")
    copied = evaluate(
        real,
        holdout,
        pa.concat_tables([real.slice(0, 50), pictures(4, 50)]),
        modality="image",
        column="image",
    )
    assert fine["copies"].value == 0 and copied["copies"].value == 0.5
    again = evaluate(real, holdout, pictures(3), modality="image", column="image")
    assert again.as_dict() == fine.as_dict()  # the same seed, the same figures
    assert fine["c2st_auc"].low <= 0.5 and "column_shapes" not in fine.measures
    flat = pa.table({"image": real["image"].take(pa.array(np.arange(100) % 3))})
    collapsed = evaluate(real, holdout, flat, modality="image", column="image")
    assert collapsed["coverage"].value < 0.3 < fine["coverage"].value
