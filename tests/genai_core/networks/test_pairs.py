"""Large categories: a group and a member of it, and tables over both."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from genai_core.hyperparameters import TabularSettings
from genai_core.modalities.tabular import TabularCodec
from genai_core.networks.pairs import paired
from genai_core.tables.orders import position_order
from genai_core.train import new_model

ROWS, VALUES = 6000, 600


@pytest.fixture(scope="module")
def learnt() -> tuple[TabularCodec, torch.Tensor]:
    """A category of many values, the first of which are common, and what depends on it."""
    random = np.random.default_rng(0)
    value = np.minimum(random.exponential(VALUES / 5, ROWS).astype(int), VALUES - 1)
    table = pa.table(
        {
            "tail": [f"N{v:03d}" for v in value],
            "carrier": [f"c{v % 5}" for v in value],
            "seats": value * 1.5 + random.normal(size=ROWS),
        }
    )
    codec = TabularCodec.fit(table.to_batches(), table.schema, TabularSettings(rare_below=0))
    codec.columns[0].group = 25  # type: ignore[union-attr]  # as for more than 512 values
    return codec, torch.from_numpy(codec.encode(table).tokens.astype(np.int64))


def test_a_network_starts_from_the_frequency_of_every_value(learnt) -> None:
    codec, x = learnt
    model = new_model("autoregressive", codec, {}, 0).eval()
    assert paired(codec.space) == [1]
    model.initialise(x)
    with torch.no_grad():
        for part in (model.network.layers, model.network.inner, model.network.biases):
            part.zero_()  # what the untrained layers add
        of_member = model.log_prob(x)[:, 1]
    pair = x[:, 0] * 25 + x[:, 1]
    counts, groups = torch.bincount(pair)[pair], torch.bincount(x[:, 0])[x[:, 0]]
    assert (of_member - torch.log(counts / groups)).abs().max() < 0.7, (
        "a tenth of a row is added to every count"
    )
    assert (of_member - torch.log(counts / groups)).abs().mean() < 0.02


def test_scoring_by_tables_is_the_path_that_training_takes(learnt) -> None:
    codec, x = learnt
    model = new_model("autoregressive", codec, {}, 0).eval()
    model.initialise(x)
    for fields in ([0, 1, 2], [2, 1, 0]):
        order = position_order(codec.space, fields)
        with_gradients = model.network(x[:200], order)
        assert with_gradients.requires_grad
        with torch.no_grad():
            by_tables = model.network(x[:200], order)
        torch.testing.assert_close(by_tables, with_gradients.detach(), atol=1e-4, rtol=1e-4)
