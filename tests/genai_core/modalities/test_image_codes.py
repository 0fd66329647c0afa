"""Larger pictures as codes: what is peculiar to them; the contract tests hold for them as for all modalities."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import genai_core as genai
from genai_core import catalog
from genai_core.errors import InvalidArtifact, InvalidData, MissingCapability
from genai_core.hyperparameters import ImageCodesSettings
from genai_core.modalities import image_codes
from genai_core.modalities.image_codes import ImageCodesCodec
from genai_core.spaces import Sequence
from tests.contract.tables import encoded

SMALL: dict[str, Any] = {"codes": 64, "factor": 4, "channels": 4, "steps": 3}


def table(rows: int = 24, high: int = 10, wide: int = 13, seed: int = 0) -> pa.Table:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, high, wide, 3)).astype(np.uint8)
    return pa.table({"picture": [encoded(p) for p in pixels], "kind": ["cat", "owl"] * (rows // 2)})


def fitted(data: pa.Table, batch: int = 5, **settings: Any) -> ImageCodesCodec:
    how = ImageCodesSettings(**{**SMALL, **settings})
    return ImageCodesCodec.fit(data.to_batches(max_chunksize=batch), data.schema, how)


def test_a_record_is_its_label_and_codes_in_raster_order() -> None:
    data = table()
    codec = fitted(data, label="kind")
    space = codec.space
    assert isinstance(space, Sequence) and not space.ordered and space.end is None
    assert (space.vocabulary, space.length, space.classes) == (64, 3 * 4, 2)
    records = codec.encode(data)
    assert records.tokens[:, 0].tolist() == [0, 1] * 12 and len(np.unique(records.tokens[:, 1:])) > 10
    made = codec.pixels(records.tokens)
    assert made.shape == (24, 3, 10, 13)
    changed = records.tokens.copy()
    changed[:, -1] = (changed[:, -1] + 32) % 64
    moved = np.abs(codec.pixels(changed).astype(int) - made).sum((0, 1))
    assert moved[8:, 12:].mean() > 20 * moved[:4, :4].mean(), "the last code is the corner at the right"


def test_the_seed_of_the_fit_is_the_autoencoder_s_and_batches_do_not_matter() -> None:
    data, settings = table(), ImageCodesSettings(**SMALL)
    assert settings.for_job("autoregressive", 5).seed == 5
    assert settings.model_copy(update={"seed": 3}).for_job("autoregressive", 5).seed == 3
    first = fitted(data, seed=1).fingerprint
    assert fitted(data, batch=24, seed=1).fingerprint == first != fitted(data, seed=2).fingerprint


def test_the_sample_is_bounded_and_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_codes, "SAMPLE_PICTURES", 30)
    monkeypatch.setattr(image_codes, "MAX_CROP", 8)
    seen: list[np.ndarray] = []
    from genai_core.pictures import codes

    fit = codes.fit
    monkeypatch.setattr(codes, "fit", lambda pixels, **how: seen.append(pixels) or fit(pixels, **how))
    numbers = np.arange(240)
    pixels = np.broadcast_to(numbers[:, None, None], (240, 9, 11)).astype(np.uint8)
    cells = [encoded(p) for p in pixels]
    cells[7] = b"no picture"
    for batch in (7, 240):
        fitted(pa.table({"picture": pa.array(cells)}), batch)
    assert seen[0].shape == (30, 1, 8, 8) and np.array_equal(*seen)
    kept = seen[0][:, 0, 0, 0]
    assert len(set(kept.tolist())) == 30 and 7 not in kept and 60 < kept.mean() < 180
    assert (seen[0] == kept[:, None, None, None]).all()


def test_the_state_is_all_of_it_and_a_forged_one_is_refused() -> None:
    data = table()
    codec = fitted(data, label="kind")
    state, weights = codec.state()
    again = ImageCodesCodec.from_state(json.loads(json.dumps(state)), weights)
    assert again.fingerprint == codec.fingerprint and again.notes == codec.notes
    assert np.array_equal(again.encode(data).tokens, codec.encode(data).tokens)
    for forged in ({"factor": 3}, {"codes": 10**9}, {"codes": True}, {"channels": 10**9}):
        with pytest.raises(ValueError, match="accepted are"):
            ImageCodesCodec.from_state(state | {"autoencoder": state["autoencoder"] | forged}, weights)
    with pytest.raises(ValueError, match="more codes"):
        ImageCodesCodec.from_state(state | {"frame": [3, 4096, 4096, "resize"]}, weights)
    other = ImageCodesCodec.from_state(
        state | {"autoencoder": state["autoencoder"] | {"channels": 8}}, weights
    )
    with pytest.raises(InvalidArtifact, match="does not fit together"):
        other.encode(data)


def test_heat_is_spread_over_the_pixels_of_a_code() -> None:
    data = table()
    codec = fitted(data, label="kind")
    entries = np.zeros((24, 13), np.float32)
    entries[:, 1 + 1 * 4 + 2] = 32  # second row, third column of the codes
    heat = codec.heat(entries[:, 1:])
    assert heat.shape == (24, 10, 13) and (heat[:, 4:8, 8:12] == 2).all() and heat[0].sum() == 32
    reason = codec.explain(data, entries)["why"][0][0]
    assert reason["column"] == "picture" and reason["nats"] == 32 and "rows" in reason["value"]


def test_what_the_codes_keep_is_noted() -> None:
    first, second = fitted(table(), label="kind").notes
    assert "3 x 4 codes of 64" in first and "dB" in first and "not of the pixels" in second


def test_unreadable_pictures_and_too_many_codes_are_said() -> None:
    data = table()
    broken = data.set_column(0, "picture", pa.array([None, b"", *data["picture"].to_pylist()[2:]]))
    assert sorted(fitted(broken).encode(broken).faults) == [0, 1]
    with pytest.raises(InvalidData, match=r"16,384 codes with modality.factor 2; at most 4,096"):
        fitted(data, size=(256, 256), factor=2)
    with pytest.raises(InvalidData, match="none of the 12 pictures"):
        fitted(pa.table({"picture": pa.array([None] * 12, pa.binary())}))


@pytest.mark.parametrize("kind", [kind for kind in catalog.MODELS if kind != "autoregressive"])
def test_families_that_cannot_use_codes_say_so(kind: str) -> None:
    with pytest.raises(MissingCapability, match="for image_codes there are: autoregressive"):
        genai.fit(table(), kind, modality={"kind": "image_codes", **SMALL})
