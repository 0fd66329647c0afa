"""What a job file may set, by family. Free of torch, so that checking a job file costs nothing."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from genai_core.keras_text import keras_json
from genai_core.settings import Settings
from genai_core.tables.declarations import Constraint, Made


class Family(Settings):
    """What a model of any family may be told."""

    start: str | None = Field(
        None,
        alias="from",
        min_length=1,
        exclude=True,  # no property of the network: a job's identity has the parent's digest
        description="tables: fitted model to go on from, such as models:/flights@latest; its settings are kept",
    )


class Autoregressive(Family):
    """Exact likelihood, samples, conditions: of tables in any order of columns, of pictures in raster order."""

    kind: Literal["autoregressive"] = "autoregressive"
    context: int | None = Field(
        None,
        ge=8,
        le=4096,
        description="tables: width of the sum that carries the visible tokens; default: twice that of the layers",
    )
    hidden: int | None = Field(
        None,
        ge=8,
        le=4096,
        description="width of the layers; default: of tables 48, or 64 with many tokens in few columns; by the space",
    )
    embedding: int = Field(16, ge=2, le=512, description="tables: width of a token's embedding")
    layers: int | None = Field(
        None, ge=1, le=128, description="pictures and sequences: layers; default: by the space"
    )
    heads: int | None = Field(
        None, ge=1, le=128, description="sequences: attention heads; default: by the width"
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="default: 0.15 for tables, else by the space")
    random_orders: float = Field(
        0.4, ge=0, le=1, description="tables: share of the batches with a random column order"
    )


class Vae(Family):
    """Variational autoencoder: samples, reconstructs, a lower bound of the likelihood."""

    kind: Literal["vae"] = "vae"
    latent: int = Field(32, ge=1, le=4096, description="dimensions of the latent")
    hidden: int | None = Field(
        None, ge=8, le=8192, description="width of the layers; default: 96 for tables, else 256"
    )
    embedding: int = Field(16, ge=2, le=512)
    channels: int = Field(32, ge=4, le=1024, description="pictures: channels of the first convolution")
    free_bits: float = Field(0.05, ge=0, le=10, description="nats per latent dimension that cost nothing")
    warm_up: float = Field(
        0.0, ge=0, le=1, description="share of the fit over which the latent's cost is phased in"
    )
    importance_samples: int = Field(16, ge=1, le=4096, description="draws of the importance-weighted bound")
    training_samples: int = Field(1, ge=1, le=256, description="draws of the bound that training maximises")
    components: int = Field(64, ge=1, le=4096, description="Gaussians of the learnt prior")
    couplings: int = Field(4, ge=0, le=64, description="invertible layers of the learnt prior")
    parts: Literal[1, 4] = Field(
        4,
        description="pictures: the pixels of each 2 x 2 block are drawn one after the other, or all independently",
    )


KerasNetwork = Annotated[
    str | None,
    BeforeValidator(keras_json),
    Field(description="network defined in Keras 3: its JSON (model.to_json()), or the path of a .json file"),
]


class Gan(Family):
    """Generative adversarial network: samples, discriminates; an implicit model without likelihood."""

    kind: Literal["gan"] = "gan"
    loss: Literal["relativistic", "wasserstein"] = Field(
        "relativistic", description="relativistic with R1 and R2 penalties, or WGAN-GP"
    )
    latent: int = Field(64, ge=1, le=4096)
    hidden: int = Field(256, ge=8, le=8192)
    embedding: int = Field(16, ge=2, le=512)
    channels: int = Field(32, ge=4, le=1024, description="pictures: channels at half resolution")
    gamma: float = Field(1.0, ge=0, le=1000, description="weight of the gradient penalties")
    critic_steps: int | None = Field(
        None,
        ge=1,
        le=100,
        description="steps of the discriminator for one of the generator; default: 1, of WGAN-GP 5",
    )
    pac: int = Field(2, ge=1, le=64, description="records that the discriminator judges together")
    temperature: float = Field(0.5, gt=0, le=10, description="tables: of the straight-through Gumbel softmax")
    augment: bool = Field(True, description="pictures: differentiable augmentation of what the critic sees")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the layers in training; bfloat16 is faster where the processor has it"
    )
    generator: KerasNetwork = None
    discriminator: KerasNetwork = None


class Dcgan(Family):
    """Deep convolutional GAN as published (Radford et al. 2016), for pictures: samples, discriminates."""

    kind: Literal["dcgan"] = "dcgan"
    latent: int = Field(100, ge=1, le=4096)
    channels: int = Field(64, ge=4, le=1024, description="channels of the discriminator's first convolution")
    generator: KerasNetwork = None
    discriminator: KerasNetwork = None


class Cyclegan(Family):
    """CycleGAN (Zhu et al. 2017): translates between two unpaired domains, which are the two values of the label."""

    kind: Literal["cyclegan"] = "cyclegan"
    channels: int = Field(32, ge=4, le=1024, description="channels at full resolution")
    blocks: int = Field(4, ge=1, le=64, description="residual blocks of the generators")
    cycle: float = Field(10.0, ge=0, le=1000, description="weight of the cycle loss")
    identity: float = Field(5.0, ge=0, le=1000, description="weight of the identity loss")
    pool: int = Field(50, ge=0, le=10_000, description="made pictures replayed to the discriminators")
    generator: KerasNetwork = None
    discriminator: KerasNetwork = None


ModelSettings = Annotated[Autoregressive | Cyclegan | Dcgan | Gan | Vae, Field(discriminator="kind")]


class Privacy(Settings):
    """Differential privacy (Dwork et al. 2006): what one row of the data can change in the model is bounded."""

    epsilon: float = Field(gt=0, le=100, description="of everything that is kept of the data, together")
    delta: float = Field(1e-6, gt=0, lt=0.01, description="far below one over the number of rows")
    clip: float = Field(1.0, gt=0, description="largest gradient norm of a single row")
    columns: float = Field(
        0.3, gt=0, lt=1, description="share of epsilon with which values and bins of columns are chosen"
    )


class FitSettings(Settings):
    """The training loop, the same for every family. A limit that is reached first ends the fit."""

    seed: int = Field(0, ge=0, lt=2**63)
    max_seconds: float | None = Field(
        None, gt=0, description="wall-clock limit; the schedule is fitted into it"
    )
    max_epochs: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="default: the family's: 24, of autoregressive models of tables 12, with privacy 6",
    )
    batch_size: int | None = Field(
        None,
        ge=2,
        le=1_000_000,
        description="records a step, over all workers; default: 512 of tables, fewer of larger records",
    )
    learning_rate: float | None = Field(None, gt=0, le=10, description="peak; None: the family's default")
    weight_decay: float | None = Field(None, ge=0, le=10, description="None: the family's default")
    validation_fraction: float = Field(
        0.1, gt=0, lt=0.9, description="rows held out for early stopping and p-values"
    )
    evaluations: int = Field(24, ge=1, le=100_000, description="validations spread over the fit")
    patience: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="validations without improvement before stopping; default: the family's, or 6",
    )
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay of the exponential moving average of the weights; default: the family's, or 0.995",
    )
    clip: float = Field(5.0, gt=0, description="largest gradient norm")
    accumulate: int = Field(
        1, ge=1, le=100_000, description="parts that a step's records are computed in, to save memory"
    )
    health: Literal["act", "warn", "off"] = Field(
        "act",
        description="what is done about a fit that goes wrong: go back, hold back or stop; only say so; do not look",
    )
    privacy: Privacy | None = Field(
        None, description="tables, autoregressive and vae: train with differential privacy; default: without"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the layers in training; scores and samples are always computed in float32"
    )
    scale_with_workers: Literal["none", "sqrt", "linear"] = Field(
        "none",
        description="none: batch and learning rate are the same for any number of workers; else a whole batch for "
        "each, and a rate times the factor by which the batch grew, or its square root",
    )


class Reading(Settings):
    """How records of a modality are read."""

    def for_job(self, kind: str, seed: int) -> Self:
        """The settings with what they leave open decided, for a family of models and by the seed of the fit."""
        return self


class TabularSettings(Reading):
    """How a table is read."""

    kind: Literal["tabular"] = "tabular"
    exclude: list[str] = Field(default_factory=list, description="columns that are not learnt")
    max_categories: int = Field(
        50_000, ge=2, le=90_000, description="values of a category that are kept by name"
    )
    rare_below: int = Field(
        3,
        ge=0,
        le=1_000_000,
        description="categories in fewer rows than about this are known as rare alone and never drawn, for privacy; "
        "0: all are drawn; at most one row in 200",
    )
    clip_extremes: int = Field(
        5,
        ge=0,
        le=1_000_000,
        description="no number is drawn beyond the so-many-th least and greatest one, for privacy; 0: up to the "
        "extremes; at most one row in 200",
    )
    relations: Literal["find", "ignore"] = Field(
        "find",
        description="sums, differences, products and equalities of columns that hold exactly: found and kept, or "
        "learnt like everything else",
    )
    constraints: list[Constraint] = Field(
        default_factory=list,
        description="what every drawn row keeps: the order of columns, a range, a formula, combinations that exist",
    )
    made: dict[str, Made] = Field(
        default_factory=dict,
        description="columns that are not learnt but made when rows are drawn, such as {id: {kind: sequence}}",
    )
    identifiers: Literal["learn", "mask", "refuse"] = Field(
        "mask",
        description="columns with another value in nearly every row: mask (not learnt, made outside the model), "
        "refuse, or learn as categories",
    )


class Pictures(Reading):
    """How pictures are read: encoded bytes (PNG, JPEG, ...) or fixed-shape tensors, one a record."""

    column: str | None = Field(
        None, min_length=1, description="default: the only column that can hold pictures"
    )
    label: str | None = Field(
        None, min_length=1, description="column with the class; default: none is learnt"
    )
    size: tuple[int, int] | None = Field(
        None, description="height and width; default: those of the first picture"
    )
    other_sizes: Literal["resize", "pad", "skip"] = Field(
        "resize", description="what to do with pictures of another size; skipped ones are counted"
    )
    colour: Literal["auto", "grey", "rgb"] = Field("auto", description="auto: as the first picture is")
    output: Literal["same", "png", "tensor"] = Field("same", description="how pictures are written")


class ImageSettings(Pictures):
    """How pictures are read: models see the levels of their pixels."""

    kind: Literal["image"] = "image"
    levels: int = Field(256, ge=2, le=256, description="values a channel is cut into; 2: black and white")


class ImageCodesSettings(Pictures):
    """How larger pictures are read: models see the codes of an autoencoder, which is learnt first."""

    kind: Literal["image_codes"] = "image_codes"
    codes: Literal[64, 512, 4096] = Field(512, description="that there are; 2, 3 or 4 numbers of 8 levels")
    factor: Literal[2, 4, 8, 16] = Field(8, description="pixels along each side of what one code stands for")
    channels: int = Field(32, ge=4, le=128, description="of the autoencoder where it is widest in pixels")
    steps: int = Field(
        2000, ge=1, le=1_000_000, description="of the autoencoder's training, 32 pictures each"
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="of the autoencoder; default: the fit's")

    def for_job(self, kind: str, seed: int) -> Self:
        """The seed is the fit's, unless the job says otherwise."""
        return self.model_copy(update={"seed": seed if self.seed is None else self.seed})


class TextSettings(Reading):
    """How texts are read, one a record."""

    kind: Literal["text"] = "text"
    column: str | None = Field(None, min_length=1, description="default: the only column that can hold texts")
    label: str | None = Field(
        None, min_length=1, description="column with the class; default: none is learnt"
    )
    tokens: Literal["bytes", "bpe"] = Field("bytes", description="UTF-8 bytes, or byte-pair encoding")
    vocabulary: int = Field(1024, ge=260, le=30_000, description="tokens of the byte-pair encoding")
    length: int = Field(
        256, ge=2, le=65_536, description="tokens of a record; longer texts are cut and counted"
    )


class AudioSettings(Reading):
    """How sounds are read: encoded bytes (WAV, FLAC, ...), one clip a record, mixed down to one channel."""

    kind: Literal["audio"] = "audio"
    column: str | None = Field(None, min_length=1, description="default: the only column of bytes")
    label: str | None = Field(
        None, min_length=1, description="column with the class; default: none is learnt"
    )
    view: Literal["log_mel", "waveform"] | None = Field(
        None, description="what models see; default: waveform for autoregressive ones, else log_mel"
    )
    rate: int | None = Field(
        None, ge=1000, le=192_000, description="samples a second; default: the first clip's"
    )
    seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="length of a record; longer clips are cut, shorter ones padded with silence",
    )
    mels: int = Field(64, ge=8, le=256, description="bands of the log-mel view")
    hop: float = Field(0.016, gt=0.0005, le=1, description="seconds between frames of the log-mel view")

    def for_job(self, kind: str, seed: int) -> Self:
        """Waveforms for autoregressive models, spectrograms for the others, unless the job says otherwise."""
        view = self.view or ("waveform" if kind == "autoregressive" else "log_mel")
        return self.model_copy(update={"view": view})


ModalitySettings = Annotated[
    AudioSettings | ImageCodesSettings | ImageSettings | TabularSettings | TextSettings,
    Field(discriminator="kind"),
]
