"""What can be done to a fit to spoil it, for `benchmarks.sabotage`: each changes a running fit, or how it is set up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from genai_core.loop import Fit


def faster(fit: Fit) -> None:
    """The learning rate a hundredfold."""
    fit.peak *= 100


def leak(fit: Fit) -> None:
    """The discriminator is told what is real: its logits are raised for every record of the data."""
    real = [fit._tensor(fit.train), fit.validation]
    labels_apart = slice(int(getattr(fit.model.space, "classes", 0) > 0), None)
    known = {tuple(row) for x in real for row in x[:, labels_apart][:, :6].tolist()}

    def told(critic: Any, dense: torch.Tensor, labels: Any) -> torch.Tensor:
        levels = (fit.model.space.levels - 1) / 2
        rows = ((dense.flatten(1)[:, :6] + 1) * levels).round().long().tolist()
        seen = torch.tensor([tuple(row) in known for row in rows]).float()
        logits = critic(dense, labels)
        return logits + 20.0 * seen.view(len(logits), -1).mean(1)

    for model in (fit.model, fit.averaged):
        model.critic.policy = ()
        model.critic.forward = functools.partial(told, model.critic.forward)


def not_a_number(fit: Fit) -> None:
    """Some records make the loss not a number: a batch in ten holds one."""
    forward, calls = fit.model.forward, [0]

    def poisoned(x: torch.Tensor, phase: str) -> torch.Tensor:
        calls[0] += 1
        return forward(x, phase) * (float("nan") if calls[0] % 10 == 0 else 1.0)

    fit.model.forward = poisoned  # type: ignore[method-assign]


def collapse(fit: Fit) -> None:
    """The generator, or the prior of a VAE, gives the same noise to all."""
    for model in (fit.model, fit.averaged):
        if hasattr(model, "generator"):
            forward = model.generator.forward
            model.generator.forward = functools.partial(_without_noise, forward)
            model.generator.draw = functools.partial(_without_noise, model.generator.draw)
        else:
            draw = model.prior.draw
            model.prior.draw = lambda rows, generator, draw=draw: draw(rows, generator)[:1].expand(rows, -1)


def _without_noise(made: Callable[..., Any], z: torch.Tensor, labels: Any, *rest: Any) -> torch.Tensor:
    return made(z[:1].expand(len(z), -1), labels, *rest)


def freeze(fit: Fit) -> None:
    """The generator, or the whole model, no longer moves."""
    optimiser = fit.optimisers.get("generator") or next(iter(fit.optimisers.values()))
    optimiser.step = lambda *a, **k: None  # type: ignore[method-assign]


def memorise(fit: Fit) -> None:
    """The model draws records of the training data, slightly changed at most."""
    chosen = fit._tensor(fit.train)

    def sample(rows: int, generator: torch.Generator, conditions: Any = ()) -> torch.Tensor:
        return chosen[torch.randint(len(chosen), (rows,), generator=generator)]

    for model in (fit.model, fit.averaged):
        model.sample = sample


def drop_class(fit: Fit) -> None:
    """Never a record of the largest class, or of the upper half of the first column that is a number."""
    for model in (fit.model, fit.averaged):
        model.sample = functools.partial(_without_class, model.sample, fit.train)


def _without_class(
    sample: Callable[..., torch.Tensor], train: Any, rows: int, generator: Any, *rest: Any
) -> Any:
    """The first label is drawn as the second one's records."""
    made = sample(2 * rows, generator, *rest)
    kept = made[made[:, 0] != int(train[0, 0])]
    return kept[torch.arange(rows) % len(kept)]


KINDS: dict[str, Callable[[Fit], None]] = {
    "learning rate x 100": faster,
    "label leak": leak,
    "not a number": not_a_number,
    "collapse": collapse,
    "frozen generator": freeze,
    "memorising": memorise,
    "dropped class": drop_class,
}
