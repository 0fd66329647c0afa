"""Submitting to a real cluster on loopback: one job for one slot, logs over a bad line, stopping, a head that dies."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.plan import code_fingerprint
from tests.ray_cluster import RayCluster, free_ports, ticks

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
SHARDS, ROWS = 60, 2000
TALKER = "genai-0123456789ab"
TALK = f"""
import sys
from pathlib import Path
import genai_core
from pipelines.running.ray_jobs import Cluster, Parcel, dashboard_address
words = "for i in $(seq 40); do echo line $i; sleep 0.2; done"
parcel = Parcel(words, Path(sys.argv[1]), [Path(genai_core.__file__).parent], {{}}, {{"genai": "test"}})
Cluster(dashboard_address(None), print).submit("{TALKER}", parcel)
"""


class Desk:
    """Where somebody sits who submits: a folder, a copy of the code that is installed nowhere, a cluster."""

    def __init__(self, cluster: RayCluster, folder: Path, code: Path) -> None:
        self.cluster, self.folder, self.code = cluster, folder, code

    def start(self, *words: str, out: Any = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.cluster.environment(**({"PYTHONPATH": str(self.code)} | environment)),
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )

    def genai(self, *words: str, **environment: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, the last line of standard output as JSON, standard error. Never says the token."""
        process = self.start("-m", "jobs.cli", *words, **environment)
        out, error = process.communicate(timeout=300)
        assert self.cluster.token not in out + error and "Traceback" not in error
        return process.returncode, json.loads(out.splitlines()[-1]), error


@pytest.fixture(scope="module")
def desk(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    code, folder = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("desk")
    for package in ("genai_core", "jobs", "pipelines"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "pipelines" / "plan.py").open("a") as file:
        file.write("# changed on this desk alone\n")
    (folder / "nightly.yaml").write_text(
        f"job: generate\nname: nightly\nmodel: {small_model}\nrows: {SHARDS * ROWS}\nrows_per_shard: {ROWS}\n"
        f"sink: {{path: '{folder}/out/{{slot}}'}}\ntrack: {{enabled: false}}\ncompute: {{workers: 2}}\n"
    )
    cluster = RayCluster(workers=2)
    yield Desk(cluster, folder, code)
    cluster.end()


NIGHT = ("nightly.yaml", "--slot", "2026-11-01")


def test_one_slot_is_one_job_which_is_stopped_and_goes_on(desk: Desk) -> None:
    code, first, said = desk.genai("submit", *NIGHT)
    assert (code, first["status"], first["reused"]) == (0, "pending", False) and first[
        "submission_id"
    ] in said
    code, second, said = desk.genai("submit", *NIGHT, "--set", "compute.workers=1")
    assert (code, second["submission_id"], second["reused"]) == (0, first["submission_id"], True)
    records = desk.folder / "out" / "2026-11-01" / "_shards"
    next(_ for _ in ticks() if len(list(records.glob("*.json"))) > 2)
    actors = desk.cluster.named("MapWorker")  # held, or a quick machine is done before it is stopped
    assert actors
    for actor in actors:
        actor.suspend()

    code, stopped, said = desk.genai("stop", first["submission_id"])
    assert (code, stopped["status"]) == (0, "stopped") and "goes on from there" in said
    for actor in actors:
        with contextlib.suppress(psutil.Error):
            actor.resume()
    code, known, _ = desk.genai("status", *NIGHT)
    assert (code, known["status"], known["known_from"]) == (0, "stopped", "cluster")
    assert (
        known["jobs"][0]["status"] == "unfinished"
        and 2 < known["jobs"][0]["shards"] < SHARDS == known["jobs"][0]["of"]
    )

    code, again, said = desk.genai("submit", *NIGHT, "--set", "compute.runner=inline", "--follow")
    assert (code, again["status"], again["submission_id"]) == (0, "done", first["submission_id"] + "-2")
    assert again["resumed_shards"] >= known["jobs"][0]["shards"] and again["rows"] == SHARDS * ROWS
    assert f"resuming: {again['resumed_shards']} of {SHARDS} shards are done" in said
    assert desk.genai("submit", *NIGHT)[1]["reused"]


def test_the_code_that_ran_is_the_desk_s_and_the_bytes_are_those_of_a_run_there(desk: Desk) -> None:
    made = json.loads((desk.folder / "out" / "2026-11-01" / "_JOB.json").read_text())
    home = ("--set", "sink.path=home", "--set", "compute.runner=inline")
    code, here, _ = desk.genai("run", *NIGHT, *home)
    assert code == 0 and made["job_id"] == here["job_id"]
    assert made["parts"]["code"] != code_fingerprint(), "the cluster ran what is installed, not what was sent"
    manifest = json.loads((desk.folder / "out" / "2026-11-01" / "_MANIFEST.json").read_text())
    assert manifest["hash"] == here["manifest"]
    code, known, said = desk.genai("status", *NIGHT[:1], "--slot", "2026-12-24", *home[:2])
    assert (code, known["status"], known["known_from"]) == (0, "done", "output and tracking")
    assert "knows no submission of this job" in said


def test_a_log_is_followed_over_a_line_that_breaks(desk: Desk) -> None:
    talk = desk.start("-c", TALK, str(desk.folder))
    assert talk.wait(60) == 0, talk.stderr and talk.stderr.read()
    port = free_ports(1)[0]
    tunnel = Tunnel(port, int(desk.cluster.address.rpartition(":")[2]))
    words = ("-m", "jobs.cli", "logs", TALKER, "--address", f"http://127.0.0.1:{port}", "--follow")
    heard = desk.folder / "heard.txt"
    with heard.open("w") as out:
        follower = desk.start(*words, out=out)
    next(_ for _ in ticks() if "line 5\n" in heard.read_text())
    tunnel.cut()
    time.sleep(3)
    tunnel.mend()
    _, error = follower.communicate(timeout=120)
    tunnel.cut()
    assert follower.returncode == 0 and "Trying again" in error
    spoken = [line for line in heard.read_text().splitlines() if line.startswith("line ")]
    assert spoken == [f"line {i}" for i in range(1, 41)]


@pytest.mark.parametrize(("token", "words"), [("f" * 48, "refuses the token"), ("", "wants a token")])
def test_a_wrong_token_is_explained(desk: Desk, token: str, words: str) -> None:
    code, line, said = desk.genai("jobs", "--json", RAY_AUTH_TOKEN=token, HOME=str(desk.folder))
    assert code == 2 and words in line["error"] and "RAY_AUTH_TOKEN" in said
    assert not token or token not in said


def test_a_cluster_of_other_versions_refuses_to_start(desk: Desk) -> None:
    older = desk.folder / "older" / "pyarrow-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 1.0\n")
    path = f"{older.parent}:{desk.code}"
    night = ("nightly.yaml", "--slot", "2026-11-03")
    code, line, _ = desk.genai("submit", *night, "--wait", PYTHONPATH=path)
    assert (code, line["status"]) == (2, "invalid") and "pyarrow 1.0 wanted, " in line["error"]
    assert not (desk.folder / "out" / "2026-11-03").exists()
    code, jobs, _ = desk.genai("jobs", "--json")
    found = {one["id"]: one for one in jobs["jobs"]}
    assert found[line["submission_id"]]["state"] == "invalid" and found[TALKER]["state"] == "done"


def test_when_the_head_is_dead_the_output_still_tells(desk: Desk) -> None:
    desk.cluster.kill_head()
    code, known, said = desk.genai("status", *NIGHT)
    assert (code, known["status"], known["known_from"]) == (0, "done", "output and tracking")
    assert known["jobs"][0]["rows"] == SHARDS * ROWS and "no answer from the cluster" in said
    code, line, _ = desk.genai("status", "genai-0123456789ab")
    assert (code, line["status"]) == (2, "invalid") and "no answer from the cluster" in line["error"]


class Tunnel:
    """A way from one port of loopback to another that can be cut and mended."""

    def __init__(self, port: int, to: int) -> None:
        self.port, self.to = port, to
        self.open: list[socket.socket] = []
        self.mend()

    def mend(self) -> None:
        self.door = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self.door,), daemon=True).start()

    def cut(self) -> None:
        for one in [self.door, *self.open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.open.clear()

    def _serve(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = door.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.to))
                self.open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
