"""The codec of a private fit, fitted on the stand-in of `genai_core.privacy.marginals` in place of the data."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from genai_core.hyperparameters import Privacy, TabularSettings
from genai_core.modalities.tabular import TabularCodec
from genai_core.privacy.gradients import PrivateFit
from genai_core.privacy.marginals import private_table


def private_codec(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, reading: TabularSettings, settings: Privacy
) -> tuple[TabularCodec, PrivateFit]:
    """A codec, and the fit that goes with it, which has spent a part of the budget already.

    Identifiers and relations are not looked for: they would be found in the data.
    """
    learnt = TabularCodec.learnt_columns(schema, reading)
    random = np.random.default_rng(secrets.randbits(256))
    stand_in, rows, least, spent, delta = private_table(batches, learnt, settings, random)
    of_noise = {"rare_below": 0, "clip_extremes": 0, "relations": "ignore", "identifiers": "learn"}
    codec = TabularCodec.fit(stand_in.to_batches(), schema, reading.model_copy(update=of_noise))
    codec.rows = rows
    codec.notes = (
        f"differential privacy: values in fewer than about {least:,.0f} rows are not known by name",
    )
    return codec, PrivateFit(settings, codec.encode(stand_in).tokens, (spent,), delta)
