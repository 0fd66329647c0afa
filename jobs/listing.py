"""`genai list`: the catalogue as data and as text; the capability table of the README comes from here too."""

from __future__ import annotations

from typing import Any

from genai_core.catalog import FAMILIES, MODALITIES, MODELS, SCORES
from jobs.spec import KINDS
from pipelines.sources import SOURCES

WORDS = {
    "log_prob": "likelihood",
    "samples": "samples",
    "reconstructs": "reconstructs",
    "discriminates": "discriminates",
    "translates": "translates",
}
JOBS = {
    "augment": "real rows and synthetic ones of rare classes, with a check that they help",
    "evaluate": "how good synthetic records are: fidelity, diversity, utility, privacy",
    "generate": "synthetic rows from a model",
    "impute": "the missing cells of a table, drawn given the others",
    "judge": "pages on which people tell real from synthetic, and see the nearest real record",
    "lake": "scores of a lake, run after run: only the files that are new or have changed",
    "score": "an anomaly score, a p-value and the reasons for every row",
    "train": "fit a model on a source and register it",
    "translate": "every record as it would look in another domain",
}


def contents() -> dict[str, Any]:
    """Everything a job file can name."""
    models = {
        kind: {
            "capabilities": list(family.capabilities),
            "bound": family.bound,
            "scores": {modality: list(names) for modality, names in family.scores.items()},
        }
        for kind, family in ((kind, FAMILIES[kind]) for kind in MODELS)
    }
    jobs = {kind: JOBS.get(kind, "") for kind in KINDS}
    return {"jobs": jobs, "models": models, "modalities": MODALITIES, "scores": _givers(), "sources": SOURCES}


def _givers() -> dict[str, list[str]]:
    """Which families can give a score."""
    given = {kind: {name for names in FAMILIES[kind].scores.values() for name in names} for kind in MODELS}
    return {name: [kind for kind in MODELS if name in given[kind]] for name in SCORES}


def as_text(found: dict[str, Any]) -> str:
    """For a terminal: one line a thing, under its heading."""
    sections = {
        "jobs": found["jobs"],
        "models": {kind: capabilities(one) for kind, one in found["models"].items()},
        "modalities": dict.fromkeys(found["modalities"], ""),
        "scores": {name: f"given by {', '.join(kinds)}" for name, kinds in found["scores"].items()},
        "sources": dict.fromkeys(found["sources"], ""),
    }
    width = max(len(name) for section in sections.values() for name in section)
    return "\n".join(
        line
        for heading, section in sections.items()
        for line in (heading, *(f"  {name:{width}}  {text}".rstrip() for name, text in section.items()))
    )


def capabilities(model: dict[str, Any]) -> str:
    """Such as `likelihood (lower bound), reconstructs, samples; scores: ...`."""
    bound = {"exact": " (exact)", "lower": " (lower bound)"}.get(model["bound"], "")
    words = [WORDS.get(word, word) + (bound if word == "log_prob" else "") for word in model["capabilities"]]
    return f"{', '.join(words)}; learns: {', '.join(model['scores'])}"
