"""Options that several commands of `genai` share; loads click alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

Command = Callable[..., Any]


def answering(command: Command) -> Command:
    """The options of every command that ends with a JSON line."""
    for option in (
        click.option("--debug", is_flag=True, envvar="GENAI_DEBUG", help="Show the traceback of an error."),
        click.option("--quiet", is_flag=True, help="Say nothing on standard error but errors."),
        click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error at all."),
    ):
        command = option(command)
    return command


def slotted(command: Command) -> Command:
    """The options that say which time a run stands for; the command gets `slot`, a function that reads them."""

    @wraps(command)
    def made(slot: str | None, cron: str | None, timezone: str, **others: Any) -> Any:
        from jobs.slots import slot_from

        return command(slot=lambda: slot_from(slot, cron, timezone), **others)

    for option in (
        click.option("--timezone", default="UTC", show_default=True, metavar="ZONE",
                     help="Zone of --slot and --cron, such as Europe/Berlin."),
        click.option("--cron", metavar="EXPRESSION",
                     help="Fill {slot} with the last time at which this schedule was due."),
        click.option("--slot", metavar="TIME",
                     help="Fill {slot} in FILE with this time, such as 2026-11-01: to back-fill a missed run."),
    ):  # fmt: skip
        made = option(made)
    return made


def overriding(command: Command) -> Command:
    """`--set KEY=VALUE`, which the command gets as `overrides`."""
    option = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        shell_complete=_complete_set,
        help="Override a key in every job of FILE that has it, such as fit.seed=8. May be repeated.",
    )
    return option(command)


def _complete_set(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """`--set fit.s<TAB>`: the keys of the jobs that there are."""
    from jobs.overrides import settable
    from jobs.spec import KINDS

    return [f"{key}=" for key in settable(KINDS.values()) if key.startswith(incomplete)]
