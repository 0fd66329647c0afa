"""Training on Ray Train: the same loop on several workers; gloo between CPUs, nccl between GPUs.

Every worker encodes its own share of the files, so no worker holds the data set. A worker or a machine that dies brings
the group down and up again (`compute.retries`), with as many workers as there is room for (`compute.workers:
FEWEST..MOST`), and the fit goes on from the last checkpoint. Checkpoints are ours, not Ray's: one file each, read and
written the same way by training in one process, and Ray's reports cost up to two seconds a validation.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import queue
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core import artifact, catalog
from genai_core.errors import JobFailed, Stalled, Unavailable
from genai_core.fitted import FittedModel
from genai_core.loop import Fit, Progress
from genai_core.monitors.signals import line
from genai_core.replicas import Distributed
from genai_core.spaces import Records
from genai_core.splits import spread
from genai_core.train import finish, new_model, score_rows
from pipelines.settings import ComputeSettings
from pipelines.training.allocator import keep_freed_memory
from pipelines.training.checkpoints import Checkpoints, State
from pipelines.training.encoding import Encoded, encode_source, shares
from pipelines.training.fitting import Fitting
from pipelines.training.local_training import calibration_rows

POLL_SECONDS = 2.0
PEER_SECONDS = 1800  # a worker may read its share so much longer than another


def fit_on_ray(task: Fitting) -> FittedModel:
    """Run `_worker` on every worker and put the model together from the result. Raises JobFailed, Stalled."""
    job = task.job
    kept = Checkpoints(_absolute(job.checkpoints), task.job_id)
    follower = _Follower(task, kept)
    if (result := kept.result()) is None:  # else a driver has died between the fit and its end
        try:
            _run(task, kept, follower)
        except JobFailed:
            if follower.facts:
                task.show(follower.facts)
            raise
        result = kept.result()
    if result is None:
        raise JobFailed(
            "training on Ray ended without a result; run the job again to go on from the last checkpoint"
        )
    return _assemble(task, result, follower)


def _run(task: Fitting, kept: Checkpoints, follower: _Follower) -> None:
    from pipelines.running.ray_session import autoscales, ray_session

    compute = task.job.compute
    kept.announce()
    with ray_session(compute) as session:
        if not autoscales(session):
            _refuse_missing(session.cluster_resources(), compute)
        trainer = _trainer(task)
        room = _Room(session, compute)

        def look() -> None:
            room.look()
            follower.look()

        try:
            _watched(trainer.fit, look)
        except Stalled:
            raise
        except Exception as error:
            raise JobFailed(
                f"training on Ray failed after {compute.retries} restart(s): {_cause(error)}; the same command goes on "
                "from the last checkpoint"
            ) from error


def _trainer(task: Fitting) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    compute = task.job.compute
    whole_gpu = compute.gpus_per_worker == 1  # nccl refuses two processes on one
    return TorchTrainer(
        _worker,
        train_loop_config=_config(task),
        torch_config=TorchConfig(
            backend="nccl" if whole_gpu else "gloo", timeout_s=int(max(compute.stall_seconds, PEER_SECONDS))
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=compute.workers if compute.min_workers is None else (compute.fewest, compute.workers),
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker=_wanted(compute),
        ),
        run_config=ray.train.RunConfig(
            name=task.job_id,
            storage_path=str(task.scratch / "ray"),  # a mark of its own is all that Ray writes
            failure_config=ray.train.FailureConfig(max_failures=compute.retries),
        ),
    )


def _config(task: Fitting) -> dict[str, Any]:
    """What workers are given."""
    settings, arrays = task.codec.state()
    by_worker = itertools.zip_longest(*shares(task.source, task.job.compute.workers))
    return {
        "job": task.job.model_dump(mode="json", by_alias=True),
        "job_id": task.job_id,
        "checkpoints": _absolute(task.job.checkpoints),
        "codec": settings,
        "arrays": arrays,
        "reader": task.source.reader,  # knows the files' places: a worker's working directory is another
        "parent": None if task.parent is None else str(task.parent.absolute()),
        "pieces": [piece for row in by_worker for piece in row if piece is not None],
    }


def _wanted(compute: ComputeSettings) -> dict[str, float]:
    """What Ray sets aside for a worker."""
    gpus = {"GPU": compute.gpus_per_worker} if compute.gpus_per_worker else {}
    return {"CPU": compute.cpus_per_worker, **gpus}


def _refuse_missing(there: dict[str, float], compute: ComputeSettings) -> None:
    """Ray Train waits for ever, and in silence, for what a cluster does not have."""
    for kind, each in _wanted(compute).items():
        if compute.fewest * each > there.get(kind, 0):
            raise Unavailable(
                f"{compute.fewest} worker(s) want {compute.fewest * each:g} {kind}(s) and Ray has "
                f"{there.get(kind, 0):g}; lower compute.workers or what each of them takes"
            )


def _watched(fit: Callable[[], Any], look: Callable[[], None]) -> None:
    """Run `fit` in a thread, and `look` here now and then; what either raises ends both."""
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            fit()
        except BaseException as error:
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=run, daemon=True).start()
    while True:
        try:
            error = outcome.get(timeout=POLL_SECONDS)
        except queue.Empty:
            look()
            continue
        if error is not None:
            raise error
        return


class _Room:
    """Ends a fit that has waited too long for machines: Ray Train itself waits for ever."""

    def __init__(self, session: Any, compute: ComputeSettings) -> None:
        self.session, self.compute, self.seen = session, compute, time.monotonic()

    def look(self) -> None:
        """Raises Stalled."""
        room = _room(self.session.nodes(), _wanted(self.compute))
        if room >= self.compute.fewest:
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > self.compute.stall_seconds:
            raise Stalled(
                f"for {self.compute.stall_seconds:g} s the cluster had room for {room} of the {self.compute.fewest} "
                "worker(s) that are needed; when machines are back, the same command goes on from the last checkpoint "
                "(compute.workers: FEWEST..MOST goes on with fewer)"
            )


def _room(nodes: list[dict[str, Any]], wanted: dict[str, float]) -> int:
    """Workers that fit on the machines that are alive."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(int(min(there.get(kind, 0) // each for kind, each in wanted.items())) for there in alive)


class _Follower:
    """Reports the validations of a fit that runs elsewhere, as its checkpoints tell of them."""

    def __init__(self, task: Fitting, kept: Checkpoints) -> None:
        self.task, self.kept, self.told, self.shown = task, kept, 0, 0.0
        self.events, self.facts = 0, dict[str, Any]()

    def look(self) -> None:
        with contextlib.suppress(Unavailable):  # a store that fails now is asked again
            if facts := self.kept.facts():
                self.tell(facts)

    def tell(self, progress: dict[str, Any]) -> None:
        """Of the progress in a checkpoint, what is new."""
        for entry in progress["history"][self.told :]:
            metrics = {name: value for name, value in entry.items() if name != "step"}
            self.task.report(metrics, int(entry["step"]))
        self.told = max(self.told, len(progress["history"]))
        events = progress.get("health", {}).get("events", [])
        for event in events[self.events :]:
            self.task.tell(line(event))
        self.events = max(self.events, len(events))
        self.facts = progress
        self.task.progress.advance(max(100 * (progress["done"] - self.shown), 0.0))
        self.shown = max(self.shown, progress["done"])


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).absolute())


def _cause(error: BaseException) -> str:
    """The innermost error that says something, in one line."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def _assemble(task: Fitting, result: State, follower: _Follower) -> FittedModel:
    job, codec = task.job, task.codec
    tensors, facts = result
    if len(set(facts["replicas"])) != 1:
        raise JobFailed(
            "the replicas ended with different weights; this is a fault of the program, please report it"
        )
    follower.tell(facts["progress"])
    task.show(facts["progress"])
    network = new_model(job.model.kind, codec, job.model, job.fit.seed)
    network.load_state_dict({n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")})
    held_out = Records(tensors["held_out/tokens"].numpy(), tensors["held_out/log_measure"].numpy())
    task.provenance["data"]["skipped"] = facts["skipped"]
    train, done = tensors["sample/tokens"].numpy(), Progress(**facts["progress"])
    fitted = finish(job.model.kind, codec, network, held_out, train, done, task.provenance, job.fit.seed)
    fitted.provenance["training"] |= {
        "workers": len(facts["replicas"]),
        "workers_from_step": done.worlds,
        "replicas": facts["replicas"][0],
    }
    return fitted


# -- on the workers ------------------------------------------------------------------------------------------


class OnRay(Distributed):
    """One of several replicas, the first of which keeps the checkpoints."""

    def __init__(self, kept: Checkpoints) -> None:
        super().__init__()
        self.kept = kept

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if self.rank == 0:
            self.kept.save(tensors, facts)

    def restore(self) -> State | None:
        return self.kept.load()  # nobody writes before all have come this far


def _worker(config: dict[str, Any]) -> None:
    """What each worker runs."""
    from pipelines.train import TrainJob

    torch.set_flush_denormal(True)
    job = TrainJob.model_validate(config["job"])
    keep_freed_memory()
    torch.set_num_threads(max(int(job.compute.cpus_per_worker), 1))
    kept = Checkpoints(config["checkpoints"], config["job_id"])
    kept.require()
    replicas = OnRay(kept)
    codec = catalog.codec_class(job.modality.kind).from_state(config["codec"], config["arrays"])
    with tempfile.TemporaryDirectory(prefix="genai-") as scratch:
        share = config["pieces"][replicas.rank :: replicas.world]
        records = encode_source(codec, config["reader"], job.fit, Path(scratch), share)
        start = None if config["parent"] is None else artifact.load(config["parent"])
        network = new_model(job.model.kind, codec, job.model, job.fit.seed, start)
        if job.compute.gpus_per_worker:
            import ray.train.torch

            device = ray.train.torch.get_device()
            torch.cuda.set_device(device)  # where collectives of objects go too
            network.to(device)
        fit = Fit(network, records.train, records.held_out.tokens, job.fit, replicas)
        fit.run()
        _publish_result(fit, network, records, replicas)


def _publish_result(fit: Fit, network: torch.nn.Module, records: Encoded, replicas: OnRay) -> None:
    """What the driver needs: the best weights, records of all workers for scores, and proof that the replicas agree."""
    mine = records.held_out.rows(calibration_rows(records.held_out, replicas.world))
    parts = replicas.gather((np.asarray(mine.tokens), np.asarray(mine.log_measure)))
    sample = records.train[spread(len(records.train), score_rows(records.train) // replicas.world)]
    samples = replicas.gather(np.asarray(sample))
    skipped: Counter[str] = sum(map(Counter, replicas.gather(records.skipped)), Counter())
    weights = {f"best/{name}": value for name, value in network.state_dict().items()}
    weights["held_out/tokens"] = torch.from_numpy(np.concatenate([tokens for tokens, _ in parts]))
    weights["held_out/log_measure"] = torch.from_numpy(np.concatenate([measure for _, measure in parts]))
    weights["sample/tokens"] = torch.from_numpy(np.concatenate(samples))
    facts = {
        "skipped": dict(skipped),
        "progress": vars(fit.progress),
        "replicas": replicas.gather(_digest(fit.model)),
    }
    if replicas.rank == 0:
        replicas.kept.save_result(weights, facts)


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not value.is_floating_point():  # a replay buffer of whole numbers is each replica's own
            continue
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
