"""Faults of what a job leans on: the object store, the tracking server, the nodes of a Ray cluster"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import chaos_jobs as jobs
from benchmarks.chaos_jobs import Driver, Spec
from benchmarks.chaos_services import Cluster, Store, TrackingServer, clean
from benchmarks.chaos_verdict import (
    ANY,
    LIMIT_SECONDS,
    Fault,
    Found,
    Undisturbed,
    compare,
    summary,
    undisturbed,
)

if TYPE_CHECKING:
    from benchmarks.chaos import Bench

RAY_ROWS = 6000  # sixty shards: long enough for something to happen meanwhile
RAY_STALL = 150.0  # workers may take a minute to start on a busy machine
RAY_LIMIT = RAY_STALL + 90.0
BUCKET = "chaos"
CALLS = (  # of MLflow's client: what changes something
    "create_run",
    "log_batch",
    "log_inputs",
    "log_text",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "set_terminated",
)
LATE = CALLS[4:]  # where a model may be kept twice


class Places:
    """Starts a service when a fault first asks for it."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._known: dict[str, Any] = {}
        self._open: list[Callable[[], None]] = []

    def close(self) -> None:
        """End what was started."""
        for end in self._open:
            end()

    # -- the store ---------------------------------------------------------------------------------------------

    @cached_property
    def _store(self) -> Store:
        store = Store(clean(self.work / "store"))
        self._open.append(store.kill)
        store.start()
        made = Driver({}, self.work / "asking", environment=store.environment, act=_make_bucket).wait(60)
        if made.code:
            raise RuntimeError(made.said)
        return store

    def driver_store(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """The driver dies at any moment, with a request under way or not."""

        def happens(driver: Driver, seconds: float) -> None:
            driver.over(fault.chance * seconds)
            driver.kill()

        return self._on_store(bench, fault, home, happens)

    def store(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """It dies at any moment, and comes back with its data after at most three seconds."""

        def happens(driver: Driver, seconds: float) -> None:
            driver.over(fault.chance * seconds)
            self._store.kill()
            driver.over(3 * fault.choice)
            self._store.start()

        return self._on_store(bench, fault, home, happens)

    def store_frozen(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """It accepts connections and answers nothing, until the driver has given up."""

        hung: list[bool] = []

        def happens(driver: Driver, seconds: float) -> None:
            driver.over(fault.chance * seconds)
            self._store.signal(signal.SIGSTOP)
            hung.append(not driver.over(LIMIT_SECONDS))
            self._store.signal(signal.SIGCONT)

        found = self._on_store(bench, fault, home, happens)
        return replace(found, hangs=found.hangs + sum(hung))

    def _on_store(
        self, bench: Bench, fault: Fault, home: Path, happens: Callable[[Driver, float], None]
    ) -> Found:

        environment, uri = self._store.environment, f"s3://{BUCKET}/{fault.number}"
        spec = {**bench.spec(fault.verb), "sink": {"path": uri}}
        if f"store {fault.verb}" not in self._known:
            there = {**spec, "sink": {"path": f"s3://{BUCKET}/undisturbed-{fault.verb}"}}
            seconds = undisturbed(there, self.work / "undisturbed-store", environment).seconds
            self._known[f"store {fault.verb}"] = seconds
        driver = Driver(spec, home, environment=environment)
        happens(driver, self._known[f"store {fault.verb}"])
        ended, reruns = [driver.wait(LIMIT_SECONDS)], 0
        if not ended[0].done:
            ended, reruns = [*ended, Driver(spec, home, environment=environment).wait(LIMIT_SECONDS)], 1
        self._fetch(uri, clean(home / "out"))
        return compare(
            bench.undisturbed(fault.verb), fault, home, replace(summary(ANY, ended), reruns=reruns)
        )

    def _fetch(self, uri: str, target: Path) -> None:
        """The whole output, so that it is looked at as one on a disk."""
        spec = {"uri": uri, "target": str(target)}
        fetched = Driver(spec, self.work / "asking", environment=self._store.environment, act=_copy).wait(120)
        if fetched.code:
            raise RuntimeError(fetched.said)

    # -- MLflow -------------------------------------------------------------------------------------------------

    @cached_property
    def _server(self) -> TrackingServer:
        server = TrackingServer(clean(self.work / "mlflow"))
        self._open.append(server.kill)
        server.start()
        return server

    def driver_mlflow(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """The driver dies before one of its calls of MLflow's client; the database is a file."""

        calls = (
            [*LATE, "the answer"] if fault.verb == "train" else [*CALLS[:4], "set_terminated", "the answer"]
        )
        call = calls[fault.number % len(calls)]
        spec = self._tracked(bench.spec(fault.verb), f"sqlite:///{home / 'mlflow.db'}", fault)
        environment = self._tracking_environment(home)
        first = Driver(spec, home, environment=environment, act=_dying_before(call)).wait(LIMIT_SECONDS)
        ended = [first, Driver(spec, home, environment=environment).wait(LIMIT_SECONDS)]
        found = replace(summary(f"before {call}", ended), reruns=1, faults=int(first.killed))
        return self._recorded(bench, fault, home, found, home / "mlflow.db", spec)

    def mlflow_server(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """It dies at any moment of the job and comes back after its end; the next run delivers the rest."""

        spec = self._tracked(bench.spec(fault.verb), self._server.url, fault)
        environment = self._tracking_environment(self.work)
        known = self._reference(bench, fault.verb, self._server.url, self._server.database)
        driver = Driver(spec, home, environment=environment)
        driver.over(fault.chance * known[0].seconds)
        self._server.kill()
        first = driver.wait(LIMIT_SECONDS)
        self._server.start()
        ended = [first, Driver(spec, home, environment=environment).wait(LIMIT_SECONDS)]
        late = (
            first.seconds > known[0].seconds + 15
        )  # ten that a job may wait for its records to go, and a busy machine
        found = replace(summary(ANY, ended), reruns=int(not first.done))
        found = replace(found, hangs=found.hangs + late)
        return self._recorded(bench, fault, home, found, self._server.database, spec)

    def _tracked(self, spec: Spec, uri: str, fault: Fault) -> Spec:
        track: Spec = {"experiment": f"chaos-{fault.verb}-{fault.number}", "uri": uri}
        if fault.verb == "train":
            track["register"] = f"chaos-{fault.number}"
        return {**spec, "track": track}

    def _tracking_environment(self, home: Path) -> dict[str, str]:
        from pipelines import tracking

        tracking._mlflow()  # before the fork: it takes three seconds
        return {"GENAI_SPOOL": str(home / "spool"), "GENAI_CACHE": str(home / "cache")}

    def _reference(
        self, bench: Bench, verb: str, uri: str, database: Path
    ) -> tuple[Undisturbed, set[tuple[str, int]]]:
        """A tracked run that nobody disturbs, and its metrics by step."""

        key = f"tracked {verb} {uri.partition(':')[0]}"
        if key not in self._known:
            spec = self._tracked(bench.spec(verb), uri, Fault(-1, "", verb, 0, 0))
            home = self.work / f"undisturbed-tracked-{verb}"
            found = undisturbed(spec, home, self._tracking_environment(self.work / "reference"))
            self._known[key] = found, _metrics(database, f"chaos-{verb}--1")[0]
        known: tuple[Undisturbed, set[tuple[str, int]]] = self._known[key]
        return known

    def _recorded(
        self, bench: Bench, fault: Fault, home: Path, found: Found, database: Path, spec: Spec
    ) -> Found:
        """What MLflow knows of the job: its metrics, its end, one version of its model."""
        local = spec["track"]["uri"].startswith("sqlite")
        if local:
            other = self.work / f"undisturbed-tracked-{fault.verb}"
            uri, where = f"sqlite:///{other / 'mlflow.db'}", other / "mlflow.db"
        else:
            uri, where = self._server.url, self._server.database
        expected = self._reference(bench, fault.verb, uri, where)[1]
        if local:  # how long a job took whose driver has died cannot be told
            expected = {(name, step) for name, step in expected if name != "seconds"}
        metrics, runs, versions = _metrics(database, spec["track"]["experiment"])
        unfinished = [status for status in runs if status != "FINISHED"]
        # a job whose server is gone keeps its model here and says so; the run that registers it later is another
        kept = home / ".genai" / "models"
        again = fault.verb == "train" and not local and kept.exists()
        if again:
            _remove(kept)
        found = replace(
            found,
            lost=len(expected - metrics) + len(unfinished),
            twice=max(len(runs) - 1 - again, 0) + max(versions - 1, 0),
            note=f"{found.note} | runs {runs}, versions {versions}, missing {sorted(expected - metrics)[:5]}",
        )
        for name in ("mlflow.db", "mlartifacts", "spool", "cache"):
            _remove(home / name)
        return compare(bench.undisturbed(fault.verb), fault, home, found)

    # -- Ray ----------------------------------------------------------------------------------------------------

    @cached_property
    def _cluster(self) -> Cluster:
        cluster = Cluster(clean(self.work / "ray"))
        self._open.append(cluster.stop)
        return cluster

    def actor(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """One of two workers, when some shards are done; Ray starts another."""
        return self._on_ray(fault, home, lambda driver: self._kill_worker(fault))

    def driver_ray(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """The driver, when some shards are done; its workers may go on for a moment beside those of the next."""
        return self._on_ray(fault, home, lambda driver: driver.kill())

    def raylet(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """The node with all workers is lost, and another one comes."""

        def happens(driver: Driver) -> None:
            for process in self._cluster.find("raylet", self._cluster.node)[:1]:
                process.kill()
            self._cluster.lost_node()
            self._cluster.start()

        return self._on_ray(fault, home, happens)

    def head(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """The head is lost, and another one comes at the same address, which knows of nothing."""
        return self._on_ray(fault, home, self._lose_head)

    def training_worker(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """One of two, after the first checkpoint."""
        return self._on_ray(fault, home, lambda driver: self._kill_worker(fault))

    def head_training(self, bench: Bench, fault: Fault, home: Path) -> Found:
        """The head, after the first checkpoint."""
        return self._on_ray(fault, home, self._lose_head)

    def _lose_head(self, driver: Driver) -> None:
        for process in self._cluster.find("gcs_server", self._cluster.head)[:1]:
            process.kill()
        self._cluster.lost_head()
        driver.over(RAY_LIMIT)
        self._cluster.start()

    def _kill_worker(self, fault: Fault) -> None:
        workers = self._cluster.workers()
        with contextlib.suppress(IndexError):
            workers[int(fault.choice * len(workers))].kill()

    def _on_ray(self, fault: Fault, home: Path, happens: Callable[[Driver], None]) -> Found:

        self._cluster.start()
        if "ray" not in self._known:
            self._known["ray"] = jobs.prepare(self.work / "base-ray", RAY_ROWS)
        compute = {"stall_seconds": RAY_STALL, "runner": self._cluster.address, "workers": 2}
        spec = {**self._known["ray"][fault.verb], "compute": compute}
        key = f"ray {fault.verb}"
        if key not in self._known:  # a model of two workers is another than that of one; rows are the same
            alone = spec if fault.verb == "train" else {**spec, "compute": {}}
            self._known[key] = undisturbed(
                alone, self.work / f"undisturbed-ray-{fault.verb}", self._cluster.environment
            )
        environment = self._cluster.environment
        driver, what = Driver(spec, home, environment=environment), _progress(home, fault)
        happened = _wait_for(lambda: what() or driver.over(0), 120)
        late = driver.over(0)
        happens(driver)
        ended, reruns = [driver.wait(RAY_LIMIT)], 0
        if not ended[0].done:
            ended, reruns = [*ended, Driver(spec, home, environment=environment).wait(RAY_LIMIT)], 1
        found = summary("shards are done" if fault.verb != "train" else "a checkpoint is written", ended)
        found = replace(found, reruns=reruns, faults=int(happened and not late))
        return compare(self._known[key], fault, home, found)


def _progress(home: Path, fault: Fault) -> Callable[[], bool]:
    """Whether the job is so far that the fault may happen."""
    if fault.verb == "train":
        return lambda: any((home / "checkpoints").glob("*/state-*.safetensors"))
    records = 1 + int(fault.chance * 0.8 * RAY_ROWS / jobs.ROWS_PER_SHARD)
    return lambda: len(list((home / "out" / "_shards").glob("*.json"))) >= records


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def _make_bucket(spec: Spec) -> None:
    import pyarrow.fs as pafs

    pafs.S3FileSystem(
        endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True
    ).create_dir(BUCKET)


def _copy(spec: Spec) -> None:
    from pipelines.stores import storage

    filesystem, root = storage.resolve(spec["uri"])
    for info in storage.list_files(filesystem, root):
        target = Path(spec["target"]) / info.path[len(root) + 1 :]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read_bytes(filesystem, info.path))


def _dying_before(call: str) -> Callable[[Spec], Any]:
    """Runs the job; SIGKILL comes before the first such call of MLflow's client, or before the answer."""

    def act(spec: Spec) -> Any:
        import mlflow

        def die(*args: Any, **options: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if call in CALLS:
            setattr(mlflow.MlflowClient, call, die)
        result = jobs.killed_job.run(spec)
        die()
        return result

    return act


def _metrics(database: Path, experiment: str) -> tuple[set[tuple[str, int]], list[str], int]:
    """(name, step) of all metrics of an experiment's runs, the states of its runs, versions of its model."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        runs = connection.execute(
            "select r.run_uuid, r.status from runs r join experiments e using (experiment_id) where e.name = ?",
            (experiment,),
        ).fetchall()
        marks = ",".join("?" * len(runs))
        metrics = connection.execute(
            f"select key, step from metrics where run_uuid in ({marks})", [run for run, _ in runs]
        ).fetchall()
        versions = connection.execute(
            "select count(*) from model_versions where name = ?", (experiment,)
        ).fetchone()[0]
    return set(metrics), [status for _, status in runs], int(versions)


def _remove(path: Path) -> None:
    if path.is_dir():
        clean(path).rmdir()
    path.unlink(missing_ok=True)
