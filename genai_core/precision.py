"""The precision of training: products of layers in half precision, sums and weights in float32.

What autocast leaves to the code holds here: likelihoods, penalties and losses are summed in float32, gradients are
averaged and clipped in float32, and outside of training (validation, scoring, sampling) all is float32. float16 has
too small a range for gradients, so losses are scaled up, by as much as the gradients allow (Micikevicius et al. 2018).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
F = TypeVar("F", bound=Callable[..., Any])
MIN_SCALE = 1.0  # below it the gradients themselves are not finite, not their scaled values


class Precision:
    """Of one fit, on one device."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.device, self.half, self.scaled = device, HALF.get(name), name == "float16"

    def layers(self) -> AbstractContextManager[object]:
        """A block in which layers multiply in this precision."""
        return torch.autocast(self.device.type, self.half) if self.half else nullcontext()

    def scaler(self) -> torch.amp.GradScaler:
        """Finds the scale of one optimiser's losses and leaves out the steps that overflow; idle unless float16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.scaled)


def in_float32(function: F) -> F:
    """Mark what is summed up: within a block of layers too it computes in float32, from arguments made float32."""

    @functools.wraps(function)
    def computed(*arguments: Any) -> Any:
        device = next(a.device.type for a in arguments if isinstance(a, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*arguments)
        with torch.autocast(device, enabled=False):
            return function(*map(at_least_float32, arguments))

    return cast(F, computed)


def at_least_float32(value: Any) -> Any:
    """Tensors of half precision as float32; whatever else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF.values() else value


def penalties(device: torch.device) -> AbstractContextManager[object]:
    """A block for gradients of gradients, of which float16 has not the range: float32 instead."""
    small = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16
    return torch.autocast(device.type, enabled=False) if small else nullcontext()
