"""Networks defined in Keras as generators and discriminators: trained, saved, loaded; refused where they do not fit."""

from __future__ import annotations

import copy
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits

import genai_core
from genai_core import catalog
from genai_core.errors import InvalidInput
from genai_core.hyperparameters import Cyclegan, Dcgan, FitSettings, Gan
from genai_core.loop import Fit
from genai_core.model import Model
from genai_core.networks.keras_adapter import KerasCritic, KerasGenerator, KerasNetwork, load_keras
from genai_core.spaces import Grid

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None,
    reason="Keras is not installed: pip install 'genai-core[keras]'",
)
LATENT = 16
SPACE = Grid(1, 8, 8, levels=17)
LABELLED = Grid(1, 8, 8, levels=17, classes=10)


# -- the networks of the well-known Keras DCGAN, for 8 x 8 pictures -------------------------------------------------
def generator(labels: bool = False, size: int = 2, last: str = "tanh") -> Any:
    """Dense, upsampling, convolutions with batch normalisation."""
    keras = load_keras()
    L = keras.layers
    z = keras.Input((LATENT,))
    label = keras.Input((1,), dtype="int32")
    h: Any = z
    if labels:
        h = L.Multiply()([z, L.Flatten()(L.Embedding(10, LATENT)(label))])
    h = L.Reshape((size, size, 16))(L.Dense(size * size * 16, activation="relu")(h))
    for width in (16, 8):
        h = L.Conv2D(width, 3, padding="same")(L.UpSampling2D()(h))
        h = L.Activation("relu")(L.BatchNormalization(momentum=0.8)(h))
    picture = L.Activation(last)(L.Conv2D(1, 3, padding="same")(h))
    return keras.Model([z, label] if labels else z, picture)


def discriminator(
    labels: bool = False, shape: tuple[int, int, int] = (8, 8, 1), last: str = "sigmoid"
) -> Any:
    """Strided convolutions, dropout, batch normalisation, a sigmoid."""
    keras = load_keras()
    L = keras.layers
    picture = keras.Input(shape)
    label = keras.Input((1,), dtype="int32")
    h: Any = picture
    if labels:
        plane = L.Reshape((*shape[:2], 1))(
            L.Dense(shape[0] * shape[1])(L.Flatten()(L.Embedding(10, 4)(label)))
        )
        h = L.Concatenate()([picture, plane])
    for width in (8, 16):
        h = L.LeakyReLU(negative_slope=0.2)(L.Conv2D(width, 3, strides=2, padding="same")(h))
        h = L.BatchNormalization(momentum=0.8)(L.Dropout(0.25)(h))
    logit = L.Dense(1, activation=last)(L.Flatten()(h))
    return keras.Model([picture, label] if labels else picture, logit)


def translator() -> Any:
    """A small U-Net as CycleGAN examples have it: strided convolutions, a shortcut, instance norm by groups of one."""
    keras = load_keras()
    L = keras.layers
    picture = keras.Input((8, 8, 1))
    small = L.GroupNormalization(groups=-1)(
        L.Conv2D(8, 4, strides=2, padding="same", activation="relu")(picture)
    )
    h = L.Concatenate()([L.UpSampling2D()(small), L.Conv2D(4, 3, padding="same")(picture)])
    return keras.Model(picture, L.Conv2D(1, 3, padding="same", activation="tanh")(h))


def patches() -> Any:
    """A value for each patch, without a sigmoid: least squares."""
    keras = load_keras()
    L = keras.layers
    picture = keras.Input((8, 8, 1))
    h = L.LeakyReLU(negative_slope=0.2)(L.Conv2D(8, 4, strides=2, padding="same")(picture))
    return keras.Model(picture, L.Conv2D(1, 3, padding="same")(h))


def digits(labels: bool = False) -> np.ndarray:
    found = load_digits()
    pictures = found.data.astype(np.int64)
    return np.column_stack([found.target, pictures]) if labels else pictures


def new(kind: str, space: Grid = SPACE, seed: int = 1, **settings: Any) -> Model:
    labels = bool(space.classes)
    networks = {"generator": lambda: generator(labels), "discriminator": lambda: discriminator(labels)}
    own = {name: make() for name, make in networks.items() if name not in settings}
    torch.manual_seed(seed)
    return catalog.build_model(kind, space, {"latent": LATENT, **own, **settings})


def fitted(kind: str, space: Grid = SPACE, epochs: int = 1, rate: float | None = None) -> Model:
    model, rows = new(kind, space), digits(bool(space.classes))[:840]
    settings = FitSettings(max_epochs=epochs, evaluations=2, batch_size=64, learning_rate=rate)
    Fit(model, rows[200:], rows[:200], settings).run()
    return model


@pytest.mark.parametrize(
    ("kind", "space"), [("dcgan", SPACE), ("dcgan", LABELLED), ("gan", SPACE), ("gan", LABELLED)]
)
def test_trains_samples_and_comes_back_from_its_state(kind: str, space: Grid) -> None:
    model = fitted(kind, space)
    again = new(kind, space, seed=2)
    x = torch.from_numpy(digits(bool(space.classes))[:8])
    with torch.no_grad():
        drawn, judged = model.sample(16, torch.Generator().manual_seed(0)), model.discriminate(x)
        assert not torch.equal(again.eval().discriminate(x), judged)
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.eval().discriminate(x), judged)
        assert torch.equal(again.sample(16, torch.Generator().manual_seed(0)), drawn)
    assert drawn.shape == (16, space.entries)
    assert int(drawn.min()) >= 0
    assert int(drawn[:, space.labelled :].max()) < space.levels
    assert drawn.unique(dim=0).shape[0] == 16
    assert torch.isfinite(judged).all()


def test_it_learns_where_the_ink_is() -> None:
    """The mean picture of samples comes nearer to the digits' than that of an untrained generator."""
    mean = torch.from_numpy(digits()).double().mean(0)

    def distance(model: Model) -> float:
        made = model.eval().sample(256, torch.Generator().manual_seed(0)).double().mean(0)
        return float((made - mean).abs().mean())

    assert distance(fitted("dcgan", epochs=4, rate=5e-3)) < 0.6 * distance(new("dcgan"))


def test_cyclegan_translates_there_and_back() -> None:
    rows = digits(True)
    rows[:, 0] = rows[:, 0] < 5
    torch.manual_seed(0)
    settings = {"generator": translator(), "discriminator": patches(), "pool": 8}
    space = Grid(1, 8, 8, levels=17, classes=2)
    model = catalog.build_model("cyclegan", space, settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Fit(model, rows[300:], rows[:300], FitSettings(max_epochs=1, evaluations=1, batch_size=64)).run()
    networks = [n for n in before if n.startswith(("generators.", "discriminators."))]
    assert any(not torch.equal(before[n], model.state_dict()[n]) for n in networks)
    with torch.no_grad():
        there = model.translate(torch.from_numpy(rows[:6]), 1)
    assert there.shape == (6, 65)
    assert (there[:, 0] == 1).all()


def test_moving_statistics_are_buffers_that_training_moves_and_scoring_does_not() -> None:
    network = KerasNetwork(Gan(discriminator=discriminator()).discriminator or "", "model.discriminator")
    x = torch.randn(8, 8, 8, 1) + 3
    assert len(list(network.buffers())) == network.fixed
    before = [b.clone() for b in network.buffers()]
    network.eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    first, second = network.eval()(x), network.eval()(x)
    assert torch.equal(first, second)
    network.train()
    assert not torch.equal(network(x), network(x))  # dropout
    assert any(not torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert not torch.equal(twin.eval()(x), network.eval()(x))  # copies have tensors of their own


def test_first_weights_come_from_torchs_seed_and_leave_other_generators_alone() -> None:
    networks = {"generator": generator().to_json(), "discriminator": discriminator().to_json()}
    random.seed(5)
    np.random.seed(5)
    expected = random.Random(5).random(), np.random.RandomState(5).random()
    one, two, other = (new("dcgan", seed=seed, **networks).state_dict() for seed in (1, 1, 2))
    assert (random.random(), np.random.random()) == expected
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(
        one["generator.network.network.weights.0"], one["critic.network.network.weights.0"]
    )


def test_a_sigmoid_is_taken_off_the_critic_and_spread_in_the_generator() -> None:
    x = torch.rand(4, 1, 8, 8) * 2 - 1
    torch.manual_seed(0)
    plain = KerasCritic(Gan(discriminator=discriminator(last="linear")).discriminator or "", SPACE).eval()
    torch.manual_seed(0)
    stripped = KerasCritic(Gan(discriminator=discriminator()).discriminator or "", SPACE).eval()
    assert torch.equal(plain(x, None), stripped(x, None))
    made = KerasGenerator(Gan(generator=generator(last="sigmoid")).generator or "", SPACE, LATENT)
    pictures = made(torch.randn(32, LATENT) * 30, None)
    assert pictures.shape == (32, 1, 8, 8)
    assert float(pictures.detach().min()) < -0.1


def test_the_settings_hold_the_network_and_not_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = generator()
    (tmp_path / "network.json").write_text(model.to_json())
    monkeypatch.chdir(tmp_path)
    by_path, by_text = Dcgan(generator="network.json"), Dcgan(generator=model.to_json())
    assert by_path == by_text == Dcgan(generator=model)
    assert "network.json" not in by_path.model_dump_json()
    assert Dcgan.model_validate(by_path.model_dump()) == by_path
    (tmp_path / "network.json").unlink()
    assert catalog.build_model("dcgan", SPACE, by_path.model_copy(update={"latent": LATENT}))


def test_fit_save_and_load_by_the_public_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras objects go in; the artifact needs neither them nor a file, and gives the same pictures and scores."""
    pictures = (digits()[:300].reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    table = pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(pictures)})
    (tmp_path / "discriminator.json").write_text(discriminator().to_json())
    monkeypatch.chdir(tmp_path)
    networks = {"generator": generator(), "discriminator": "discriminator.json", "latent": LATENT}
    model = genai_core.fit(
        table, "gan", modality={"kind": "image"}, model=networks, max_epochs=1, evaluations=1
    )
    model.save(tmp_path / "model")
    (tmp_path / "discriminator.json").unlink()
    kept = (tmp_path / "model" / "artifact.json").read_text()
    assert "discriminator.json" not in kept
    assert "Conv2D" in kept
    again = genai_core.load(tmp_path / "model")
    assert again.sample(20, seed=3).equals(model.sample(20, seed=3))
    scores = [m.score(table.slice(0, 50), ["discriminator"]).totals["discriminator"] for m in (model, again)]
    np.testing.assert_array_equal(*scores)


def altered(change: dict[str, Any]) -> str:
    """A network with one more layer."""
    text = json.loads(generator().to_json())
    text["config"]["layers"].append(
        {"module": "keras.layers", "registered_name": None, "config": {}, **change}
    )
    return json.dumps(text)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (lambda: altered({"class_name": "Lambda"}), "holds code"),
        (lambda: altered({"class_name": "TorchModuleWrapper"}), "holds a pickle"),
        (lambda: altered({"class_name": "system", "module": "os"}), "does not define"),
        (lambda: altered({"class_name": "get_file", "module": "keras.utils"}), "does not define"),
        (lambda: altered({"class_name": "function", "module": "builtins"}), "does not define"),
        (lambda: altered({"class_name": "Mine", "registered_name": "package>Mine"}), "does not define"),
        ("nothing.json", "nor a .json file that exists"),
        ("{broken", "no JSON"),
        ('{"a": 1}', "no Keras network"),
        (7, "accepted are a keras.Model"),
    ],
)
def test_what_could_run_code_or_is_no_network_is_refused(network: Any, why: str) -> None:
    network = network() if callable(network) else network
    for settings in (Gan, Dcgan, Cyclegan):
        with pytest.raises(ValidationError, match=why):
            settings(generator=network)


def test_a_lambda_written_in_keras_is_refused() -> None:
    keras = load_keras()
    model = keras.Sequential([keras.Input((LATENT,)), keras.layers.Lambda(lambda x: x * 2)])
    with pytest.raises(ValidationError, match="Lambda layer, which is refused"):
        Gan(generator=model)


@pytest.mark.parametrize(
    ("space", "settings", "why"),
    [
        (SPACE, {"latent": 7}, r"takes \(16,\); here it is given \(7,\).*model\.latent"),
        (Grid(1, 12, 12), {}, r"makes \(8, 8, 1\); needed is \(12, 12, 1\)"),
        (Grid(3, 8, 8), {"generator": None}, r"takes \(8, 8, 1\); here it is given \(8, 8, 3\)"),
        (LABELLED, {"generator": None, "discriminator": discriminator}, "has to take two inputs"),
        (
            SPACE,
            {"generator": lambda: generator(labels=True)},
            r"takes \(16,\) and \(1,\); here it is given \(16,\)",
        ),
        (SPACE, {"discriminator": patches}, "needed is 1 number"),
    ],
)
def test_shapes_are_looked_at_before_training(space: Grid, settings: dict[str, Any], why: str) -> None:
    chosen = {name: value() if callable(value) else value for name, value in settings.items()}
    both = {"generator": generator(), "discriminator": discriminator(), "latent": LATENT}
    with pytest.raises(InvalidInput, match=why):
        catalog.build_model("dcgan", space, both | chosen)


def test_another_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_keras().backend, "backend", lambda: "jax")
    with pytest.raises(
        InvalidInput, match=r"imported with the backend 'jax' before.*set KERAS_BACKEND=torch"
    ):
        load_keras()
