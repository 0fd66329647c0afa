"""The command line `genai`. Commands import what they need when they run: `genai --help` loads click alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from jobs import cluster_commands, evaluate_command, people_commands, provenance_commands
from jobs.options import answering, overriding, slotted

# commands whose last line of standard output is a JSON object
ANSWERS = (
    "run",
    "check",
    "evaluate",
    "publish",
    "score",
    "export",
    "submit",
    "status",
    "stop",
    "judge",
    "triage",
    "verify",
)
SHELLS = ("bash", "fish", "zsh")
SCHEDULERS = ("airflow", "cron", "github", "kubernetes", "raycronjob")


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = genai.main(args=given, prog_name="genai", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return _refuse(error, given)
    except click.Abort:
        return 130
    except BrokenPipeError:  # `genai list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        return _fail(error, given)
    return code if isinstance(code, int) else 0


def _refuse(error: click.ClickException, given: Sequence[str]) -> int:
    """A misused command: click's own message, and the JSON line that schedulers wait for."""
    from jobs.outcome import INVALID, complain, write_line

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        complain(error.format_message())
        return INVALID
    if isinstance(error, click.UsageError) and error.ctx is not None:
        complain(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help'.")
    complain(f"error: {error.format_message()}")
    if _answers(given):
        write_line({"status": "invalid", "error": error.format_message()}, sys.stdout)
    return INVALID


def _fail(error: Exception, given: Sequence[str]) -> int:
    """An error outside of a job: in lineage, in list, or of a broken installation."""
    from jobs.outcome import complain, explain, show_traceback, write_line

    outcome = explain(error)
    if "--debug" in given or os.environ.get("GENAI_DEBUG"):
        show_traceback(error)
    complain(outcome.sentence)
    if _answers(given) or "--json" in given:
        write_line(outcome.line(), sys.stdout)
    return outcome.code


def _answers(given: Sequence[str]) -> bool:
    return next((word for word in given if not word.startswith("-")), "") in ANSWERS


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"genai-core {version()}")
        ctx.exit()


def version() -> str:
    """Of the installed package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("genai-core")
    except PackageNotFoundError:
        return "(not installed)"


EPILOG = """\b
genai check job.yaml                  would it run?
genai run job.yaml --set fit.seed=8   run it; the same command resumes it
genai score --train a.csv --test b.csv --out scores.npy
genai submit job.yaml --address http://HOST:8265 --follow     run it on a Ray cluster
\b
The last line of standard output of run, check, score, export, submit, status and stop is one JSON object.
Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""


@click.group(
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def genai() -> None:
    """Generative models of tables, pictures, texts and sounds: train, make synthetic records, find anomalies.

    A job is a YAML file. It runs in this process, on a local Ray or on a cluster, and is tracked in MLflow.
    """


@genai.command()
@click.argument("file", type=click.Path(allow_dash=True))
@overriding
@slotted
@answering
def run(
    file: str,
    overrides: tuple[str, ...],
    slot: Callable[[], Any],
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Run the jobs of FILE, one after the other ('-': standard input).

    What is done already is not done again: the same command resumes an interrupted job.
    """
    from jobs.execute import Voice, run_file
    from jobs.outcome import settle

    voice = Voice(quiet=quiet or as_json)
    return settle(lambda emit: run_file(file, overrides, voice, emit, slot()), {"file": file}, as_json, debug)


@genai.command()
@click.argument("file", type=click.Path(allow_dash=True))
@overriding
@slotted
@answering
def check(
    file: str,
    overrides: tuple[str, ...],
    slot: Callable[[], Any],
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Find what is wrong with FILE before anything runs.

    Spelling, paths, schema against the model, what the model can give, room and servers. Writes nothing.
    """
    from jobs.execute import Voice, check_file
    from jobs.outcome import settle

    voice = Voice(quiet=quiet or as_json)
    return settle(lambda _: check_file(file, overrides, voice, slot()), {"file": file}, as_json, debug)


@genai.command()
@click.argument("file", type=click.Path())
@click.option("--cron", required=True, metavar="EXPRESSION", help="Five fields, such as '0 2 * * *'.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Such as Europe/Berlin.")
@click.option("--as", "form", required=True, type=click.Choice(SCHEDULERS), help="Who starts the job.")
@overriding
@click.option("--name", help="Of what is made; default: the file's name.")
@click.option("--image", help="Container image; default: genai-core, tagged with this version.")
@click.option("--namespace", help="Of Kubernetes.")
@click.option("--claim", help="Of Kubernetes: the PersistentVolumeClaim in which relative paths lie.")
@click.option(
    "--cluster", metavar="URL", help="Dashboard of the Ray cluster that shall do the job: genai submit."
)
def schedule(form: str, **options: Any) -> None:
    """Print what a scheduler needs to run FILE: a manifest, a crontab line, a DAG or a workflow.

    Every run stands for a slot, the time on the schedule: `{slot}` in FILE becomes its date, so that a late run or a
    retry is the same job. A missed one is run by hand: genai run FILE --slot 2026-11-01.
    """
    from jobs.schedule import Request, write

    click.echo(write(form, Request(**options)), nl=False)


@genai.command()
@click.option(
    "--train", required=True, metavar="FILE", help="Reference rows: .npz (array X), .parquet or .csv."
)
@click.option("--test", required=True, metavar="FILE", help="Rows to score; may be the same file.")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="Scores, one a row, in order: .npy, or .parquet with p-values.",
)
@click.option("--score", help="What to give; default: the model's first, see `genai list`.")
@click.option("--reference", type=click.Choice(["clean", "contaminated"]), default="clean", show_default=True,
              help="Whether the reference rows are all normal, or hold anomalies too.")  # fmt: skip
@click.option(
    "--model",
    default="autoregressive",
    show_default=True,
    metavar="KIND",
    help="Model family; see genai list.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="COLUMN",
    help="A column to leave out, such as a label or an id. May be repeated.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Same seed, same scores."
)
@click.option(
    "--max-seconds", type=click.FloatRange(0, min_open=True), default=None, help="Time limit of the fit."
)
@answering
def score(as_json: bool, quiet: bool, debug: bool, **options: Any) -> int:
    """Fit on one table and score another in one go: higher is more anomalous.

    For trying it on a table. For large data, resuming and lineage write a job file with `job: score`.
    """
    from jobs.outcome import settle
    from jobs.quick_score import Request, fit_and_score

    request = Request(**options)
    facts = {"job": "score", "output": request.out}
    return settle(lambda _: fit_and_score(request, quiet or as_json), facts, as_json, debug)


@genai.command()
@click.argument("directory", type=click.Path())
@click.option("--as", "form", type=click.Choice(["files", "tfrecord"]), required=True, help="What to write.")
@click.option("--to", required=True, metavar="DIR", help="Where: a new directory, or the same export's.")
@click.option(
    "--key", metavar="DIR", help="Signs each of the files; default: that of GENAI_SIGNING_KEY, if set."
)
@answering
def export(
    directory: str, form: str, to: str, key: str | None, as_json: bool, quiet: bool, debug: bool
) -> int:
    """Write the finished output in DIRECTORY once more, for other programs.

    TFRecord for TensorFlow; pictures and sounds as PNG and WAV files, signed (C2PA) when there is a key.
    """
    from jobs.outcome import Outcome, complain, settle

    def work(_: Any) -> Outcome:
        from pipelines.outputs import record_files, tfrecord

        if key is not None and form != "files":
            raise click.UsageError("--key signs the files of `--as files`")
        written = (
            record_files.export(directory, to, key) if form == "files" else tfrecord.export(directory, to)
        )
        if not (quiet or as_json):
            complain(f"{written['rows']:,} rows in {len(written['files'])} files -> {to}")
        return Outcome({"rows": written["rows"], "files": len(written["files"])})

    return settle(work, {"job": "export", "as": form, "output": to}, as_json, debug)


@genai.command("list")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def list_(as_json: bool) -> None:
    """What there is: jobs, models and what they can do, modalities, scores, sources."""
    from jobs.listing import as_text, contents

    found = contents()
    if as_json:
        from jobs.outcome import write_line

        write_line(found, sys.stdout)
    else:
        click.echo(as_text(found))


@genai.command()
def schema() -> None:
    """The JSON schema of a job, for editors that check YAML while it is written."""
    from jobs.spec import schema_text

    click.echo(schema_text(), nl=False)


@genai.command()
@click.argument("path", metavar="OUT", type=click.Path())
@click.option("--row", "rows", metavar="COLUMN=VALUE", multiple=True, required=True,
              help="Which row: a column of OUT and its value, such as source_row=7. May be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--debug", is_flag=True, envvar="GENAI_DEBUG", help="Show the traceback of an error.")
def explain(path: str, rows: tuple[str, ...], as_json: bool, debug: bool) -> None:
    """Why a row of OUT is odd, what would be normal in its place, and the normal row most like it.

    OUT is the output of a score or lake job. The row is read from its source again.
    """
    from jobs.explain import render, wanted
    from jobs.outcome import write_line
    from pipelines.explain import explain_rows
    from pipelines.progress import printable

    del debug  # as in `lineage`
    answers = explain_rows(path, wanted(rows))
    if as_json:
        write_line({"rows": answers}, sys.stdout)
    else:
        click.echo(printable(render(answers), keep="\n"))


@genai.command()
@click.argument("path", type=click.Path())
@click.option("--verify", is_flag=True, help="Compare every byte of an output with its manifest.")
@click.option("--row", metavar="LINEAGE", help="Of one row of an output: its value in the column _lineage.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--debug", is_flag=True, envvar="GENAI_DEBUG", help="Show the traceback of an error.")
def lineage(path: str, verify: bool, row: str | None, as_json: bool, debug: bool) -> None:
    """Where an output came from, back to its training data.

    PATH is an output directory, one of its Parquet files, or a model's directory.
    """
    from jobs.outcome import write_line
    from pipelines.progress import printable
    from pipelines.tracked.lineage import lineage as tree_of
    from pipelines.tracked.lineage import render

    del debug  # `main` reads it: it shows the tracebacks of commands that are no job
    if row is None:
        tree = tree_of(path, verify)
    else:
        from pipelines.provenance.row_origin import in_output

        file, values = in_output(path, row)
        tree = tree_of(file) | {"row": {name: str(value) for name, value in values.items()}}
    if as_json:
        write_line(tree, sys.stdout)
    else:
        click.echo(printable(render(tree), keep="\n"))
        for name, value in tree.get("row", {}).items():
            click.echo(printable(f"  {name}: {value}"))


@genai.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script of a shell: eval "$(genai completion bash)"."""
    from click.shell_completion import get_completion_class

    name = shell or Path(os.environ.get("SHELL", "bash")).name
    maker = get_completion_class(name)
    if maker is None:
        raise click.UsageError(f"there is no completion for {name!r}; name one of {', '.join(SHELLS)}")
    click.echo(maker(genai, {}, "genai", "_GENAI_COMPLETE").source())


for _group in (cluster_commands, evaluate_command, people_commands, provenance_commands):
    for _command in _group.COMMANDS:
        genai.add_command(_command)

if __name__ == "__main__":
    sys.exit(main())
