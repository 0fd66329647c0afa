"""The commands `evaluate`, which judges synthetic records, and `publish`, which lets through what a gate holds"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from jobs.options import answering, overriding, slotted


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@overriding
@slotted
@answering
def evaluate(
    file: str,
    overrides: tuple[str, ...],
    slot: Callable[[], Any],
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Judge synthetic records by the jobs of FILE: fidelity, diversity, utility, privacy, with a report.

    As `genai run FILE`, which does it too; here every job has to be `job: evaluate`.
    """
    from jobs.execute import Voice, run_file
    from jobs.outcome import settle

    def work(emit: Callable[[Any], None]) -> Any:
        from genai_core.errors import InvalidSpec
        from jobs.spec import entries

        others = [entry for entry in entries(file, overrides, slot()) if entry.job.job != "evaluate"]
        if others:
            raise InvalidSpec(
                f"{others[0].place}: job {others[0].job.job!r} evaluates nothing; `genai run {file}` runs it"
            )
        return run_file(file, overrides, Voice(quiet=quiet or as_json), emit, slot())

    return settle(work, {"file": file}, as_json, debug)


@click.command()
@click.argument("output", metavar="OUT", type=click.Path())
@click.option(
    "--reason", required=True, help="Why; it is kept with the output, in its lineage and in MLflow."
)
@answering
def publish(output: str, reason: str, as_json: bool, quiet: bool, debug: bool) -> int:
    """Publish what the gate of a job holds in OUT, although it failed."""
    from jobs.outcome import Outcome, complain, settle

    def work(_: Any) -> Outcome:
        from pipelines.context import Context
        from pipelines.publish import publish as let_through

        done = let_through(output, reason, Context())
        if not (quiet or as_json):
            complain(f"{done['rows']:,} rows published -> {done['output']}")
        return Outcome(done)

    return settle(work, {"job": "publish", "output": output}, as_json, debug)


COMMANDS = (evaluate, publish)
