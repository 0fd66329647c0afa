"""The parts of a job file that every verb shares: where it runs, where it writes, where it is tracked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

RUNNERS = ("auto", "inline", "ray")
NEWEST = "newest"  # the alias that every registered version takes over: MLflow itself reserves `latest`
MOST_WORKERS = 10_000
WORKERS_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS},
        {"type": "string", "pattern": r"^\d+\.\.\d+$"},
        {
            "type": "object",
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
            "required": ["min", "max"],
            "additionalProperties": False,
        },
    ]
}
MIN_OBJECT_STORE = 80_000_000  # Ray refuses less than 75 MiB
TRACKING_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")


def _runner(value: str) -> str:
    """One of RUNNERS, or HOST:PORT of a running Ray cluster."""
    if value in RUNNERS:
        return value
    if "://" in value:
        raise ValueError(
            f"runner {value!r} is a URL; accepted are {', '.join(RUNNERS)} or HOST:PORT of the cluster's head"
        )
    if re.fullmatch(r"\[?[\w.:-]+\]?:\d{1,5}", value) and 0 < int(value.rpartition(":")[2]) < 65536:
        return value
    raise ValueError(
        f"unknown runner {value!r}; accepted are {', '.join(RUNNERS)} or HOST:PORT of a Ray cluster"
    )


def _gpus(value: float) -> float:
    """Ray accepts a share of one GPU, or whole ones."""
    if value > 1 and value != int(value):
        raise ValueError(f"{value} GPUs: give a share of one (such as 0.5) or a whole number")
    return value


def _path(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("the path is empty; give a directory or a URI such as s3://bucket/folder")
    return value


def _model_name(value: str) -> str:
    """MLflow refuses names that its own model URIs could not carry."""
    if not value.strip() or set(value) & set("/:@"):
        raise ValueError(f"{value!r} cannot name a registered model; leave out '/', ':' and '@'")
    return value


def _alias(value: str) -> str:
    if value.lower() == "latest":
        raise ValueError(
            "MLflow reserves the alias 'latest': it always means the newest version; choose another, or leave it out"
        )
    if re.fullmatch(r"[vV]\d+", value) or not re.fullmatch(r"[\w-]{1,255}", value):
        raise ValueError(
            f"{value!r} cannot be an alias; use letters, digits, '_' and '-', and not v1, v2, ..."
        )
    return value


def _tracking_uri(value: str) -> str:
    scheme = urlsplit(value).scheme.partition("+")[0]
    if scheme not in TRACKING_SCHEMES and value != "databricks":
        raise ValueError("give a tracking server (http://host:5000) or a database (sqlite:///mlflow.db)")
    return value


class Settings(BaseModel):
    """A section of a job file: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _range(value: Any) -> tuple[Any, Any] | None:
    """Fewest and most of `2..8` or {min: 2, max: 8}; None of anything else."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)\.\.(\d+)", value.strip())):
        return int(found[1]), int(found[2])
    if isinstance(value, dict) and set(value) == {"min", "max"}:
        return value["min"], value["max"]
    return None


class ComputeSettings(Settings):
    """Where and how widely a job runs."""

    runner: Annotated[str, AfterValidator(_runner)] = Field(
        "auto",
        description="auto (by size), inline (this process), ray (this machine), or HOST:PORT of a Ray cluster",
    )
    workers: Annotated[int, WithJsonSchema(WORKERS_SCHEMA)] = Field(
        1,
        ge=1,
        le=MOST_WORKERS,
        description="processes that work at the same time; FEWEST..MOST (or {min, max}): training goes on with fewer "
        "while a cluster has no room for more",
    )
    min_workers: int | None = Field(
        None, ge=1, le=MOST_WORKERS, description="the fewest of `workers: FEWEST..MOST`"
    )
    cpus_per_worker: float = Field(
        1.0, gt=0, le=1024, description="CPUs that the scheduler sets aside for a worker"
    )
    gpus_per_worker: Annotated[float, AfterValidator(_gpus)] = Field(
        0.0, ge=0, le=64, description="GPUs per worker"
    )
    object_store_memory: ByteSize = Field(
        ByteSize(256_000_000),
        ge=MIN_OBJECT_STORE,
        description="shared memory of a local Ray: bytes, or such as 256MB",
    )
    stall_seconds: float = Field(
        900.0, ge=1, le=7 * 86_400, description="give up when nothing is committed for so long"
    )
    retries: int = Field(
        3, ge=0, le=100, description="further attempts at a shard, or at a training run, after a failure"
    )
    max_failed: int = Field(
        0, ge=0, description="shards that may be quarantined before the job counts as failed"
    )

    @model_validator(mode="before")
    @classmethod
    def _split_range(cls, given: Any) -> Any:
        if not isinstance(given, dict) or (ends := _range(given.get("workers"))) is None:
            return given
        return given | {"min_workers": ends[0], "workers": ends[1]}

    @field_validator("workers", mode="before")
    @classmethod
    def _said_well(cls, value: Any) -> Any:
        if isinstance(value, dict) or (isinstance(value, str) and not value.strip().isdigit()):
            raise ValueError(
                f"{value!r}: give a number of workers, FEWEST..MOST such as 1..4, or {{min: 1, max: 4}}"
            )
        return value

    @model_validator(mode="after")
    def _not_upside_down(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"workers: {self.min_workers}..{self.workers}: the fewest come first, as in 1..4"
            )
        return self

    @property
    def fewest(self) -> int:
        """Workers that training needs to go on."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def crew(self) -> int | str:
        """The workers as a job file says them."""
        return self.workers if self.min_workers is None else f"{self.min_workers}..{self.workers}"


class SinkSettings(Settings):
    """Where a job writes its output."""

    path: Annotated[str, AfterValidator(_path)] = Field(
        description="directory or URI of a directory, owned by this job"
    )


class TrackSettings(Settings):
    """How a job is recorded in MLflow."""

    enabled: bool = Field(True, description="false: nothing is recorded")
    experiment: str | None = Field(None, min_length=1, max_length=500, description="default: the job's name")
    register_as: Annotated[str, AfterValidator(_model_name)] | None = Field(
        None, alias="register", description="name of the registered model that a new version is added to"
    )
    alias: Annotated[str, AfterValidator(_alias)] | None = Field(
        None,
        description="a further alias moved to the new version; @newest is moved always, @latest means the same",
    )
    uri: Annotated[str, AfterValidator(_tracking_uri)] | None = Field(
        None,
        description="tracking server or database; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db",
    )

    @model_validator(mode="after")
    def _alias_needs_name(self) -> Self:
        if self.alias and not self.register_as:
            raise ValueError(f"alias {self.alias!r} needs `register: NAME`, the model whose version it marks")
        return self
