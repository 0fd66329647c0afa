"""The autoencoder of codes: it learns, is the same for equal seeds, and treats each picture by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genai_core.pictures import codes
from genai_core.spaces import Grid


def discs(rows: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Coloured discs on a coloured ground, uint8 (rows, 3, side, side)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    centre = random.uniform(0.2, 0.8, (rows, 2, 1, 1)) * side
    inside = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 < (side / 4) ** 2
    ground, colour = random.integers(0, 256, (2, rows, 3, 1, 1))
    return np.where(inside[:, None], colour, ground).astype(np.uint8)


@pytest.fixture(scope="module")
def model() -> codes.CodeAutoencoder:
    return codes.fit(discs(200), codes=512, factor=4, channels=16, steps=150, seed=3)


def psnr(model: codes.CodeAutoencoder, pixels: np.ndarray) -> float:
    made = codes.decode(model, codes.encode(model, pixels), *pixels.shape[2:])
    return 10 * np.log10(255**2 / np.square(made.astype(float) - pixels).mean())


def test_pictures_come_back_and_many_codes_are_used(model: codes.CodeAutoencoder) -> None:
    held_out = discs(64, seed=9)
    of_one_colour = held_out.mean((2, 3), keepdims=True)  # each picture as its own mean
    error = np.square(np.rint(of_one_colour) - held_out.astype(float)).mean()
    untrained = codes.fit(discs(64), codes=512, factor=4, channels=16, steps=1, seed=3)
    assert psnr(model, held_out) > max(10 * np.log10(255**2 / error), psnr(untrained, held_out) + 3)
    assert codes.fidelity(model, discs(64))["perplexity"] > 30, "of 512"


def test_equal_seeds_give_equal_weights_and_others_others(model: codes.CodeAutoencoder) -> None:
    first, again, other = (codes.fit(discs(40), 64, 2, 4, 5, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_picture_s_codes_depend_on_nothing_but_the_picture(model: codes.CodeAutoencoder) -> None:
    pixels = discs(70, seed=5)
    whole = codes.encode(model, pixels)
    order = np.random.default_rng(0).permutation(70)
    assert np.array_equal(codes.encode(model, pixels[order]), whole[order])
    assert np.array_equal(codes.encode(model, pixels[:1]), whole[:1])
    made = codes.decode(model, whole, 16, 16)
    assert np.array_equal(codes.decode(model, whole[order], 16, 16), made[order])
    assert codes.encode(model, pixels[:0]).shape == (0, 16)


@pytest.mark.parametrize("number", [64, 512, 4096])
@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_codes_and_sides_are_as_asked_for(number: int, factor: int) -> None:
    torch.manual_seed(0)
    model = codes.CodeAutoencoder(Grid(1, 20, 33), number, factor, 4).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 20, 33)).astype(np.uint8)
    found = codes.encode(model, pixels)
    assert found.shape == (3, -(-20 // factor) * -(-33 // factor))
    assert found.min() >= 0 and found.max() < number
    assert codes.decode(model, found, 20, 33).shape == pixels.shape
    highest = np.full_like(found, number - 1)
    assert codes.decode(model, highest, 20, 33).shape == pixels.shape, "every code can be decoded"


def test_rounding_is_undone_but_for_the_rounding() -> None:
    """Codes that are taken apart are the numbers that they were made of."""
    model = codes.CodeAutoencoder(Grid(1, 8, 8), 512, 8, 4)
    seen: list[torch.Tensor] = []
    model._decoded = seen.append  # type: ignore[method-assign, assignment]
    numbers = torch.rand(5, 3, 2, 2)
    model._numbers = lambda _: torch.logit(numbers)  # type: ignore[method-assign, assignment]
    model.pictures(model.codes(torch.zeros(5, 1, 8, 8)))
    assert (seen[0] - numbers).abs().max() <= 0.5 / codes.LEVELS + 1e-6


def test_weights_of_another_autoencoder_are_refused(model: codes.CodeAutoencoder) -> None:
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    codes.restored(weights, 3, 512, 4, 16)
    with pytest.raises(RuntimeError, match="size mismatch"):
        codes.restored(weights, 3, 512, 4, 8)
    odd = dict(weights, **{"to_pixels.bias": np.full_like(weights["to_pixels.bias"], np.nan)})
    with pytest.raises(ValueError, match="finite"):
        codes.restored(odd, 3, 512, 4, 16)


def test_what_keeps_codes_in_use_asks_for_even_and_independent_numbers() -> None:
    even = torch.rand(4000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    equal = even[:, :1].expand(-1, 3, -1, -1)
    assert codes._uneven(even) < 1e-3 and codes._uneven(equal) > 0.5
    assert codes._uneven(torch.full((4, 3, 2, 2), 0.5)) > 0.3, "one code for everything"
    assert torch.isfinite(codes._uneven(torch.rand(1, 3, 1, 1)))
