"""The command line: what each command prints where, exit codes, and how light it is to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from genai_core.errors import InvalidData, JobFailed, MissingCapability
from jobs.cli import genai, main

GENERATE = (
    "job: generate\nname: {name}\nmodel: models:/flights@latest\nrows: 10\nsink: {{path: out/{name}}}\n"
)
LIGHT = ("pydantic", "yaml", "pyarrow", "numpy", "rich")
HEAVY = ("torch", "ray", "mlflow", "pandas", "sklearn")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a job file of one, and one of three."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENAI_DEBUG", raising=False)
    (tmp_path / "one.yaml").write_text(GENERATE.format(name="a"))
    (tmp_path / "three.yaml").write_text("---\n".join(GENERATE.format(name=name) for name in "abc"))
    return tmp_path


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The generate verb replaced: jobs that it ran and checked, and what it shall raise, by name."""
    seen: dict = {"ran": [], "checked": [], "raise": {}, "refuse": {}, "contexts": []}

    def run(job, context):
        seen["ran"].append(job.name)
        seen["contexts"].append(context)
        if job.name in seen["raise"]:
            raise seen["raise"][job.name]
        context.log("working")
        return {
            "status": "done",
            "job_id": f"id-{job.name}",
            "output": job.sink.path,
            "rows": job.rows,
            "run_id": None,
        }

    def check(job, context):
        seen["checked"].append(job.name)
        seen["contexts"].append(context)
        if job.name in seen["refuse"]:
            raise seen["refuse"][job.name]
        return ["model: autoregressive"]

    monkeypatch.setattr("pipelines.generate.run", run)
    monkeypatch.setattr("pipelines.generate.check", check)
    return seen


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict], str]:
    """Exit code, the lines of standard output as JSON, standard error."""
    code = main(list(arguments))
    out, error = capfd.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], error


def test_one_job_ends_with_its_result(work, verb, capfd) -> None:
    code, lines, error = call(capfd, "run", "one.yaml", "--set", "rows=7")
    (line,) = lines
    assert code == 0
    assert line.pop("seconds") >= 0
    assert line == {
        "status": "done", "file": "one.yaml", "job": "generate", "name": "a", "job_id": "id-a",
        "output": "out/a", "rows": 7, "run_id": None,
    }  # fmt: skip
    assert "working" in error and "generate a: done 7 rows -> out/a" in error
    context = verb["contexts"][-1]
    assert context.spec_path == Path("one.yaml") and context.spec_text.startswith(
        "# --set rows=7\njob: generate"
    )


def test_several_jobs_are_all_checked_first_and_summed_up_last(work, verb, capfd) -> None:
    code, lines, _ = call(capfd, "run", "three.yaml")
    assert code == 0 and verb["checked"] == verb["ran"] == ["a", "b", "c"]
    assert [line["name"] for line in lines[:-1]] == ["a", "b", "c"]
    assert lines[-1]["status"] == "done" and [job["job_id"] for job in lines[-1]["jobs"]] == [
        "id-a",
        "id-b",
        "id-c",
    ]


def test_a_fault_in_a_later_job_keeps_the_first_from_starting(work, verb, capfd) -> None:
    verb["refuse"]["c"] = MissingCapability("a GAN has no likelihood")
    code, lines, error = call(capfd, "run", "three.yaml")
    assert code == 2 and verb["ran"] == []
    assert lines[-1]["status"] == "invalid" and "a GAN has no likelihood" in lines[-1]["error"]
    assert "three.yaml:13: a GAN has no likelihood" in error


def test_the_first_failure_ends_the_run_and_the_rest_is_said_not_to_have_started(work, verb, capfd) -> None:
    verb["raise"]["b"] = JobFailed("4 shards were quarantined")
    code, lines, error = call(capfd, "run", "three.yaml")
    assert code == 1 and verb["ran"] == ["a", "b"]
    assert lines[-1]["status"] == "failed"
    assert [job["status"] for job in lines[-1]["jobs"]] == ["done", "failed", "not started"]
    assert "generate b: error: 4 shards were quarantined" in error and "Traceback" not in error


def test_an_interruption_tells_what_was_done(work, verb, capfd) -> None:
    verb["raise"]["b"] = KeyboardInterrupt()
    code, lines, error = call(capfd, "run", "three.yaml")
    assert code == 130 and [job["status"] for job in lines[-1]["jobs"]] == ["done", "failed", "not started"]
    assert "the same command resumes" in error


def test_an_unexpected_error_is_short_without_debug(work, verb, capfd, monkeypatch) -> None:
    verb["raise"]["a"] = RuntimeError("boom")
    code, lines, error = call(capfd, "run", "one.yaml")
    assert code == 1 and lines[-1]["error"] == "RuntimeError: boom"
    assert "Traceback" not in error and "--debug" in error
    assert "Traceback" in call(capfd, "run", "one.yaml", "--debug")[2]
    monkeypatch.setenv("GENAI_DEBUG", "1")
    assert "Traceback" in call(capfd, "run", "one.yaml")[2]


def test_quiet_leaves_errors_and_json_leaves_nothing(work, verb, capfd) -> None:
    assert call(capfd, "run", "one.yaml", "--quiet")[2] == ""
    verb["raise"]["a"] = InvalidData("no rows")
    assert call(capfd, "run", "one.yaml", "--quiet")[2] == "generate a: error: no rows\n"
    code, lines, error = call(capfd, "run", "one.yaml", "--json")
    assert (code, error, lines[-1]["error"]) == (2, "", "no rows")


def test_check_tells_facts_and_runs_nothing(work, verb, capfd) -> None:
    code, (line,), error = call(capfd, "check", "three.yaml")
    assert code == 0 and line["status"] == "done" and verb["ran"] == []
    assert [job["facts"] for job in line["jobs"]] == [["model: autoregressive"]] * 3
    assert "three.yaml:1: generate a\n  model: autoregressive" in error and "3 jobs can run" in error
    assert [job.name for job in verb["contexts"][-1].earlier] == ["a", "b"]


def test_check_tells_the_faults_of_all_jobs(work, verb, capfd) -> None:
    verb["refuse"] = {"a": InvalidData("no rows"), "c": InvalidData("no file")}
    code, (line,), error = call(capfd, "check", "three.yaml")
    assert code == 2 and line["status"] == "invalid"
    assert [job["status"] for job in line["jobs"]] == ["invalid", "done", "invalid"]
    assert "three.yaml:1: no rows" in error and "three.yaml:13: no file" in error


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_file_is_bad_input(command: str, work, capfd) -> None:
    code, (line,), error = call(capfd, command, "on.yaml")
    assert code == 2 and line["status"] == "invalid"
    assert "did you mean 'one.yaml'?" in line["error"] and "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [("run",), ("run", "one.yaml", "--sed", "1"), ("check", "a", "b"), ("score", "--train", "x")]
)
def test_misuse_ends_with_the_line_too(arguments, work, capfd) -> None:
    code, (line,), error = call(capfd, *arguments)
    assert code == 2 and line["status"] == "invalid" and line["error"]
    assert "Usage: genai" in error and "--help" in error


def test_a_misspelt_command(capfd) -> None:
    code, lines, error = call(capfd, "rum")
    assert code == 2 and lines == [] and "run" in error


def test_list_names_everything_a_job_file_can(capfd) -> None:
    from genai_core.catalog import MODALITIES, MODELS, SCORES
    from jobs.spec import KINDS
    from pipelines.sources import SOURCES

    _, (found,), _ = call(capfd, "list", "--json")
    assert list(found["models"]) == list(MODELS) and list(found["jobs"]) == list(KINDS)
    assert found["modalities"] == list(MODALITIES) and found["sources"] == list(SOURCES)
    assert (
        list(found["scores"]) == list(SCORES)
        and all(found["scores"].values())
        and all(found["jobs"].values())
    )
    assert found["models"]["gan"]["bound"] is None
    main(["list"])
    text = capfd.readouterr().out
    assert all(word in text for word in (*MODELS, *MODALITIES, *SCORES, *SOURCES, *KINDS))


def test_schema_prints_what_is_shipped(capfd) -> None:
    assert main(["schema"]) == 0
    assert capfd.readouterr().out == (Path(__file__).parents[2] / "jobs" / "schema.json").read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capfd) -> None:
    assert main(["completion", shell]) == 0
    assert "_GENAI_COMPLETE" in capfd.readouterr().out


def test_completion_of_an_unknown_shell(monkeypatch, capfd) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    code, _, error = call(capfd, "completion")
    assert code == 2 and "bash, fish, zsh" in error


def test_completion_answers(monkeypatch, capfd) -> None:
    words = "genai run x.yaml --set fit.se"
    for name, value in {"_GENAI_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main([])
    assert capfd.readouterr().out.splitlines() == ["plain,fit.seed="]


def test_version(capfd) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("genai-core ")


def test_every_command_and_option_explains_itself() -> None:
    for command in genai.commands.values():
        assert command.help and command.help.strip().endswith((".", ")", '".')), command.name
        options = [option for option in command.params if isinstance(option, click.Option)]
        undocumented = [option.name for option in options if not option.help]
        assert not undocumented, (command.name, undocumented)


def fresh(code: str, *arguments: str, **more) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)


def test_the_command_line_loads_click_alone() -> None:
    code = f"import sys, jobs.cli; print([m for m in {(*HEAVY, *LIGHT)} if m in sys.modules])"
    assert fresh(code).stdout == "[]\n"


def test_checking_a_file_loads_nothing_heavy(work) -> None:
    code = (
        "import sys; from jobs.cli import main; code = main(['check', 'one.yaml', '--json']);"
        f"print(code, [m for m in {HEAVY} if m in sys.modules])"
    )
    assert fresh(code, cwd=work).stdout.splitlines()[-1] == "2 []"


def test_a_reader_that_goes_away_is_no_traceback(work) -> None:
    code = "import sys; from jobs.cli import main; sys.exit(main(['schema']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert "Traceback" not in done.stderr and done.returncode == 1
