"""The causal transformer: exact probabilities, causality, cache, conditions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genai_core.errors import InvalidInput
from genai_core.hyperparameters import Autoregressive as Settings
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Condition
from genai_core.models.autoregressive import Autoregressive
from genai_core.networks.attention import _attention
from genai_core.networks.transformer import SMALL, CausalTransformer
from genai_core.spaces import Sequence

TINY = Sequence(3, 3, end=2, classes=2)
WORDS = Sequence(11, 24, end=10, classes=2)
WINDOWS = Sequence(11, 24)
LARGE = Sequence(SMALL + 76, 12, end=0)
SPACES = {"tiny": TINY, "words": WORDS, "windows": WINDOWS, "large": LARGE}


def records(space: Sequence, rows: int = 64) -> torch.Tensor:
    """Random records in which a token often repeats the one two places before it."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, space.vocabulary, (rows, space.length), generator=random)
    for i in range(2, space.length):
        repeat = torch.rand(rows, generator=random) < 0.7
        tokens[:, i] = torch.where(repeat, tokens[:, i - 2], tokens[:, i])
    if space.end is not None:
        ended = (tokens == space.end).cumsum(1) > 0
        tokens = tokens.masked_fill(ended, space.end)
    labels = torch.randint(0, 2, (rows, space.labelled), generator=random)
    return torch.cat([labels, tokens], 1)


def network(space: Sequence, counted: bool = True, **settings: float) -> CausalTransformer:
    """One whose weights are far from where they start, so that every part has a say."""
    torch.manual_seed(1)
    made = CausalTransformer(space, Settings(**{"hidden": 16, "heads": 2, "layers": 2, **settings}))
    if counted:
        made.initialise(records(space))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return made.eval()


def every_record(space: Sequence) -> torch.Tensor:
    """All different records of a small space with an end."""
    found = set()
    for label, *tokens in itertools.product(range(space.classes), *[range(space.vocabulary)] * space.length):
        stop = tokens.index(space.end) if space.end in tokens else space.length
        found.add((label, *tokens[:stop], *[space.end] * (space.length - stop)))
    return torch.tensor(sorted(found))


@pytest.mark.parametrize("name", SPACES)
def test_the_gradient_reaches_all_parameters(name: str) -> None:
    made = network(SPACES[name]).train()
    (-made(records(SPACES[name])).sum()).backward()
    assert [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_probabilities_of_all_records_sum_to_one() -> None:
    made = network(TINY)
    everything = every_record(TINY)
    assert len(everything) == 2 * (1 + 2 + 4 + 8)
    assert float(made(everything).detach().sum(1).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_what_follows_the_end_costs_nothing() -> None:
    x = records(WORDS)
    nats = network(WORDS)(x)
    after = F.pad((x[:, 1:] == WORDS.end).cumsum(1) > (x[:, 1:] == WORDS.end).long(), (1, 0))
    assert after.any()
    assert bool((nats[after] == 0).all())
    assert bool((nats[~after] < 0).all())


@pytest.mark.parametrize("name", ["words", "windows", "large"])
def test_a_token_changes_nothing_before_it(name: str) -> None:
    space, made = SPACES[name], network(SPACES[name])
    x = torch.randint(1, 10, (8, space.entries))
    x[:, : space.labelled] = 1
    for k in range(space.labelled, space.entries):
        changed = x.clone()
        changed[:, k] = (x[:, k] + 3) % 9 + 1
        before, after = made(x), made(changed)
        assert torch.allclose(before[:, :k], after[:, :k], atol=1e-5)
        assert not torch.allclose(before[:, k], after[:, k], atol=1e-5)


def test_a_label_changes_every_token_and_an_early_token_all_later_ones() -> None:
    made = network(WORDS)
    x = torch.randint(0, 10, (8, WORDS.entries))
    x[:, 0] = 0
    for k, value in ((0, 1), (1, 9)):
        changed = x.clone()
        changed[:, k] = value
        differs = (made(x) - made(changed)).abs()[x[:, k] != value, k + 1 :]
        assert bool((differs.amax(0) > 1e-6).all())


@pytest.mark.parametrize("name", ["words", "windows", "large"])
@pytest.mark.parametrize("prompt", [0, 5])
def test_the_cache_changes_no_logits(name: str, prompt: int) -> None:
    space, made = SPACES[name], network(SPACES[name])
    labels, tokens = made.labels.split(records(space, 6))
    whole = made.logits(tokens, labels)
    cache = made.cache(6)
    steps = [made.logits(tokens[:, :n], labels, cache) for n in range(prompt, space.length)]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-4)


@pytest.mark.parametrize("places", [1, 7])
def test_the_products_on_cpus_are_torchs_attention(places: int) -> None:
    q, k, v = torch.randn(3, 2, 3, 7, 4).unbind(0)
    q = q[:, :, -places:]
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=places > 1, scale=1.0)
    assert torch.allclose(_attention(q, k, v), expected, atol=1e-6)


def test_samples_come_as_often_as_their_probability_says() -> None:
    made, everything, rows = network(TINY), every_record(TINY), 20_000
    drawn = made.sample(rows, torch.Generator().manual_seed(3))
    same = (drawn[:, None] == everything).all(2)
    assert bool(same.any(1).all())
    shares, expected = same.float().mean(0), made(everything).sum(1).exp()
    # four standard deviations of each share
    assert bool(((shares - expected).abs() < 4 * (expected / rows).sqrt()).all())


def test_prompt_and_label_hold_in_every_record() -> None:
    made, prompt = network(WORDS), torch.tensor([3, 1, 4])
    conditions = [Condition(0, [torch.tensor([False, True])]), Condition(1, prefix=prompt)]
    drawn = made.sample(50, torch.Generator().manual_seed(2), conditions)
    assert drawn.shape == (50, WORDS.entries)
    assert bool((drawn[:, 0] == 1).all())
    assert bool((drawn[:, 1:4] == prompt).all())
    assert len(drawn.unique(dim=0)) > 20
    ended = (drawn[:, 1:] == WORDS.end).cumsum(1) > 0
    assert bool((drawn[:, 1:][ended] == WORDS.end).all())
    assert bool(ended[:, -1].any())


def test_a_prompt_of_the_whole_length_is_the_record() -> None:
    prompt = torch.arange(WINDOWS.length) % WINDOWS.vocabulary
    drawn = network(WINDOWS).sample(2, torch.Generator().manual_seed(0), [Condition(0, prefix=prompt)])
    assert bool((drawn == prompt).all())


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([1] * 25, "prompt of 25 tokens"), ([1, 10], "token 10 "), ([1, 12], "token 12 "), ([-1], "token -1 ")],
)
def test_prompts_that_no_record_starts_with(prompt: list[int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        network(WORDS).sample(
            2, torch.Generator().manual_seed(0), [Condition(1, prefix=torch.tensor(prompt))]
        )


def test_same_generator_same_sample_also_while_training() -> None:
    made = network(WORDS, dropout=0.5)
    first, other = (made.sample(20, torch.Generator().manual_seed(seed)) for seed in (5, 6))
    made.train()
    assert torch.equal(first, made.sample(20, torch.Generator().manual_seed(5)))
    assert made.training
    assert not torch.equal(first, other)


def test_temperature_and_top_p_concentrate() -> None:
    made = network(WINDOWS)
    greedy = [
        made.sample(20, torch.Generator().manual_seed(5), temperature=t, top_p=p)
        for t, p in ((1e-4, 1.0), (1.0, 1e-6))
    ]
    assert torch.equal(*greedy)
    assert len(greedy[0].unique(dim=0)) == 1


def test_the_precision_of_training_is_close() -> None:
    x = records(WORDS)
    made = network(WORDS, counted=False, dropout=0.0)
    with torch.no_grad():
        expected, found = made(x), made.train()(x)
    assert float((expected - found).abs().mean()) < 0.02


def test_saved_and_loaded_it_is_the_same() -> None:
    x, made = records(WORDS), network(WORDS)
    twin = CausalTransformer(WORDS, Settings(hidden=16, heads=2, layers=2)).eval()
    twin.load_state_dict(made.state_dict())
    assert torch.equal(made(x), twin(x))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InvalidInput, match="hidden = 20 with 3 heads"):
        CausalTransformer(WORDS, Settings(hidden=20, heads=3))


def test_it_learns_what_counts_alone_cannot_know() -> None:
    """A token repeats the one ten places before it: farther back than n-grams reach."""
    random = np.random.default_rng(0)
    period = random.integers(0, 8, (500, 10))
    rows = np.tile(period, (1, 2)).astype(np.uint8)
    torch.manual_seed(0)
    model = Autoregressive(Sequence(8, 20), Settings(hidden=32, heads=2, layers=2))
    before = model.eval().validation_loss(torch.from_numpy(rows[:64].astype(np.int64)))
    settings = FitSettings(seed=1, max_epochs=10, batch_size=32, learning_rate=5e-3, evaluations=3)
    progress = Fit(model, rows[64:], rows[:64], settings).run()
    chance = 20 * np.log(8)
    assert before == pytest.approx(chance, rel=0.3)
    assert progress.best < 0.75 * chance
