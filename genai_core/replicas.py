"""Where the training loop meets a cluster: one replica of the model, or several that average their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Replicas:
    """This one is a single process, which keeps nothing; subclasses say where checkpoints go, or average."""

    rank, world = 0, 1

    def average(self, values: Tensor) -> Tensor:
        """Mean of a flat vector over the replicas."""
        return values

    def gather(self, value: Any) -> list[Any]:
        """The value of every replica, on every replica."""
        return [value]

    def report(self, metrics: dict[str, float], step: int, progress: float) -> None:
        """Called at every validation, on every replica."""

    def tell(self, line: str) -> None:
        """A line for people, of something that happened; called on every replica."""

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep a checkpoint; called after every validation."""

    def restore(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint, if this fit is a continuation."""
        return None


class Distributed(Replicas):
    """One of the replicas of torch's process group, which is there already: gloo between CPUs, nccl between GPUs.

    DistributedDataParallel does not serve models with several phases; the loop averages flat gradients instead.
    """

    def __init__(self) -> None:
        if torch.distributed.is_initialized():
            self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def average(self, values: Tensor) -> Tensor:
        if self.world > 1:
            torch.distributed.all_reduce(values)
            values /= self.world
        return values

    def gather(self, value: Any) -> list[Any]:
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)  # between processes, never from disk
        return values
