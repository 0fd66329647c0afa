"""An autoregressive model of a table without scores, whose fit would take most of the time."""

from __future__ import annotations

import pyarrow as pa

from genai_core.fitted import FittedModel
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.modalities.tabular import TabularCodec
from genai_core.train import new_model


def learnt(table: pa.Table, epochs: int) -> FittedModel:
    """It draws, and gives likelihoods."""
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    tokens = codec.encode(table).tokens
    network = new_model("autoregressive", codec, {}, 0)
    Fit(network, tokens[200:], tokens[:200], FitSettings(max_epochs=epochs, batch_size=128)).run()
    return FittedModel("autoregressive", "tabular", codec, network.eval())
