"""N-gram counts: Kneser-Ney by hand, blocks left out, overlapping windows."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from genai_core.networks.ngrams import BLOCKS, LONGEST, NGrams, longest

VOCABULARY, LENGTH = 5, 9


def texts(rows: int = 80, length: int = LENGTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (rows, length), generator=generator).square() % VOCABULARY


def counted(x: torch.Tensor, windows: bool = False) -> NGrams:
    made = NGrams(VOCABULARY, windows)
    made.initialise(x, torch.ones_like(x, dtype=torch.bool))
    return made


def by_hand(x: torch.Tensor, context: tuple[int, ...], token: int, made: NGrams) -> float:
    """p(token | context) by the recursion of the textbook."""
    full = Counter()
    for row in x.tolist():
        padded = [VOCABULARY] * (LONGEST - 1) + row
        full.update(tuple(padded[i : i + LONGEST]) for i in range(len(row)))
    levels = {LONGEST: full}
    for size in range(LONGEST - 1, 0, -1):
        levels[size] = Counter(ngram[1:] for ngram in levels[size + 1])
    p = 1 / VOCABULARY
    for size in range(1, LONGEST + 1):
        late = made.late[size - 1].exp().item()
        at_one = torch.sigmoid(made.one[size - 1]).item()
        last = context[len(context) - size + 1 :]
        after = {n[-1]: c for n, c in levels[size].items() if n[:-1] == last}
        if not after:
            continue
        discount = {t: (1 + late) * at_one * c / (c + late) for t, c in after.items()}
        kept = after.get(token, 0) - discount.get(token, 0)
        p = (kept + sum(discount.values()) * p) / sum(after.values())
    return p


def test_probabilities_are_those_of_the_recursion() -> None:
    x = texts()
    made = counted(x)
    with torch.no_grad():
        made.one += torch.randn_like(made.one)
        made.late += torch.randn_like(made.late)
        nats, _ = made(x[:3])
    for row in range(3):
        padded = [VOCABULARY] * (LONGEST - 1) + x[row].tolist()
        for i in range(LENGTH):
            context = tuple(padded[i : i + LONGEST - 1])
            expected = [math.log(by_hand(x, context, token, made)) for token in range(VOCABULARY)]
            assert nats[row, i].tolist() == pytest.approx(expected, abs=1e-4)


def test_probabilities_sum_to_one_with_and_without_counts() -> None:
    for made in (NGrams(VOCABULARY, False), counted(texts())):
        nats, seen = made(texts(7))
        assert torch.allclose(nats.exp().sum(2), torch.ones(7, LENGTH), atol=1e-5)
        assert seen.shape == (7, LENGTH, LONGEST)


def test_a_block_left_out_was_never_counted() -> None:
    x = texts(60)
    made = counted(x)
    block = torch.arange(60) * BLOCKS // 60
    for number in (0, 7, BLOCKS - 1):
        mine, others = x[block == number], counted(x[block != number])
        assert made.blocks_of(mine).tolist() == [number] * len(mine)
        assert torch.allclose(made(mine, without=made.blocks_of(mine))[0], others(mine)[0], atol=1e-4)
        assert not torch.allclose(made(mine)[0], others(mine)[0], atol=1e-2)


def test_unknown_records_leave_nothing_out() -> None:
    made, other = counted(texts()), texts() * 0 + 1
    other[:, 3] = 4
    assert made.blocks_of(other).tolist() == [-1] * len(other)
    assert torch.equal(made(other, without=made.blocks_of(other))[0], made(other)[0])


def test_a_place_that_several_windows_show_counts_once() -> None:
    text = texts(1, 400)[0]
    often, seldom = (counted(text.unfold(0, 40, step), windows=True) for step in (4, 20))
    assert torch.equal(often.entries, seldom.entries)
    assert torch.equal(often.numbers, seldom.numbers)


def test_what_follows_the_end_is_not_counted() -> None:
    x = texts()
    made = NGrams(VOCABULARY, False)
    made.initialise(x, torch.arange(LENGTH).expand_as(x) < 4)
    short = counted(x[:, :4])
    assert torch.equal(made.entries, short.entries)
    assert torch.equal(made.numbers, short.numbers)


def test_single_places_are_those_of_the_whole() -> None:
    x, made = texts(), counted(texts())
    nats, seen = made(x)
    for place in range(LENGTH):
        one, found = made(x[:, :place], place, place + 1)
        assert torch.equal(one, nats[:, place : place + 1])
        assert torch.equal(found, seen[:, place : place + 1])


@pytest.mark.parametrize(("vocabulary", "expected"), [(65, 7), (257, 7), (1024, 5), (30_000, 3)])
def test_codes_fit_into_63_bits(vocabulary: int, expected: int) -> None:
    assert longest(vocabulary) == expected
