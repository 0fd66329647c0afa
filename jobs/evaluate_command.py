"""The command `evaluate`: the jobs of a file that judge synthetic records, and nothing else"""

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


COMMANDS = (evaluate,)
