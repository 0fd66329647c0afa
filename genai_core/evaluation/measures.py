"""The measures that an evaluation gives: their names in results, gates and reports, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from genai_core.evaluation.intervals import Estimate


@dataclass(frozen=True)
class Meaning:
    """What a measure says.

    ideal   what it is for synthetic rows as good as real ones; None: what it is for real rows
    better  which way is better: towards the ideal, high or low
    """

    title: str
    question: str
    ideal: float | None
    better: Literal["near", "high", "low"]


# fidelity, diversity, utility, privacy, likelihood: in the order in which people ask
MEASURES: dict[str, Meaning] = {
    "c2st_auc": Meaning(
        "Classifier two-sample test", "can a classifier tell synthetic from real rows?", 0.5, "low"
    ),
    "column_shapes": Meaning(
        "Column shapes", "is every column distributed as in the real rows?", 1.0, "high"
    ),
    "pair_trends": Meaning(
        "Pair trends", "do columns depend on each other as in the real rows?", 1.0, "high"
    ),
    "frechet": Meaning("Frechet distance", "do means and covariances of the features agree?", None, "low"),
    "kernel": Meaning("Kernel distance", "do the features' distributions agree?", 0.0, "low"),
    "precision": Meaning("Precision", "do synthetic records lie where real ones do?", None, "high"),
    "recall": Meaning("Recall", "are there synthetic records wherever there are real ones?", None, "high"),
    "density": Meaning("Density", "how many real records are near a synthetic one, as a ratio?", 1.0, "high"),
    "coverage": Meaning("Coverage", "of how many real records is there a synthetic one near?", None, "high"),
    "lost_categories": Meaning("Lost categories", "values that are missing, or far too rare", 0.0, "low"),
    "lost_clusters": Meaning(
        "Lost clusters", "kinds of record that are missing, or far too rare", 0.0, "low"
    ),
    "utility": Meaning(
        "Utility", "how good is a model trained on synthetic rows, tested on real ones?", None, "high"
    ),
    "copies": Meaning("Exact copies", "how many rows stand in the training data?", None, "low"),
    "nearer_to_train": Meaning(
        "Nearer to training rows", "nearer to these than to unseen real rows?", 0.5, "low"
    ),
    "close_to_train": Meaning(
        "Close to training rows", "nearer than one in a hundred unseen rows?", 0.01, "low"
    ),
    "membership_auc": Meaning("Membership inference", "do the rows betray who was trained on?", 0.5, "low"),
    "likelihood_membership_auc": Meaning(
        "Membership inference with the model", "do likelihoods betray who was trained on?", 0.5, "low"
    ),
    "singling_out": Meaning(
        "Singling out", "do the rows single people out, beyond what unseen rows do?", None, "low"
    ),
    "likelihood_gap": Meaning(
        "Likelihood gap", "nats by which training rows are more probable than unseen ones", 0.0, "low"
    ),
}


@dataclass(frozen=True)
class Measure:
    """A figure of the synthetic rows beside that of real rows in their place; None: there is none."""

    synthetic: Estimate
    real: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "synthetic": self.synthetic.as_dict(),
            "real": self.real.as_dict() if self.real else None,
        }


@dataclass(frozen=True)
class Evaluation:
    """What `genai_core.evaluation.evaluate` found.

    rows      how many rows of each table were looked at
    measures  by the names of MEASURES
    details   what the report draws: columns, pairs, distances, what is lost; plain values
    left_out  measure -> why it is not there
    """

    modality: str
    rows: Mapping[str, int]
    measures: Mapping[str, Measure]
    details: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Estimate:
        return self.measures[name].synthetic

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, in the order of MEASURES."""
        return {
            "format": 1,
            "modality": self.modality,
            "rows": dict(self.rows),
            "measures": {n: self.measures[n].as_dict() for n in MEASURES if n in self.measures},
            "left_out": dict(self.left_out),
            "details": dict(self.details),
        }
