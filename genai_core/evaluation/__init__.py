"""How good synthetic records are. Every measure stands beside the same measure for real records against real ones."""

from genai_core.evaluation.judgement import evaluate
from genai_core.evaluation.measures import MEASURES, Evaluation

__all__ = ["MEASURES", "Evaluation", "evaluate"]
