"""The commands of infra/compose.yaml, run on this machine without containers: a platform, and a job on it.

    python -m tests.infra.rehearsal

The commands, settings, secrets and health checks are those of the file; names of hosts become 127.0.0.1, ports become
free ones. PostgreSQL comes from the PATH (not as root); moto stands in for SeaweedFS. About two minutes of one core.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
SERVICES = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text("utf-8"))["services"]
TRAIN = """\
job: train
name: rehearsal
source: {kind: parquet, path: "s3://lake/table.parquet"}
model: {kind: autoregressive}
fit: {seed: 7, max_seconds: 5}
track: {register: rehearsal}
"""
NIGHTLY = """\
job: generate
model: models:/rehearsal@latest
rows: 4000
rows_per_shard: 1000
sink: {path: "s3://lake/out/{slot}"}
compute: {workers: 2}
"""


class Stage:
    """The file's services on loopback."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        names = ("postgres", "s3", "mlflow", "gcs", "dashboard", "head_agent", "agent")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        shutil.copy(ROOT / "infra" / "secrets.sh", folder)
        subprocess.run([folder / "secrets.sh"], check=True)
        self.secrets = folder / "secrets"

    def local(self, text: str) -> str:
        """A command or a setting of the file, as it has to be here."""
        here, ports = "127.0.0.1", self.ports
        for old, new in (
            ("/run/secrets/", f"{self.secrets}/"),
            ("http://s3:8333", f"http://{here}:{ports['s3']}"),
            ("postgres:5432", f"{here}:{ports['postgres']}"),
            ("mlflow:5000", f"{here}:{ports['mlflow']}"),
            (f"{here}:5000", f"{here}:{ports['mlflow']}"),
            ("--host 0.0.0.0 --port 5000", f"--host {here} --port {ports['mlflow']}"),
            ("ray-head:6379", f"{here}:{ports['gcs']}"),
            ("http://ray-head:", f"http://{here}:"),
            ("--port=6379", f"--port={ports['gcs']}"),
            ("--dashboard-host=0.0.0.0", f"--dashboard-host={here}"),
            (":8265", f":{ports['dashboard']}"),
            (":52365", f":{ports['agent']}"),
            ("${GENAI_WORKER_CPUS:-2}", "2"),
            ("$$", "$"),
        ):
            text = text.replace(old, new)
        return text

    def environment(self, service: str) -> dict[str, str]:
        """What the image and the file set, and nothing of the caller's but its paths."""
        image = dict(re.findall(r"(\w+)=(\S+?)(?: \\)?$", image_settings(), re.MULTILINE))
        inherited = {k: v for k, v in os.environ.items() if k in ("PYTHONPATH", "OMP_NUM_THREADS")}
        given = {k: self.local(v) for k, v in SERVICES[service].get("environment", {}).items()}
        home = {"HOME": str(self.folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
        return {**inherited, **image, **given, **home}

    def run(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A service that ends, or a command in its place."""
        command = list(arguments) or [self.local(word) for word in SERVICES[service]["command"]]
        return subprocess.run(
            command, env=self.environment(service), cwd=self.folder, capture_output=True, text=True
        )

    def start(self, service: str, *more: str) -> subprocess.Popen[bytes]:
        """A service that stays, until it is well by its own health check."""
        command = [self.local(word) for word in SERVICES[service]["command"]] + list(more)
        process = self.stack.enter_context(running(command, self.environment(service), self.folder, service))
        self.wait(service, process)
        return process

    def wait(self, service: str, process: subprocess.Popen[bytes]) -> None:
        """Raises RuntimeError with the log's end unless the service becomes well."""
        began = time.monotonic()
        while time.monotonic() - began < 120 and process.poll() is None:
            if self.well(service):
                print(f"{service:12} well after {time.monotonic() - began:.0f} s", flush=True)
                return
            time.sleep(1)
        raise RuntimeError(f"{service}: {(self.folder / f'{service}.log').read_text()[-3000:]}")

    def well(self, service: str) -> bool:
        """What the image's HEALTHCHECK says of it."""
        return self.run(service, sys.executable, str(ROOT / "infra" / "healthcheck.py")).returncode == 0


def image_settings() -> str:
    """The ENV lines of the Dockerfile's last stages."""
    text = (ROOT / "infra" / "Dockerfile").read_text("utf-8")
    return "\n".join(re.findall(r"^(?:ENV |    )(\w+=.*)$", text, re.MULTILINE))


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str], folder: Path, name: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is ended with all that it started."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=dict(env), cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            for kind in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, kind)
                    process.wait(20)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def postgres(stage: Stage) -> None:
    """The database that the official image would have made of its settings."""
    data, user = stage.folder / "postgres", SERVICES["postgres"]["environment"]["POSTGRES_USER"]
    data.mkdir()
    shutil.copy(stage.secrets / "postgres_password", data / "password")
    as_user: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses root
        for path in (data, data / "password"):
            shutil.chown(path, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--inh-caps=-all"]
    password = (stage.secrets / "postgres_password").read_text()
    server = Path(os.path.realpath(shutil.which("initdb") or sys.exit("no PostgreSQL on the PATH"))).parent
    make = [
        server / "initdb",
        "-D",
        data / "data",
        "-U",
        user,
        "-A",
        "scram-sha-256",
        f"--pwfile={data}/password",
    ]
    subprocess.run([*as_user, *make], check=True, stdout=subprocess.DEVNULL, cwd="/tmp")
    start = ["-D", data / "data", "-h", "127.0.0.1", "-p", str(stage.ports["postgres"]), "-k", data]
    stage.stack.enter_context(
        running([*as_user, server / "postgres", *start], os.environ, stage.folder, "postgres")
    )
    port, env = str(stage.ports["postgres"]), {**os.environ, "PGPASSWORD": password}
    check = SERVICES["postgres"]["healthcheck"]["test"][1:]
    while subprocess.run([*check, "--port", port], stdout=subprocess.DEVNULL).returncode:
        time.sleep(0.5)
    subprocess.run(
        ["createdb", "-h", "127.0.0.1", "-p", port, "-U", user, user],
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print("postgres     well", flush=True)


def store(stage: Stage) -> None:
    """An S3 server, and the buckets that the file's own command makes in it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(stage.ports["s3"])]
    stage.stack.enter_context(running(command, os.environ, stage.folder, "s3"))
    while socket.socket().connect_ex(("127.0.0.1", stage.ports["s3"])):
        time.sleep(0.2)
    made = stage.run("buckets")
    assert made.returncode == 0, made.stderr
    s3 = pafs.S3FileSystem(
        endpoint_override=f"http://127.0.0.1:{stage.ports['s3']}", access_key="x", secret_key="x"
    )
    assert {info.path for info in s3.get_file_info(pafs.FileSelector(""))} == {"lake", "mlflow"}
    table = pa.table({"a": [n % 7 for n in range(3000)], "b": [f"w{n % 5}" for n in range(3000)]})
    pq.write_table(table, "lake/table.parquet", filesystem=s3)
    print("s3           well, with the buckets", flush=True)


def cluster(stage: Stage) -> subprocess.Popen[bytes]:
    """Head and worker by the file's commands; what is added keeps two nodes of one machine apart."""
    ports, low = stage.ports, 21_000
    head = [f"--dashboard-port={ports['dashboard']}", f"--dashboard-agent-listen-port={ports['head_agent']}"]
    head += [f"--temp-dir={stage.folder}/ray", f"--min-worker-port={low}", f"--max-worker-port={low + 99}"]
    stage.start("ray-head", *head)
    worker = [f"--dashboard-agent-listen-port={ports['agent']}", f"--min-worker-port={low + 100}"]
    return stage.start("ray-worker", *worker, f"--max-worker-port={low + 199}")


def jobs(stage: Stage) -> None:
    """On the cluster: train a model into the registry, then generate with it, twice for one slot."""
    runner = f"compute.runner=127.0.0.1:{stage.ports['gcs']}"
    for name, text, reused in (
        ("train", TRAIN, False),
        ("nightly", NIGHTLY, False),
        ("nightly", NIGHTLY, True),
    ):
        (stage.folder / f"{name}.yaml").write_text(text)
        command = [str(BIN / "genai"), "run", f"{name}.yaml", "--slot", "2026-11-01", "--set", runner]
        done = stage.run("ray-head", *command)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        line = json.loads(done.stdout.splitlines()[-1])
        assert (line["status"], line.get("reused", False)) == ("done", reused), line
        print(f"{name:12} {'reused' if reused else 'done'}: {line}"[:400], flush=True)


def scheduled(stage: Stage) -> None:
    """The shipped CronJob's script, as its pod runs it for a slot that was missed; then for the same slot again."""
    manifest = (ROOT / "infra" / "kuberay" / "cronjob.yaml").read_text("utf-8")
    _, cronjob = yaml.safe_load_all(manifest)
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (stage.folder / "job.yaml").write_text(NIGHTLY)
    dashboard = f"http://127.0.0.1:{stage.ports['dashboard']}"
    shell, flag, script = container["command"]
    script = script.replace("/etc/genai/job.yaml", "job.yaml").replace(
        "http://genai-head-svc:8265", dashboard
    )
    token = (stage.secrets / "ray_token").read_text()
    pod = ["env", "-u", "RAY_AUTH_TOKEN_PATH", "JOB_NAME=nightly-2026-11-02", f"RAY_AUTH_TOKEN={token}"]
    for reused in (False, True):
        done = stage.run("genai", *pod, shell, flag, script)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        line = json.loads(done.stdout.splitlines()[-1])
        assert (line["status"], line["reused"]) == ("done", reused), line
        assert token not in done.stdout + done.stderr
        print(f"{'cronjob':12} {'reused' if reused else 'done'}: {line}"[:400], flush=True)


def submitted(stage: Stage) -> None:
    """The entry point of the shipped RayCronJob, submitted as KubeRay's submitter does: through two shells."""
    manifest = (ROOT / "infra" / "kuberay" / "raycronjob.yaml").read_text("utf-8")
    config, raycronjob = yaml.safe_load_all(manifest)
    script = config["data"]["run.sh"].replace("/etc/genai", str(stage.folder))
    (stage.folder / "run.sh").write_text("pwd\n" + script.replace(":6379", f":{stage.ports['gcs']}"))
    entry = raycronjob["spec"]["jobTemplate"]["entrypoint"].replace("/etc/genai", str(stage.folder))
    dashboard = f"http://127.0.0.1:{stage.ports['dashboard']}"
    done = stage.run("genai", "bash", "-c", f"ray job submit --address {dashboard} -- {entry}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    (line,) = [one for one in done.stdout.splitlines() if one.startswith('{"status"')]
    assert str(stage.folder) in done.stdout.splitlines(), "the driver starts where `ray start` did"
    print(f"{'raycronjob':12} {line}"[:400], flush=True)


def main() -> None:
    """Everything, once."""
    with tempfile.TemporaryDirectory(prefix="genai-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        stage = Stage(Path(folder), stack)
        postgres(stage)
        store(stage)
        stage.start("mlflow")
        worker = cluster(stage)
        jobs(stage)
        scheduled(stage)
        submitted(stage)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        assert not stage.well("ray-worker"), "a dead worker has to be told from a living one"
        print("ray-worker   told as dead once it is", flush=True)


if __name__ == "__main__":
    main()
