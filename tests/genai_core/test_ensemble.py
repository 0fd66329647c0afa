"""The default score of tables: what it notices, how it is calibrated, what it is made of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

import genai_core as genai
from genai_core.catalog import OF_ANY_TABLE, build_model
from genai_core.modalities.tabular import TabularCodec
from genai_core.scores.ensemble import by_likelihood, calibrate, tail_nats
from genai_core.train import settings_to_score

ROWS = 1200


def table(rows: int, seed: int) -> pa.Table:
    """y follows x, the unit follows y, and `when` is given for one unit only."""
    random = np.random.default_rng(seed)
    x = random.lognormal(size=rows)
    y = 3 * x + random.normal(0, 0.1, rows)
    unit = np.where(y > 3, "kg", "g")
    return pa.table({
        "x": x,
        "y": y,
        "unit": unit,
        "when": pa.array(random.uniform(0, 1, rows), mask=unit == "g"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def model() -> genai.FittedModel:
    return genai.fit(table(ROWS, 0), max_epochs=1, evaluations=1, score_effort=0.5, validation_fraction=0.25)


def changed(column: str, values) -> pa.Table:
    plain = table(20, 5)
    place = plain.column_names.index(column)
    return plain.set_column(place, column, pa.array(values, plain.schema.field(column).type))


ODD = {
    "far out": ("x", [90.0] * 20),
    "against the other column": ("y", (0.2 + 3 * table(20, 5)["x"].to_numpy()[::-1]).tolist()),
    "a new category": ("unit", ["lb"] * 20),
    "a gap where there is none": ("y", [None] * 20),
    "a gap that does not fit": ("when", [None if u == "kg" else 0.5 for u in table(20, 5)["unit"].to_pylist()]),
    "not a number": ("y", [float("nan")] * 20),
}  # fmt: skip


@pytest.mark.parametrize("fault", ODD)
@pytest.mark.parametrize("name", ["ensemble", "memory", "pseudo_likelihood"])
def test_what_is_odd_is_noticed(model: genai.FittedModel, fault: str, name: str) -> None:
    column, values = ODD[fault]
    normal = model.score(table(400, 6), [name]).totals[name]
    scored = model.score(changed(column, values), [name])
    noticed = (scored.totals[name] > np.quantile(normal, 0.95)).mean()
    least = {"memory": 0.3}.get(name, 0.6) if fault == "against the other column" else 0.9
    assert noticed >= least


def test_restoring_columns_notices_what_is_far_out(model: genai.FittedModel) -> None:
    normal = model.score(table(400, 6), ["denoising"]).totals["denoising"]
    odd = model.score(changed("x", [90.0] * 20), ["denoising"]).totals["denoising"]
    assert odd.min() > np.quantile(normal, 0.95)


def test_the_column_that_is_odd_has_the_greatest_share(model: genai.FittedModel) -> None:
    scored = model.score(changed("unit", ["lb"] * 20))
    shares = scored.per_column["ensemble"]
    assert (shares >= 0).all() and np.allclose(shares.sum(1), scored.totals["ensemble"], atol=1e-3)
    assert (shares.argmax(1) == 2).mean() > 0.7


def test_p_values_of_normal_rows_are_uniform_enough(model: genai.FittedModel) -> None:
    p = model.p_values("ensemble", model.score(table(2000, 7)).totals["ensemble"])
    assert (p <= 0.1).mean() < 0.16 and (p <= 0.5).mean() < 0.6
    assert p.min() == 1 / (model.calibration_size("ensemble") + 1), "the floor"


def test_all_rows_of_a_small_table_calibrate(model: genai.FittedModel) -> None:
    assert model.calibration_size("ensemble") == model.calibration_size("memory") == ROWS
    assert model.calibration_size("negative_log_likelihood") < ROWS / 2, (
        "the model itself has seen the others"
    )


def coded(rows: int, seed: int, codes: int) -> pa.Table:
    """A number that says nothing more than the code does, among many codes."""
    code = np.random.default_rng(seed).integers(0, codes, rows)
    return pa.table({"code": [f"c{c}" for c in code], "value": code * 37 % 101})


@pytest.mark.parametrize("kind", ["autoregressive", "vae"])
def test_the_likelihood_is_a_member_by_the_rule(kind: str) -> None:
    many, few = coded(2000, 0, 60), coded(2000, 0, 30)
    models = [build_model(kind, TabularCodec.fit(t.to_batches(), t.schema).space, {}) for t in (many, few)]
    assert [by_likelihood(model) for model in models] == [kind == "autoregressive", False]
    settings = [settings_to_score(kind, t, None, 0, None) for t in (many, few)]
    assert ["max_epochs" in how for how in settings] == [kind == "vae", True], (
        "a model that is asked is trained in full"
    )


def test_a_value_of_another_code_is_noticed_by_the_likelihood() -> None:
    model = genai.fit(coded(3000, 0, 60), max_epochs=8, score_effort=0.5)
    odd = coded(200, 1, 60)
    odd = odd.set_column(1, "value", odd["value"].take(np.roll(np.arange(200), 1)))
    changed = odd["value"].to_numpy() != coded(200, 1, 60)["value"].to_numpy()
    p = model.p_values("ensemble", model.score(odd).totals["ensemble"])
    assert (p[changed] <= 0.05).mean() > 0.8 and (p[~changed] <= 0.05).mean() < 0.5


def test_tails_are_ranks_inside_and_go_on_beyond() -> None:
    values = torch.arange(1.0, 1001.0)[:, None]
    top = values[-100:]
    nats = -torch.log((1000 - torch.arange(1000) - 0.5) / 1000)
    tails = {"at": values.T, "nats": nats, "from": top[0], "excess": (top - top[0]).mean(0)}
    found = tail_nats(torch.tensor([[0.0], [500.5], [901.0], [2000.0], [4000.0]]), tails)[:, 0]
    assert torch.allclose(found[1], torch.tensor(np.log(2.0)).float(), atol=2e-3)
    assert (found.diff() > 0).all() and found[4] > found[3] + 10


def test_a_single_held_out_record_is_enough_to_go_on(model: genai.FittedModel) -> None:
    records = model.codec.encode(table(1, 3))
    x, measure = torch.from_numpy(records.tokens.astype(np.int64)), torch.from_numpy(records.log_measure)
    state = model.score_states["ensemble"]
    assert all(torch.isfinite(value).all() for value in calibrate(model.model, x, measure, state).values())


def test_scores_stay_the_same_in_an_artifact(model: genai.FittedModel, tmp_path) -> None:
    model.save(tmp_path / "model")
    again, odd = genai.load(tmp_path / "model"), changed("x", [90.0] * 20)
    for name in OF_ANY_TABLE:
        assert np.array_equal(again.score(odd, [name]).totals[name], model.score(odd, [name]).totals[name])
