"""Training in this process: one CPU worker, no cluster; an interrupted fit resumes from its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from genai_core import artifact
from genai_core.fitted import FittedModel
from genai_core.loop import Fit, Replicas
from genai_core.spaces import Records
from genai_core.splits import spread
from genai_core.threads import denormals_flushed, threads
from genai_core.train import finish, new_model
from pipelines.progress import Progress
from pipelines.training.allocator import keep_freed_memory
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.encoding import encode_source, shares
from pipelines.training.fitting import Fitting

CALIBRATION_ROWS, CALIBRATION_LEAST = 20_000, 1_000
CALIBRATION_ENTRIES = 4_000_000


class Here(Replicas):
    """One replica, which reports to the run and keeps its checkpoints."""

    def __init__(
        self,
        kept: Checkpoints,
        report: Callable[[dict[str, float], int], None],
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.kept, self._report, self._tell = kept, report, tell

    def tell(self, line: str) -> None:
        self._tell(line)

    def report(self, metrics: dict[str, float], step: int, progress: float) -> None:
        self._report(metrics, step)

    def save(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        self.kept.save(tensors, facts)

    def restore(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        return self.kept.load()


class Forgetful(Here):
    """Keeps no checkpoints."""

    def save(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        pass

    def restore(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        return None


def fit_here(task: Fitting) -> FittedModel:
    """Encode, train, calibrate. One thread a CPU asked for: the same seed gives the same model on any machine size."""
    job, codec = task.job, task.codec
    keep_freed_memory()
    with threads(max(int(job.compute.cpus_per_worker), 1)), denormals_flushed():
        records = encode_source(codec, task.source.reader, job.fit, task.scratch, shares(task.source, 1)[0])
        start = None if task.parent is None else artifact.load(task.parent)
        network = new_model(job.model.kind, codec, job.model, job.fit.seed, start, task.private is not None)
        fit = Fit(
            network,
            records.train,
            records.held_out.tokens if task.private is None else task.private.initial,
            job.fit,
            _here(task),
            private=task.private,
        )
        fit.on_step = _show(task.progress, fit.batch)
        try:
            done = fit.run()
        finally:
            task.show(vars(fit.progress))
        sample = records.held_out.rows(calibration_rows(records.held_out))
        task.provenance["data"]["skipped"] = records.skipped
        return finish(
            job.model.kind,
            codec,
            network,
            sample,
            records.train,
            done,
            task.provenance,
            job.fit.seed,
            private=task.private,
        )


def _here(task: Fitting) -> Here:
    """A private fit begins anew: another one's noise is in its checkpoints, and other columns in its codec."""
    kept = Checkpoints(task.job.checkpoints, task.job_id)
    return (Here if task.private is None else Forgetful)(kept, task.report, task.tell)


def calibration_rows(held_out: Records, workers: int = 1) -> np.ndarray:
    """Numbers of the held-out rows that p-values are calibrated with; fewer where a record has many entries."""
    at_most = max(min(CALIBRATION_ROWS, CALIBRATION_ENTRIES // held_out.tokens.shape[1]), CALIBRATION_LEAST)
    return spread(len(held_out.tokens), at_most // workers)


def _show(progress: Progress, batch: int) -> Any:
    shown = 0.0

    def on_step(step: int, done: float) -> None:
        nonlocal shown
        progress.advance(100 * (done - shown), rows=batch)
        shown = done

    return on_step
