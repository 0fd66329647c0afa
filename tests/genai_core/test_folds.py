"""Rows meet only what was fitted without them."""

from __future__ import annotations

import torch

from genai_core.folds import FEW, FOLDS, as_part, folds_of, mean, out_of_fold, parts


def state_of(values: list[float]) -> dict[str, torch.Tensor]:
    state = {"shared": torch.tensor(100.0)}
    for number, value in enumerate(values):
        state |= as_part(number, {"v": torch.tensor(value)})
    return state


def test_a_score_is_the_mean_over_the_parts() -> None:
    state = state_of([1.0, 2.0, 6.0])
    assert [float(part["v"]) for part in parts(state)] == [1.0, 2.0, 6.0]
    assert float(mean(state, lambda part: part["v"])) == 3.0


def test_rows_are_scored_by_the_part_that_was_fitted_without_them_in_their_own_order() -> None:
    folds = torch.tensor([2, 0, 1, 0, 2])

    def scored(own, rows):
        assert len(parts(own)) == 1 and "shared" in own
        return own["shared"] + parts(own)[0]["v"] + rows / 10

    found = out_of_fold(state_of([1.0, 2.0, 6.0]), folds, scored)
    assert torch.allclose(found, torch.tensor([106.0, 101.1, 102.2, 101.3, 106.4]))


def test_only_small_tables_are_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    folds = folds_of(1000, generator)
    assert folds is not None and torch.bincount(folds).tolist() == [1000 // FOLDS] * FOLDS
    assert folds_of(FEW + 1, generator) is None and folds_of(FOLDS - 1, generator) is None
