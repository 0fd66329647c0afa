"""Training on Ray Train: the same loop on several workers; gloo between CPUs, nccl between GPUs.

Every worker encodes its own share of the files, so no worker holds the data set. A worker that dies brings the group
down and up again (`compute.retries`), and the fit goes on from the last checkpoint. Checkpoints are safetensors and
JSON; nothing is unpickled from disk.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core import catalog
from genai_core.errors import JobFailed, Unavailable
from genai_core.fitted import FittedModel
from genai_core.loop import Fit, Progress, Replicas, spread
from genai_core.spaces import Records
from genai_core.train import finish, new_model, score_rows
from pipelines import checkpoints
from pipelines.allocator import keep_freed_memory
from pipelines.encoding import Encoded, encode_source, shares
from pipelines.fitting import Fitting
from pipelines.local_training import calibration_rows
from pipelines.settings import ComputeSettings

KEPT = 2  # checkpoints


def fit_on_ray(task: Fitting) -> FittedModel:
    """Run `_worker` on every worker and put the model together from the last checkpoint. Raises JobFailed."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from pipelines.ray_session import autoscales, ray_session

    job, compute = task.job, task.job.compute
    settings, arrays = task.codec.state()
    config = {
        "job": job.model_dump(mode="json", by_alias=True),
        "codec": settings,
        "arrays": arrays,
        "reader": task.source.reader,  # knows the files' places: a worker's working directory is another
        "shares": shares(task.source, compute.workers),
    }
    resources = {"CPU": compute.cpus_per_worker}
    if compute.gpus_per_worker:
        resources["GPU"] = compute.gpus_per_worker
    with ray_session(compute) as session:
        if not autoscales(session):
            _refuse_missing(session.cluster_resources(), compute)
        trainer = TorchTrainer(
            _worker,
            train_loop_config=config,
            torch_config=TorchConfig(backend="nccl" if compute.gpus_per_worker else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=compute.workers,
                use_gpu=compute.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=ray.train.RunConfig(
                name=task.job_id,
                storage_path=_absolute(job.checkpoints),
                failure_config=ray.train.FailureConfig(max_failures=compute.retries),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT),
            ),
        )
        try:
            result = trainer.fit()
        except Exception as error:
            raise JobFailed(
                f"training on Ray failed after {compute.retries} restart(s): {_cause(error)}"
            ) from error
        with result.checkpoint.as_directory() as directory:
            tensors, facts = checkpoints.read(Path(directory)) or ({}, {})
    return _assemble(task, tensors, facts)


def _refuse_missing(there: dict[str, float], compute: ComputeSettings) -> None:
    """Ray Train waits for ever, and in silence, for what a cluster does not have."""
    wanted = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
    for kind, each in wanted.items():
        if compute.workers * each > there.get(kind, 0):
            raise Unavailable(
                f"{compute.workers} worker(s) want {compute.workers * each:g} {kind}(s) and Ray has "
                f"{there.get(kind, 0):g}; lower compute.workers or what each of them takes"
            )


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).absolute())


def _cause(error: BaseException) -> str:
    """The innermost error that says something, in one line."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def _assemble(task: Fitting, tensors: dict[str, Tensor], facts: dict[str, Any]) -> FittedModel:
    job, codec = task.job, task.codec
    if not facts.get("complete"):
        raise JobFailed(
            "training on Ray ended without a complete checkpoint; run the job again to go on from the last"
        )
    if len(set(facts["replicas"])) != 1:
        raise JobFailed(
            "the replicas ended with different weights; this is a fault of the program, please report it"
        )
    for entry in facts["progress"]["history"]:
        task.report({name: value for name, value in entry.items() if name != "step"}, int(entry["step"]))
    network = new_model(job.model.kind, codec, job.model, job.fit.seed)
    network.load_state_dict({n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")})
    held_out = Records(tensors["held_out/tokens"].numpy(), tensors["held_out/log_measure"].numpy())
    task.provenance["data"]["skipped"] = facts["skipped"]
    train, done = tensors["sample/tokens"].numpy(), Progress(**facts["progress"])
    fitted = finish(job.model.kind, codec, network, held_out, train, done, task.provenance, job.fit.seed)
    fitted.provenance["training"] |= {"workers": len(facts["replicas"]), "replicas": facts["replicas"][0]}
    return fitted


# -- on the workers ------------------------------------------------------------------------------------------


class OnRay(Replicas):
    """One of several replicas: averages by torch.distributed, keeps checkpoints by Ray Train."""

    def __init__(self) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self._metrics: dict[str, float] = {}

    def average(self, values: Tensor) -> Tensor:
        if self.world > 1:
            torch.distributed.all_reduce(values)
            values /= self.world
        return values

    def report(self, metrics: dict[str, float], step: int, progress: float) -> None:
        self._metrics = {"step": step, **metrics}

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.publish(tensors, {"progress": facts})

    def publish(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Hand a checkpoint of rank 0 to Ray Train; every rank takes part."""
        import ray.train

        if self.rank:
            ray.train.report(self._metrics)
            return
        with tempfile.TemporaryDirectory() as directory:
            checkpoints.fill(Path(directory), tensors, facts)
            ray.train.report(self._metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))

    def restore(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as directory:
            found = checkpoints.read(Path(directory))
        return found and (found[0], found[1]["progress"])

    def gather(self, value: Any) -> list[Any]:
        """The value of every replica, on every replica."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)  # between processes, never from disk
        return values


def _worker(config: dict[str, Any]) -> None:
    """What each worker runs."""
    from pipelines.train import TrainJob

    torch.set_flush_denormal(True)
    job = TrainJob.model_validate(config["job"])
    keep_freed_memory()
    torch.set_num_threads(max(int(job.compute.cpus_per_worker), 1))
    replicas = OnRay()
    codec = catalog.codec_class(job.modality.kind).from_state(config["codec"], config["arrays"])
    with tempfile.TemporaryDirectory(prefix="genai-") as scratch:
        records = encode_source(
            codec, config["reader"], job.fit, Path(scratch), config["shares"][replicas.rank]
        )
        network = new_model(job.model.kind, codec, job.model, job.fit.seed)
        if job.compute.gpus_per_worker:
            import ray.train.torch

            network.to(ray.train.torch.get_device())
        fit = Fit(network, records.train, records.held_out.tokens, job.fit, replicas)
        fit.run()
        _publish_result(fit, network, records, replicas)


def _publish_result(fit: Fit, network: torch.nn.Module, records: Encoded, replicas: OnRay) -> None:
    """The last checkpoint: the best weights, records of all workers for scores, and proof that the replicas agree."""
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
        "complete": True,
        "skipped": dict(skipped),
        "progress": vars(fit.progress),
        "replicas": replicas.gather(_digest(fit.model)),
    }
    replicas.publish(weights, facts)


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not value.is_floating_point():  # a replay buffer of whole numbers is each replica's own
            continue
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
