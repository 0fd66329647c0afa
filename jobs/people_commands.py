"""The commands for what people judge: `judge` counts who was fooled, `triage` writes the page for false alarms"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from jobs.options import answering

if TYPE_CHECKING:
    from genai_core.evaluation.fooling import Fooling, Rate


@click.command()
@click.argument("output", metavar="OUT", type=click.Path())
@click.argument("answers", metavar="ANSWERS...", nargs=-1, required=True, type=click.Path())
@answering
def judge(output: str, answers: tuple[str, ...], as_json: bool, quiet: bool, debug: bool) -> int:
    """How often people took a synthetic record for the real one.

    OUT is the output of a job `judge`, ANSWERS are the files that its page blind.html let people save.
    """
    from jobs.outcome import Outcome, complain, settle

    def work(_: Any) -> Outcome:
        from pipelines.judge import judged

        found = judged(output, answers)
        if not (quiet or as_json):
            complain("\n".join(_lines(found)))
        return Outcome(
            _facts(found.all) | {"judges": {name: _facts(rate) for name, rate in found.judges.items()}}
        )

    return settle(work, {"job": "judge", "output": output}, as_json, debug)


def _facts(rate: Rate) -> dict[str, Any]:
    return {
        "pairs": rate.pairs,
        "fooled": rate.fooled,
        "fooling_rate": round(rate.rate, 4),
        "interval": [round(rate.low, 4), round(rate.high, 4)],
        "p_value": float(f"{rate.p_value:.3g}"),
    }


def _lines(found: Fooling) -> Iterator[str]:
    yield f"people took the synthetic record for the real one in {_said(found.all)}"
    if found.all.low <= 0.5 <= found.all.high:
        yield "that is compatible with guessing (50 %)"
    elif found.all.rate < 0.5:
        yield "they can tell them apart: guessing would be 50 %"
    else:
        yield "synthetic records look more real to them than real ones: something else gives the sides away"
    if len(found.judges) > 1:
        for name, rate in found.judges.items():
            yield f"  {name}: {_said(rate)}"


def _said(rate: Rate) -> str:
    return f"{rate.fooled} of {rate.pairs} pairs: {rate.rate:.0%} (95 % interval {rate.low:.0%} to {rate.high:.0%})"


@click.command()
@click.argument("output", metavar="OUT", type=click.Path())
@click.option("--to", metavar="FILE", help="Where to write the page; default: OUT/_triage.html.")
@answering
def triage(output: str, to: str | None, as_json: bool, quiet: bool, debug: bool) -> int:
    """Write a page of OUT's anomalies on which people accept or reject each, and save a labels file.

    OUT is the output of a score or lake job; `labels:` of the job takes the file.
    """
    from jobs.outcome import Outcome, complain, settle

    def work(_: Any) -> Outcome:
        from pipelines.triage import write_page

        written = write_page(output, to)
        if not (quiet or as_json):
            complain(f"{written['rows']} of {written['listed']:,} anomalies -> {written['page']}")
        return Outcome(written)

    return settle(work, {"job": "triage", "output": output}, as_json, debug)


COMMANDS = (judge, triage)
