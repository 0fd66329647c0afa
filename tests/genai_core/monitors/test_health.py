"""Training sabotaged on purpose is found by name within one validation, and undone; a healthy fit is left alone."""

from __future__ import annotations

import contextlib
import copy
import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import genai_core
from genai_core import catalog
from genai_core.errors import TrainingFailed
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, Progress
from genai_core.monitors.discriminator import noise_ignored
from genai_core.monitors.diversity import Real, diversity
from genai_core.monitors.health import standing_still
from genai_core.monitors.signals import ACT, FINE, WARN, signal
from genai_core.monitors.views import columns, view
from genai_core.replicas import Replicas
from genai_core.spaces import Grid
from tests.contract import test_models as tables
from tests.contract.spaces import tiny_space

BEGINS = 0.3  # of the fit: sabotage sets in right after the next validation
SPACE = Grid(1, 8, 8, classes=4, class_names=("north", "east", "south", "west"))


def pictures(rows: int = 600) -> np.ndarray:
    """One bright, noisy quarter; the label says which."""
    random = np.random.default_rng(0)
    label = random.integers(0, 4, rows)
    x = random.integers(0, 60, (rows, 8, 8))
    for i, one in enumerate(label):
        x[i, one // 2 * 4 : one // 2 * 4 + 4, one % 2 * 4 : one % 2 * 4 + 4] += random.integers(100, 180)
    return np.concatenate([label[:, None], x.reshape(rows, -1)], 1)


def fit_of(kind: str = "gan", health: str = "act", **settings: Any) -> Fit:
    torch.manual_seed(1)
    how = FitSettings(
        **{"max_epochs": 4, "evaluations": 3, "seed": 3, "patience": 100, "health": health, **settings}
    )
    if kind == "autoregressive":
        how = how.model_copy(update={"max_epochs": 24, "evaluations": 8})
        rows = tables.data(600)
        return Fit(catalog.build_model(kind, tiny_space(), tables.SMALL[kind]), rows[150:], rows[:150], how)
    model = catalog.build_model(kind, SPACE, {"latent": 8, "channels": 8, "hidden": 32})
    x = pictures()
    return Fit(model, x[200:], x[:200], how)


def sabotaged(fit: Fit, change: Any) -> list[dict[str, Any]]:
    """Run with a change to the fit after a validation; the events from then on, until the next validation."""
    step = fit._step
    begun: list[int] = []

    def changed(number: int) -> bool:
        validated = [entry["step"] for entry in fit.progress.history[-1:]] == [number]
        if fit.progress.done >= BEGINS and not begun and validated:
            begun.append(number)
            change(fit)
        return step(number)

    fit._step = changed  # type: ignore[method-assign]
    with contextlib.suppress(TrainingFailed):
        fit.run()
    between = fit.total_steps / fit.settings.evaluations
    events = fit.progress.health["events"]
    return [e for e in events if begun[0] < e["step"] <= begun[0] + between + 1]


def collapse(fit: Fit) -> None:
    """The generator makes one record, whatever the noise."""
    for model in (fit.model, fit.averaged):
        forward = model.generator.forward
        model.generator.forward = lambda z, labels, forward=forward: forward(  # type: ignore[method-assign]
            torch.zeros_like(z), None if labels is None else torch.zeros_like(labels)
        )


def test_a_collapsed_generator_is_found_at_the_next_validation_and_undone() -> None:
    events = sabotaged(fit_of(), collapse)
    assert {e["name"] for e in events} >= {"duplicates", "missing"}
    missing = next(e for e in events if e["name"] == "missing")
    assert sum(f"label {name} (" in missing["said"] for name in SPACE.class_names) == 3
    assert any(e["did"] in ("back", "restrain") for e in events)


def test_a_collapse_is_only_said_where_nothing_is_to_be_done_and_not_seen_with_health_off() -> None:
    assert {e["did"] for e in sabotaged(fit_of(health="warn"), collapse)} == {""}
    assert sabotaged(fit_of(health="off"), collapse) == []


def test_a_hundredfold_learning_rate_is_found_and_undone() -> None:
    def faster(fit: Fit) -> None:
        fit.peak *= 100

    fit = fit_of("autoregressive", learning_rate=0.02)
    events = sabotaged(fit, faster)
    assert {e["name"] for e in events} & {"diverging", "exploding"}
    assert fit.progress.health["rate"] <= 0.5
    assert fit.progress.health["backs"] >= 1


def test_gradients_that_are_not_finite_once_do_not_end_a_fit() -> None:
    fit = fit_of("autoregressive")
    forward, calls = fit.model.forward, []

    def once(x: torch.Tensor, phase: str) -> torch.Tensor:
        calls.append(1)
        return forward(x, phase) * (float("nan") if len(calls) == 30 else 1.0)

    fit.model.forward = once  # type: ignore[method-assign]
    progress = fit.run()
    (event,) = [e for e in progress.health["events"] if e["did"]]
    assert (event["name"], event["did"], progress.health["backs"]) == ("not_finite", "back", 1)
    assert progress.done == 1
    assert np.isfinite(progress.best)


def test_a_generator_of_tables_that_ignores_its_noise_is_found() -> None:
    model = catalog.build_model("gan", tiny_space(), tables.SMALL["gan"])
    model.initialise(torch.from_numpy(tables.data(200)))
    assert noise_ignored(model, 200).level == FINE
    draw = model.generator.draw
    model.generator.draw = lambda z, *more: draw(z[:1].expand_as(z), *more)  # type: ignore[method-assign]
    stuck = noise_ignored(model, 200)
    assert (stuck.value, stuck.level) == (1.0, ACT)


def test_a_leaked_label_and_a_frozen_generator_are_found() -> None:
    def leak(fit: Fit) -> None:
        known = {tuple(row[1:6].tolist()) for row in pictures()}

        def told(critic: Any, dense: torch.Tensor, labels: Any) -> torch.Tensor:
            levels = ((dense.flatten(1)[:, :5] + 1) * 127.5).round().long().tolist()
            seen = torch.tensor([tuple(row) in known for row in levels]).float()
            logits = critic(dense, labels)
            return logits + 20.0 * seen.view(len(logits), -1).mean(1)

        for model in (fit.model, fit.averaged):
            model.critic.forward = functools.partial(told, model.critic.forward)

    def freeze(fit: Fit) -> None:
        fit.optimisers["generator"].step = lambda *a, **k: None  # type: ignore[method-assign]

    assert "saturation" in {e["name"] for e in sabotaged(fit_of(), leak)}
    assert "frozen" in {e["name"] for e in sabotaged(fit_of(), freeze)}


def test_a_critic_that_wins_holds_nobody_back_while_the_generator_learns() -> None:
    assert (
        not standing_still([9.0]) and not standing_still([9.0, 4.0, 5.0]) and not standing_still([3.0, 4.0])
    )
    assert standing_still([3.0, 4.0, 5.0])
    for losses, level in (([9.0, 4.0, 3.0], WARN), ([3.0, 4.0, 5.0], ACT)):
        fit = fit_of()
        fit._prepare()
        critic = fit.averaged.critic
        known = fit._tensor(fit.train).clone()
        known[:, 1:] = 255 - known[:, 1:]
        fit.averaged.sample = lambda rows, *more: known[:rows]  # type: ignore[method-assign]  # noqa: B023
        critic.forward = lambda dense, labels: -dense.flatten(1).sum(1)[:: critic.pac]  # type: ignore  # noqa: B023
        found = fit.health._look(fit.averaged, 0.6, losses)
        assert next(s.level for s in found if s.name == "saturation") == level


@pytest.mark.parametrize(("kind", "done"), [("autoregressive", "stop"), ("gan", "restrain")])
def test_memorising_stops_what_has_a_likelihood_and_holds_adversaries_back(kind: str, done: str) -> None:
    copied = signal("memorising", 0.5, "half of the made records are copies")
    assert fit_of(kind).health._decide([copied], 10).do == done
    assert fit_of(kind, "warn").health._decide([copied], 10).do == ""


def test_another_missing_class_is_told_and_the_same_one_once() -> None:
    health = fit_of().health
    rounds = [("label east",), ("label east",), ("label east", "label west"), ("label east", "label west")]
    told = [
        health._decide([signal("missing", len(names), f"never made: {', '.join(names)}")], step).told
        for step, names in enumerate(rounds)
    ]
    assert [len(lines) for lines in told] == [1, 0, 1, 0]
    assert "label west" in told[2][0]


def test_columns_that_are_drawn_each_by_itself_are_found_where_real_ones_depend() -> None:
    random = torch.Generator().manual_seed(0)
    columns, groups = torch.tensor([0, 0, 1, 2]), torch.zeros(600).long()

    def drawn(rows: int, tie: float) -> torch.Tensor:
        x = torch.randn(rows, 4, generator=random)
        x[:, 1] += x[:, 0]  # features of one column depend on each other, which says nothing
        return torch.cat([x[:, :2], tie * x[:, :1] + x[:, 2:3], x[:, 3:]], 1)

    def found(real: Real, made: torch.Tensor) -> list[int]:
        return [s.level for s in diversity(real, made) if s.name == "dependence"]

    tied = Real(drawn(200, 1.0), drawn(600, 1.0), groups, ["all"], columns)
    assert found(tied, drawn(200, 1.0)) == [FINE]
    assert found(tied, drawn(200, 0.0)) == [WARN]
    loose = Real(drawn(200, 0.0), drawn(600, 0.0), groups, ["all"], columns)
    assert WARN not in found(loose, drawn(200, 0.0))


def test_a_class_is_missing_by_its_label_or_by_its_looks() -> None:
    x = torch.randn(900, 4, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(900) % 3
    x[:, 0] += 20 * groups
    real = Real(x[600:], x[:600], groups[:600], ["cat", "dog", "owl"])

    def lost(made: torch.Tensor, labels: torch.Tensor) -> str:
        return next(s.said for s in diversity(real, made, labels) if s.name == "missing")

    made, labels = x[:300] + 0.01, groups[:300]
    assert lost(made, labels) == ""
    assert "owl (" in lost(made, labels.clamp(max=1))
    assert "cat (" in lost(made[groups[:300] > 0], labels[groups[:300] > 0].sub(1))


def test_a_crowded_corner_is_no_copying_and_a_collapse_into_it_is() -> None:
    random = torch.Generator().manual_seed(0)

    def records(rows: int) -> torch.Tensor:
        """Most lie a thousand times closer together than the others."""
        wide = torch.rand(rows, 1, generator=random) < 0.7
        return torch.randn(rows, 3, generator=random) * torch.where(wide, 1.0, 0.001)

    real = Real(records(1000), records(1000), torch.zeros(1000, dtype=torch.long), ["all"])

    def doubled(made: torch.Tensor) -> int:
        return next(s.level for s in diversity(real, made) if s.name == "duplicates")

    crowded = torch.cat([records(500), 0.001 * torch.randn(500, 3, generator=random)])
    assert doubled(records(1000)) == doubled(crowded) == FINE
    assert doubled(crowded[torch.randint(0, 1000, (1000,), generator=random) % 300]) == ACT


def test_features_of_tables_know_their_columns() -> None:
    space = tiny_space()
    of, features = columns(space), view(space)(torch.zeros(1, 3, dtype=torch.long))
    assert of is not None and of.tolist() == sorted(of.tolist()) and len(of) == features.shape[1]
    assert columns(SPACE) is None


@pytest.mark.parametrize("kind", ["autoregressive", "gan"])
def test_watching_changes_nothing_of_a_healthy_fit(kind: str) -> None:
    watched, alone = fit_of(kind), fit_of(kind, "off")
    with_health, without = watched.run(), alone.run()
    pairs = zip(with_health.history, without.history, strict=True)
    assert all(a["validation_loss"] == b["validation_loss"] for a, b in pairs)
    assert not [e for e in with_health.health["events"] if e["did"]]
    assert any("health_coverage" in entry for entry in with_health.history)
    assert not any("health_coverage" in entry for entry in without.history)


def test_a_fit_goes_on_with_its_health_where_it_was_interrupted() -> None:
    class Kept(Replicas):
        state: Any = None
        left = 1

        def save(self, tensors: Any, facts: Any) -> None:
            self.state = copy.deepcopy((tensors, facts))
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        def restore(self) -> Any:
            return self.state

    kept, whole = Kept(), fit_of(max_epochs=12)
    whole.run()
    for _ in range(2):
        again = fit_of(max_epochs=12)
        again.replicas = again.health.replicas = kept
        try:
            again.run()
        except KeyboardInterrupt:
            continue
    assert _without_clock(again.progress) == _without_clock(whole.progress)


def _without_clock(progress: Progress) -> list[dict[str, float]]:
    return [{name: v for name, v in entry.items() if name != "seconds"} for entry in progress.history]


@pytest.mark.parametrize(("epochs", "alarmed"), [(8, True), (1, False)])
def test_a_posterior_that_says_nothing_is_found_once_it_had_time_to(
    epochs: int, alarmed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = catalog.build_model("vae", tiny_space(), tables.SMALL["vae"]), tables.data(600)
    latent = model.posterior.out_features // 2
    nothing = lambda self, x: (torch.zeros(len(x), latent), torch.zeros(len(x), latent))  # noqa: E731
    monkeypatch.setattr(type(model), "posterior_of", nothing)
    how = FitSettings(max_epochs=epochs, evaluations=4, seed=3, patience=100, health="act")
    progress = Fit(model, rows[150:], rows[:150], how).run()
    found = [e for e in progress.health["events"] if e["name"] == "posterior_collapse"]
    assert bool(found) == alarmed
    assert all(e["level"] == ACT and e["did"] == "restrain" for e in found)
    assert all("latent dimensions carry less than" in e["said"] for e in found)


@pytest.mark.parametrize("unseen", ["both, one after the other", "one domain alone"])
def test_domains_in_any_order_are_looked_at(unseen: str) -> None:
    """Held-out records may lie in the order of their domain, or be of one of them."""
    space = Grid(1, 8, 8, classes=2)
    x = pictures(300)
    x[:, 0] %= 2
    x = x[np.argsort(x[:, 0], kind="stable")]
    held_out = np.concatenate([x[:80], x[-80:]]) if unseen.startswith("both") else x[:160]
    torch.manual_seed(1)
    model = catalog.build_model("cyclegan", space, {"channels": 4, "blocks": 1})
    how = FitSettings(max_epochs=3, evaluations=1, seed=3)
    done = Fit(model, x, held_out, how).run()
    assert "health_coverage" in done.history[-1]


def test_a_row_that_is_there_many_times_may_be_made_many_times() -> None:
    random = torch.Generator().manual_seed(0)

    def records(rows: int, same: float) -> torch.Tensor:
        x = torch.randn(rows, 3, generator=random)
        x[: int(same * rows)] = 0.0
        return x

    real = Real(records(80, 0.19), records(1300, 0.29), torch.zeros(1300, dtype=torch.long), ["all"])

    def levels(same: float) -> set[int]:
        found = diversity(real, records(80, same))
        return {s.level for s in found if s.name in ("duplicates", "memorising")}

    assert levels(0.37) == {FINE}  # more by chance, or by little
    assert levels(0.9) == {ACT}


def test_a_table_of_one_row_many_times_is_learnt() -> None:
    table = pa.table(
        {"a": ["x"] * 600, "b": [1.5] * 600}
    )  # more free bits are a higher loss, and no divergence
    model = genai_core.fit(table, "vae", max_epochs=40, seed=0, score_effort=0.05)
    assert model.sample(5, seed=1).to_pylist() == [{"a": "x", "b": 1.5}] * 5
