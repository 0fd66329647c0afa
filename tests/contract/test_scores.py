"""Every property of scores, over every family, every modality and every score that it can give."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import genai_core as genai
from genai_core import catalog
from genai_core.errors import MissingCapability
from tests.contract.spaces import every_type, small_table
from tests.contract.tables import CASES, SMALL
from tests.contract.tables import PAIRS as LEARNERS

PAYLOADS = [(kind, modality) for kind, modality in LEARNERS if modality != "tabular"]
TABULAR = [kind for kind in catalog.MODELS if "tabular" in catalog.FAMILIES[kind].scores]
PAIRS = [(kind, score) for kind in TABULAR for score in catalog.scores_of(kind, "tabular")]


@pytest.fixture(scope="module")
def models() -> dict[str, genai.FittedModel]:
    return {kind: genai.fit(small_table(), kind, max_epochs=2) for kind in TABULAR}


@pytest.fixture(scope="module", params=PAYLOADS, ids="-".join)
def learnt(request: pytest.FixtureRequest) -> tuple[genai.FittedModel, pa.Table]:
    """A family that has seen a few pictures, texts or sounds; and others that it has not."""
    kind, modality = request.param
    case = CASES[modality]
    settings = {"seed": 0, "max_epochs": 1, "evaluations": 1, "batch_size": 16}
    model = genai.fit(case.table(48), kind, modality=case.modality, model=SMALL[kind], **settings)
    return model, case.table(20, seed=9)


def test_scores_of_every_modality_depend_on_the_row_alone(learnt) -> None:
    model, table = learnt
    whole = model.score(table, model.score_names)
    order = np.random.default_rng(1).permutation(20)
    shuffled = model.score(table.take(order), model.score_names)
    first = model.score(table.slice(0, 1), model.score_names)
    for name in model.score_names:
        totals = whole.totals[name]
        assert totals.shape == (20,) and np.isfinite(totals).all(), name
        assert np.array_equal(shuffled.totals[name], totals[order]), name
        assert first.totals[name][0] == totals[0], name
        if name in whole.per_column:
            assert np.allclose(whole.per_column[name].sum(1), totals, atol=1e-2), name
        p_values = model.p_values(name, totals)
        assert ((p_values > 0) & (p_values <= 1)).all(), name


def test_scores_of_every_modality_say_where(learnt) -> None:
    model, table = learnt
    for name in model.score_names:
        entries = model.entries(table, name)
        assert entries is None or entries.shape == (20, model.codec.space.entries), name
        at_once = model.score(table, [name], entries_of=name)
        assert np.array_equal(at_once.totals[name], model.score(table, [name]).totals[name]), name
        assert at_once.entries is None or np.array_equal(at_once.entries, entries), name
        if name in ("negative_log_likelihood", "patch_memory", "reconstruction") and entries is not None:
            totals = model.score(table, [name]).totals[name]
            assert np.allclose(entries.sum(1), totals, rtol=1e-3, atol=1e-2), name


def test_unreadable_rows_have_no_score_and_change_no_other(learnt) -> None:
    model, table = learnt
    whole = model.score(table)
    broken = model.score(table.take(pa.array([0, None, 2])))
    name = model.score_names[0]
    assert list(broken.faults) == [1] and np.isnan(broken.totals[name][1])
    assert np.array_equal(broken.totals[name][[0, 2]], whole.totals[name][[0, 2]])


def test_a_saved_model_samples_and_scores_as_before(learnt, tmp_path) -> None:
    model, table = learnt
    model.save(tmp_path / "model")
    again = genai.load(tmp_path / "model")
    for name in model.score_names:
        assert np.array_equal(
            again.score(table, [name]).totals[name], model.score(table, [name]).totals[name]
        )
    if (
        "samples" in model.capabilities and model.modality != "audio"
    ):  # a batch of sounds: 8 s for their phases
        drawn = model.sample(9, seed=3)
        assert drawn.schema.equals(model.schema, check_metadata=True) and drawn.num_rows == 9
        assert again.sample(9, seed=3).equals(drawn)


def test_every_score_is_given_by_some_family() -> None:
    given = {name for f in catalog.FAMILIES.values() for names in f.scores.values() for name in names}
    assert given == set(catalog.SCORES)


@pytest.mark.parametrize(("kind", "score"), PAIRS)
def test_a_row_s_score_depends_on_nothing_but_the_row(models, kind: str, score: str) -> None:
    model, table = models[kind], small_table(1100, seed=9)
    whole = model.score(table, [score]).totals[score]
    order = np.random.default_rng(1).permutation(len(whole))
    assert np.array_equal(model.score(table.take(order), [score]).totals[score], whole[order])
    parts = [
        model.score(table.slice(a, b - a), [score]).totals[score] for a, b in ((0, 1), (1, 700), (700, 1100))
    ]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("kind", "score"), PAIRS)
def test_shares_of_columns_add_up(models, kind: str, score: str) -> None:
    scored = models[kind].score(small_table(50), [score])
    if score in scored.per_column:
        assert np.allclose(scored.per_column[score].sum(1), scored.totals[score], atol=1e-3)
        assert scored.columns == ("x", "y", "n", "colour")


@pytest.mark.parametrize(("kind", "score"), PAIRS)
def test_odd_values_are_scores_and_not_errors(models, kind: str, score: str) -> None:
    odd = pa.table({"x": [1e300, None], "y": [np.nan, -1e6], "n": [77, 2], "colour": ["green", None]})
    totals = models[kind].score(odd, [score]).totals[score]
    assert np.isfinite(totals).all()


@pytest.mark.parametrize("kind", [k for k, s in PAIRS if s == "negative_log_likelihood"])
def test_unseen_missing_and_far_values_stay_visible(models, kind: str) -> None:
    name = "negative_log_likelihood"
    usual = {"x": [0.1], "y": [0.1], "n": [2], "colour": ["red"]}
    base = models[kind].score(pa.table(usual), [name]).totals[name][0]
    far = {}
    for column, value in (("colour", "green"), ("colour", None), ("y", 50.0), ("n", 77)):
        far[column, value] = (
            models[kind]
            .score(pa.table(usual | {column: pa.array([value], pa.table(usual)[column].type)}), [name])
            .totals[name][0]
        )
    assert min(far.values()) > base + 1, far
    near = models[kind].score(pa.table(usual | {"y": [10.0]}), [name]).totals[name][0]
    assert far["y", 50.0] > near + 1, "distance beyond the range must not be forgotten"


@pytest.mark.parametrize("kind", TABULAR)
def test_a_score_that_a_family_cannot_give_is_refused(models, kind: str) -> None:
    for score in set(catalog.SCORES) - set(catalog.scores_of(kind, "tabular")):
        with pytest.raises(MissingCapability, match="it can give"):
            models[kind].score(small_table(5), [score])


@pytest.mark.parametrize("kind", TABULAR)
def test_every_type_can_be_learnt_written_and_scored(kind: str) -> None:
    table = every_type()
    model = genai.fit(table, kind, max_epochs=1)
    assert model.sample(50).schema.equals(table.schema, check_metadata=True)
    assert np.isfinite(model.score(table).totals[model.score_names[0]]).all()
