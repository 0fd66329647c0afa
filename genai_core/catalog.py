"""What there is, as sorted literal tuples: nothing scans, nothing registers by decorator. Free of torch.

`kind: x` in a job file <-> file `x.py`. A new thing is one file and one line here; tests say which was forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from genai_core.errors import MissingCapability

MODELS = ("autoregressive", "cyclegan", "dcgan", "gan", "vae")
MODALITIES = ("audio", "image", "image_codes", "tabular", "text")
SCORES = (
    "cepstral_distance",
    "complexity",
    "denoising",
    "discriminator",
    "elbo",
    "ensemble",
    "likelihood_ratio",
    "maximum_surprise",
    "mean_surprise",
    "memory",
    "negative_log_likelihood",
    "patch_memory",
    "pseudo_likelihood",
    "reconstruction",
)


@dataclass(frozen=True)
class Family:
    """What a family states about itself; a contract test holds it against the class header."""

    capabilities: tuple[str, ...]
    bound: str | None  # of log_prob: "exact", "lower", or no likelihood
    scores: dict[
        str, tuple[str, ...]
    ]  # modality that the family learns -> its scores, the first is the default


NLL = "negative_log_likelihood"
CEPSTRA = "cepstral_distance"
PATCHES = "patch_memory"
RATIO = "likelihood_ratio"
OF_ANY_TABLE = ("ensemble", "pseudo_likelihood", "memory", "denoising")  # by networks of their own
SURPRISE = ("maximum_surprise", "mean_surprise", RATIO, NLL)
FAMILIES = {
    "autoregressive": Family(
        ("log_prob", "samples"),
        "exact",
        {
            "audio": (CEPSTRA, RATIO, NLL),
            "image": ("complexity", PATCHES, RATIO, NLL),
            "image_codes": (RATIO, "maximum_surprise", NLL),
            "tabular": (*OF_ANY_TABLE, NLL),
            "text": SURPRISE,
        },
    ),
    "cyclegan": Family(
        ("discriminates", "reconstructs", "translates"),
        None,
        dict.fromkeys(("audio", "image"), ("reconstruction", "discriminator")),
    ),
    "dcgan": Family(
        ("discriminates", "samples"),
        None,
        {"audio": (CEPSTRA, "discriminator"), "image": (PATCHES, "discriminator")},
    ),
    "gan": Family(
        ("discriminates", "samples"),
        None,
        {
            "audio": (CEPSTRA, "discriminator"),
            "image": (PATCHES, "discriminator"),
            "tabular": (*OF_ANY_TABLE, "discriminator"),
            "text": ("discriminator",),
        },
    ),
    "vae": Family(
        ("log_prob", "reconstructs", "samples"),
        "lower",
        {
            "audio": (CEPSTRA, "reconstruction", "complexity", RATIO, NLL),
            "image": (PATCHES, "reconstruction", "complexity", RATIO, NLL),
            "tabular": (*OF_ANY_TABLE, NLL, "elbo", "reconstruction"),
            "text": (NLL, "reconstruction", RATIO),
        },
    ),
}


OF_WEIGHTS_ALONE = ("elbo", "negative_log_likelihood", "reconstruction")


def scores_of(kind: str, modality: str, private: bool = False) -> tuple[str, ...]:
    """The scores of a family on a modality, the default first. Raises MissingCapability: a pair that does not exist.

    private  a model under differential privacy: only what keeps nothing of the data beside the weights
    """
    able = FAMILIES[kind].scores
    if modality not in able:
        others = [name for name, family in FAMILIES.items() if modality in family.scores]
        raise MissingCapability(
            f"{kind} does not learn the modality {modality} (it learns {', '.join(able)}); "
            f"for {modality} there are: {', '.join(others)}"
        )
    found = able[modality]
    return tuple(name for name in found if name in OF_WEIGHTS_ALONE) if private else found


def model_class(kind: str) -> Any:
    """The Model class of a family; imports torch."""
    module = import_module(f"genai_core.models.{kind}")
    return module.MODEL


def build_model(kind: str, space: Any, settings: dict[str, Any] | Any) -> Any:
    """A model of a family with its settings, from a dictionary or a settings object; imports torch."""
    from pydantic import TypeAdapter

    from genai_core.hyperparameters import ModelSettings

    if isinstance(settings, dict):
        settings = TypeAdapter(ModelSettings).validate_python({"kind": kind, **settings})
    return model_class(kind)(space, settings)


def codec_class(kind: str) -> Any:
    """The Codec class of a modality."""
    return import_module(f"genai_core.modalities.{kind}").CODEC


def score(name: str) -> Any:
    """The scoring module, see `genai_core.scores`; imports torch."""
    return import_module(f"genai_core.scores.{name}")
