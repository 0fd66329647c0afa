"""What an evaluation comes to, in sentences that somebody can read who knows none of the measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from genai_core.evaluation.measures import Evaluation, Measure

Mark = Literal["good", "fair", "poor"]
APART = (0.55, 0.75)  # AUC up to which rows are hard to tell apart, and from which on it is easy
SHORT = (0.9, 0.7)  # of the real rows' coverage and recall
LESS = (0.02, 0.1)  # of the measure of a model trained on synthetic rows, beside that from real ones
BETRAYED = (0.52, 0.6)  # AUC of membership inference
NEARER = (0.53, 0.6)  # share of rows that are nearer to training rows


@dataclass(frozen=True)
class Verdict:
    """A sentence, and whether that is good."""

    about: str
    mark: Mark
    text: str


def verdicts(found: Evaluation) -> list[Verdict]:
    """Fidelity, diversity, utility, privacy: those for which there are figures."""
    said = (_fidelity(found), _diversity(found), _utility(found), _privacy(found), _likelihood(found))
    return [one for one in said if one is not None]


def _marked(value: float, good: float, poor: float) -> Mark:
    """Low is good."""
    return "good" if value <= good else "poor" if value >= poor else "fair"


def _fidelity(found: Evaluation) -> Verdict:
    area = found.measures["c2st_auc"]
    value = area.synthetic.value
    mark = _marked(value, *APART)
    words = {
        "good": "Synthetic records are hard to tell from real ones",
        "fair": "Synthetic records resemble real ones, but can be told from them",
        "poor": "Synthetic records are easily told from real ones",
    }
    columns = [g["column"] for g in found.details.get("giveaways", ()) if g["auc_drop"] > 0.005][:3]
    because = f"; what gives them away: {', '.join(columns)}" if columns and mark != "good" else ""
    return Verdict(
        "fidelity", mark, f"{words[mark]}: a classifier reaches {value:.3f} of 1, guessing is .5{because}."
    )


def _diversity(found: Evaluation) -> Verdict:
    lost: list[dict[str, Any]] = [
        one
        for name in ("lost_categories", "lost_clusters")
        for one in found.details.get(name, {}).get("synthetic", {}).get("lost", ())
    ]
    share = min(_of_real(found.measures[name]) for name in ("coverage", "recall"))
    mark = _marked(-share, -SHORT[0], -SHORT[1])
    if lost:
        mark = "poor" if any(one["found"] == 0 for one in lost) or mark == "poor" else "fair"
        named = "; ".join(_lost(one) for one in lost[:3])
        more = f", and {len(lost) - 3} more" if len(lost) > 3 else ""
        return Verdict("diversity", mark, f"Something is missing: {named}{more}.")
    words = {
        "good": "They are as varied as real ones",
        "fair": "They are less varied than real ones",
        "poor": "They are far less varied than real ones: large parts of the data are not reproduced",
    }
    coverage = found.measures["coverage"]
    beside = f", of other real ones {coverage.real.value:.0%}" if coverage.real else ""
    return Verdict(
        "diversity",
        mark,
        f"{words[mark]}: near {coverage.synthetic.value:.0%} of real records lies one{beside}.",
    )


def _lost(one: dict[str, Any]) -> str:
    rarely = "never occurs" if one["found"] == 0 else f"occurs {one['found']:,} times"
    what = f"{one['column']} = {one['value']}" if not one["value"].startswith("cluster") else one["value"]
    return f"{what} {rarely}, where {one['expected']:,.0f} times were to be expected"


def _of_real(measure: Measure) -> float:
    return measure.synthetic.value / max(measure.real.value, 1e-9) if measure.real else 1.0


def _utility(found: Evaluation) -> Verdict | None:
    measure = found.measures.get("utility")
    if measure is None or measure.real is None:
        return None
    name, target = found.details["utility"]["measure"], found.details["utility"]["target"]
    mark = _marked(measure.real.value - measure.synthetic.value, *LESS)
    words = {
        "good": "A model trained on them does as well on real data as one trained on real rows",
        "fair": "A model trained on them does somewhat worse on real data than one trained on real rows",
        "poor": "A model trained on them does much worse on real data than one trained on real rows",
    }
    figures = f"{name} {measure.synthetic.value:.3f} against {measure.real.value:.3f}"
    return Verdict("utility", mark, f"{words[mark]}: {figures} at predicting {target}.")


def _differ(found: Evaluation) -> str:
    """Why distances and attacks say nothing here: unseen records that differ from training ones by themselves."""
    area = found.measures["c2st_auc"].real
    if area is None or area.low <= APART[0]:
        return ""
    return (
        f"unseen records differ from training records by themselves (a classifier reaches {area.value:.3f}), so that "
        "whatever looks like the one looks unlike the other; hold out records at random"
    )


def _privacy(found: Evaluation) -> Verdict:
    faults: list[str] = []
    mark: Mark = "good"
    differ = _differ(found)
    copies = found.measures.get("copies")
    if copies is not None and copies.synthetic.low > (copies.real.high if copies.real else 0):
        faults.append(f"{copies.synthetic.value:.2%} of them are copies of training records")
        mark = "poor"
    for name, limits, words in (
        (
            "nearer_to_train",
            NEARER,
            "they are nearer to training records than to unseen ones ({:.1%}, 50 % is right)",
        ),
        ("membership_auc", BETRAYED, "they betray who was trained on (attack {:.3f}, guessing is .5)"),
    ):
        measure = found.measures.get(name)
        if differ or measure is None or measure.synthetic.low <= 0.5 or measure.synthetic.value <= limits[0]:
            continue
        faults.append(words.format(measure.synthetic.value))
        mark = "poor" if mark == "poor" or measure.synthetic.value >= limits[1] else "fair"
    single = found.measures.get("singling_out")
    if not differ and single and single.real and single.synthetic.low > single.real.high:
        faults.append(
            f"they single people out ({single.synthetic.value:.1%}; unseen rows {single.real.value:.1%})"
        )
        mark = "poor" if mark == "poor" else "fair"
    if faults:
        return Verdict("privacy", mark, f"Training records shine through: {'; '.join(faults)}.")
    if differ:
        return Verdict("privacy", "fair", f"Nearness and attacks cannot be read: {differ}.")
    return Verdict(
        "privacy",
        mark,
        "No attack that was tried tells more of the training records than of unseen ones. That is no proof of privacy.",
    )


def _likelihood(found: Evaluation) -> Verdict | None:
    gap = found.measures.get("likelihood_gap")
    if gap is None:
        return None
    if differ := _differ(found):
        return Verdict("likelihood", "fair", f"What the model knows by heart cannot be read: {differ}.")
    area = found.measures["likelihood_membership_auc"].synthetic
    mark = "good" if area.low <= 0.5 else _marked(area.value, *BETRAYED)
    words = {
        "good": "The model itself has hardly learnt records by heart",
        "fair": "The model itself knows some training records by heart",
        "poor": "The model itself knows training records by heart; do not give it away",
    }
    return Verdict(
        "likelihood",
        mark,
        f"{words[mark]}: training records are {gap.synthetic.value:+.3f} nats more probable to it than unseen "
        f"ones (attack {area.value:.3f}).",
    )
