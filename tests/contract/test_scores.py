"""Every property of scores, over every family and every score that it can give."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import genai_core as genai
from genai_core import catalog
from genai_core.errors import MissingCapability
from tests.contract.spaces import every_type, small_table

TABULAR = [kind for kind in catalog.MODELS if "tabular" in catalog.FAMILIES[kind].scores]
PAIRS = [(kind, score) for kind in TABULAR for score in catalog.scores_of(kind, "tabular")]


@pytest.fixture(scope="module")
def models() -> dict[str, genai.FittedModel]:
    return {kind: genai.fit(small_table(), kind, max_epochs=2) for kind in TABULAR}


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
