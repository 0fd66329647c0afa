"""The commands of provenance: `keys` makes and shows keys, `verify` says what a file is, `card` describes it"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from jobs.options import answering

MOST = 1000  # verdicts in the last line; of more files, those that are not as they should be


@click.group()
def keys() -> None:
    """Own keys that sign synthetic files: `sign: {key: DIR}` in a job, or GENAI_SIGNING_KEY=DIR."""


@keys.command("init")
@click.option("--to", metavar="DIR", type=click.Path(), help="Default: ~/.config/genai-core/keys.")
@click.option(
    "--organisation",
    default="genai-core",
    show_default=True,
    metavar="NAME",
    help="Who signs; everybody sees it.",
)
def init(to: str | None, organisation: str) -> None:
    """Make a certificate authority of one's own and a certificate that signs. Never overwrites.

    Give ca.pem to whoever shall verify. Keep ca.key offline: it is needed only for another signing certificate.
    """
    from pipelines.provenance import keys as made

    _say(made.init(Path(to).expanduser() if to else made.default_directory(), organisation))


@keys.command("show")
@click.option("--in", "place", metavar="DIR", type=click.Path(), help="Default: ~/.config/genai-core/keys.")
def show(place: str | None) -> None:
    """Whose keys lie in DIR, their fingerprints, and until when they sign."""
    from pipelines.provenance import keys as made

    _say(made.show(Path(place or made.directory_for(None) or made.default_directory()).expanduser()))


def _say(facts: Mapping[str, Any]) -> None:
    from pipelines.progress import printable

    for name, value in facts.items():
        click.echo(printable(f"{name.replace('_', ' ')}: {value}"))


@click.command()
@click.argument("path", type=click.Path())
@click.option(
    "--trust", metavar="PEM|DIR", help="Authorities to believe; default: GENAI_TRUST, else one's own."
)
@click.option(
    "--watermark-key-env", "variable", metavar="NAME", help="Look for the mark of this variable's key."
)
@click.option("--model", metavar="MODEL", help="Which made files that do not say so; for the watermark.")
@answering
def verify(
    path: str,
    trust: str | None,
    variable: str | None,
    model: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Real or synthetic, intact or changed, ours or others', and whether it may be used: a line for each file.

    PATH is a Parquet, PNG or WAV file, or a directory. Exit code 0: all are intact and of a trusted signer or an
    intact manifest; 1: something is changed, foreign or not known; 2: bad input.
    """
    from jobs.outcome import FAILED, Outcome, complain, settle

    def work(_: Any) -> Outcome:
        from pipelines.provenance.verification import verify as verdicts

        detector = None
        if variable is not None:
            from pipelines.provenance.watermarks import Detector

            detector = Detector(variable, model)
        found = verdicts(path, trust, detector)
        if not (quiet or as_json):
            complain("\n".join(_told(found)))
        bad = [one for one in found if not one["ok"]]
        shown = found if len(found) <= MOST else bad[:MOST]
        facts = {"files": len(found), "not_ok": len(bad), "verdicts": shown}
        if not bad:
            return Outcome(facts)
        return Outcome(facts, FAILED, f"{len(bad)} of {len(found)} file(s) are changed, foreign or not known")

    return settle(work, {"job": "verify", "path": path}, as_json, debug)


def _told(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each file; what many have in common is said once."""
    before: dict[str, Any] = {}
    for one in found:
        made = {True: "synthetic", False: "not marked as synthetic", None: "not known"}[one["synthetic"]]
        yield f"{one['file']}: {one['verdict']}, {made}, {one['origin']}"
        yield from (f"    {fault}" for fault in one["faults"])
        for name in ("made_by", "model", "training_data", "rights"):
            if one[name] and one[name] != before.get(name):
                yield f"    {name.replace('_', ' ')}: {one[name]}"
        if mark := one["watermark"]:
            heard = "found" if mark["found"] else "not found"
            yield f"    watermark: {heard}, z {mark['z']:.1f} in {mark['rows']:,} row(s), key {mark['key_id']}"
        before = {**before, **{name: value for name, value in one.items() if value}}


@click.command()
@click.argument("path", type=click.Path())
@click.option(
    "--as",
    "form",
    type=click.Choice(["markdown", "json", "croissant"]),
    default="markdown",
    show_default=True,
    help="Markdown for people, JSON for programs, Croissant for catalogues.",
)
def card(path: str, form: str) -> None:
    """Print the card of a model (a directory, or models:/NAME@latest) or of an output.

    What is known of it, and what nobody stated.

    Croissant is JSON-LD for catalogues of data sets.
    """
    from pipelines.progress import printable
    from pipelines.provenance import cards
    from pipelines.tracking import resolve_model

    if path.startswith(("models:/", "runs:/")):
        path = str(resolve_model(path).directory)
    if form == "croissant":
        text = cards.as_json(cards.croissant_of(path))
    else:
        found = cards.of_path(path)
        text = cards.as_markdown(found) if form == "markdown" else cards.as_json(found)
    click.echo(printable(text, keep="\n"), nl=False)


COMMANDS = (card, keys, verify)
