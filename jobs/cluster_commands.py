"""The commands that talk to a Ray cluster: submit, status, logs, stop, jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from jobs.options import Command, answering, overriding, slotted

NAMES = (
    "an id such as genai-1f2e3d4c5b6a, or the job file that was submitted (with the same --set and --slot)"
)


def _addressed(command: Command) -> Command:
    option = click.option(
        "--address",
        metavar="URL",
        help="The cluster's dashboard, such as http://HOST:8265. Default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS.",
    )
    return option(command)


def _about(command: Command) -> Command:
    """WHAT, an id or a job file, and what else it takes to know which job is meant."""
    return click.argument("what", metavar="ID|FILE")(_addressed(overriding(slotted(command))))


def _subject(what: str, address: str | None, overrides: tuple[str, ...], slot: Callable[[], Any]) -> Any:
    from jobs.submissions import Subject

    return Subject(what, address, overrides, slot())


@click.command()
@click.argument("file", type=click.Path())
@_addressed
@overriding
@slotted
@click.option("--env", "environment", metavar="NAME", multiple=True,
              help="An environment variable that the job needs there, NAME or NAME=VALUE; no secrets.")  # fmt: skip
@click.option("--again", is_flag=True, help="Also if this job has succeeded for this slot.")
@click.option("--follow", is_flag=True, help="Show the log until the job is over, and end as it ends.")
@click.option("--wait", is_flag=True, help="The same without the log.")
@answering
def submit(slot: Callable[[], Any], as_json: bool, quiet: bool, debug: bool, **options: Any) -> int:
    """Run FILE on a Ray cluster.

    The job file and this code are sent there; the cluster needs the libraries in the same versions, or it refuses. The
    same job of the same slot is submitted once: a second time finds the first, or goes on after a failure.
    """
    from jobs.execute import Voice
    from jobs.outcome import settle
    from jobs.submit import Request
    from jobs.submit import submit as hand_over

    voice = Voice(quiet=quiet or as_json)
    return settle(
        lambda _: hand_over(Request(slot=slot(), **options), voice), {"file": options["file"]}, as_json, debug
    )


@click.command()
@_about
@answering
def status(as_json: bool, quiet: bool, debug: bool, **about: Any) -> int:
    """How a submitted job is: ID|FILE.

    Of a file also what its output and MLflow say: that works when the cluster has forgotten the job, or is gone.
    """
    from jobs.execute import Voice
    from jobs.outcome import settle
    from jobs.submissions import status as ask

    voice = Voice(quiet=quiet or as_json)
    return settle(lambda _: ask(_subject(**about), voice), {}, as_json, debug)


@click.command()
@_about
@click.option("--follow", is_flag=True, help="Until the job is over, whatever happens to the connection.")
@click.option("--debug", is_flag=True, envvar="GENAI_DEBUG", help="Show the traceback of an error.")
def logs(follow: bool, debug: bool, **about: Any) -> None:
    """What a submitted job has said: ID|FILE."""
    from jobs.submissions import logs as show

    del debug  # `main` reads it
    show(_subject(**about), follow)


@click.command()
@_about
@answering
def stop(as_json: bool, quiet: bool, debug: bool, **about: Any) -> int:
    """End a submitted job: ID|FILE. What it committed stays; submitted again, it goes on from there."""
    from jobs.execute import Voice
    from jobs.outcome import settle
    from jobs.submissions import stop as end

    voice = Voice(quiet=quiet or as_json)
    return settle(lambda _: end(_subject(**about), voice), {}, as_json, debug)


@click.command()
@_addressed
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--debug", is_flag=True, envvar="GENAI_DEBUG", help="Show the traceback of an error.")
def jobs(address: str | None, as_json: bool, debug: bool) -> None:
    """The submitted jobs that a cluster remembers."""
    from jobs.outcome import write_line
    from jobs.submissions import as_text
    from jobs.submissions import jobs as known
    from pipelines.progress import printable

    del debug  # `main` reads it
    found = known(address)
    if as_json:
        write_line({"jobs": found}, sys.stdout)
    else:
        click.echo(printable(as_text(found), keep="\n"))


COMMANDS = (submit, status, logs, stop, jobs)
