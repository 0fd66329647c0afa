"""What a job file may set, by family. Free of torch, so that checking a job file costs nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Unknown keys are errors; values cannot change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Autoregressive(Settings):
    """Any-order autoregressive network over tokens: samples, exact likelihood."""

    kind: Literal["autoregressive"] = "autoregressive"
    context: int = Field(128, ge=8, le=4096, description="width of the sum that carries the visible tokens")
    hidden: int = Field(64, ge=8, le=4096, description="width of each position's own layers")
    embedding: int = Field(16, ge=2, le=512, description="width of a token's embedding")
    dropout: float = Field(0.15, ge=0, lt=1)
    random_orders: float = Field(
        0.4, ge=0, le=1, description="share of the batches with a random column order"
    )


class Vae(Settings):
    """Variational autoencoder: samples, reconstructs, a lower bound of the likelihood."""

    kind: Literal["vae"] = "vae"
    latent: int = Field(32, ge=1, le=4096, description="dimensions of the latent")
    hidden: int = Field(256, ge=8, le=8192)
    embedding: int = Field(16, ge=2, le=512)
    free_bits: float = Field(0.05, ge=0, le=10, description="nats per latent dimension that cost nothing")
    importance_samples: int = Field(16, ge=1, le=1024, description="draws of the importance-weighted bound")


class Gan(Settings):
    """Generative adversarial network: samples, discriminates; an implicit model without likelihood."""

    kind: Literal["gan"] = "gan"
    latent: int = Field(64, ge=1, le=4096)
    hidden: int = Field(256, ge=8, le=8192)
    embedding: int = Field(16, ge=2, le=512)
    gamma: float = Field(1.0, ge=0, le=1000, description="weight of the R1 and R2 gradient penalties")
    pac: int = Field(2, ge=1, le=64, description="records that the discriminator judges together")
    temperature: float = Field(0.5, gt=0, le=10, description="of the straight-through Gumbel softmax")


ModelSettings = Annotated[Autoregressive | Gan | Vae, Field(discriminator="kind")]


class FitSettings(Settings):
    """The training loop, the same for every family. A limit that is reached first ends the fit."""

    seed: int = Field(0, ge=0, lt=2**63)
    max_seconds: float | None = Field(
        None, gt=0, description="wall-clock limit; the schedule is fitted into it"
    )
    max_epochs: int = Field(24, ge=1, le=100_000)
    batch_size: int = Field(512, ge=2, le=1_000_000, description="records a step, over all workers")
    learning_rate: float | None = Field(None, gt=0, le=10, description="peak; None: the family's default")
    weight_decay: float | None = Field(None, ge=0, le=10, description="None: the family's default")
    validation_fraction: float = Field(
        0.1, gt=0, lt=0.9, description="rows held out for early stopping and p-values"
    )
    evaluations: int = Field(24, ge=1, le=100_000, description="validations spread over the fit")
    patience: int = Field(6, ge=1, le=100_000, description="validations without improvement before stopping")
    ema: float = Field(
        0.995, ge=0, lt=1, description="decay of the exponential moving average of the weights"
    )
    clip: float = Field(5.0, gt=0, description="largest gradient norm")


class TabularSettings(Settings):
    """How a table is read."""

    kind: Literal["tabular"] = "tabular"
    exclude: list[str] = Field(default_factory=list, description="columns that are not learnt")
    max_categories: int = Field(
        50_000, ge=2, le=90_000, description="values of a category that are kept by name"
    )


ModalitySettings = TabularSettings
