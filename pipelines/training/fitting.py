"""What a place of training is given: the job with everything that is known before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_core.codec import Codec
from pipelines.progress import Progress
from pipelines.sources.source import Source

if TYPE_CHECKING:
    from genai_core.privacy.gradients import PrivateFit
    from pipelines.train import TrainJob


@dataclass(frozen=True)
class Fitting:
    """`report(metrics, step)` is called at every validation; `scratch` is an empty directory, removed afterwards.

    parent  directory of the model that the fit goes on from
    private  of a fit with `fit.privacy`: what it may look at, and has spent
    tell  lines for people, of what happened; show: given the progress of a fit that has ended, well or not
    """

    job: TrainJob
    job_id: str
    source: Source
    codec: Codec
    provenance: dict[str, Any]
    scratch: Path
    report: Callable[[dict[str, float], int], None]
    progress: Progress
    tell: Callable[[str], None] = lambda line: None
    show: Callable[[Mapping[str, Any]], None] = lambda facts: None
    parent: Path | None = None
    private: PrivateFit | None = None
