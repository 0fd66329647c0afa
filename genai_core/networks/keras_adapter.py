"""Networks defined in Keras 3 as torch modules, by Keras's torch backend: generators and critics of pictures."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genai_core.errors import InvalidInput, Unavailable
from genai_core.spaces import Grid

BACKEND = "torch"


def load_keras() -> Any:
    """The package, on its torch backend, in this process. Raises Unavailable, InvalidInput."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = BACKEND  # Keras looks at it once, when it is imported
    try:
        import keras
    except ImportError:
        raise Unavailable(
            "the network is defined in Keras, which is not installed: pip install 'genai-core[keras]'"
        ) from None
    if keras.backend.backend() != BACKEND:
        raise InvalidInput(
            f"Keras was imported with the backend {keras.backend.backend()!r} before; networks are trained on "
            f"{BACKEND!r}: set KERAS_BACKEND={BACKEND} before anything imports Keras"
        )
    return keras


class Architecture:
    """A built Keras model, of which only the computation is used; copies of a network share it."""

    def __init__(self, text: str, name: str) -> None:
        keras = load_keras()
        with _first_weights(keras):
            try:
                self.model = keras.models.model_from_json(text)
            except Exception as error:  # whatever Keras finds wrong
                raise InvalidInput(
                    f"{name}: Keras {keras.__version__} cannot make this network: {_first_line(error)}"
                ) from error
        if not self.model.built or not self.model.inputs:
            raise InvalidInput(
                f"{name}: the network does not say what it takes; begin it with keras.Input(shape)"
            )
        self.keras, self.name = keras, name

    def __deepcopy__(self, memo: Any) -> Architecture:
        return self

    @property
    def takes(self) -> list[tuple[int | None, ...]]:
        """Shapes of the inputs without the batch."""
        return [tuple(tensor.shape[1:]) for tensor in self.model.inputs]

    @property
    def ends_in_sigmoid(self) -> bool:
        """Whether the last operation is a sigmoid, or a layer that it belongs to."""
        return getattr(self._last, "activation", None) is self.keras.activations.sigmoid

    def give_logits(self) -> None:
        """Take a sigmoid off the end."""
        if self.ends_in_sigmoid:
            self._last.activation = self.keras.activations.linear

    @property
    def _last(self) -> Any:
        return self.model.outputs[0]._keras_history.operation


@contextmanager
def _first_weights(keras: Any) -> Iterator[None]:
    """Keras draws its first weights from a seed of torch's global generator; all generators are left as they were."""
    seed = int(torch.randint(2**31 - 1, ()))
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        keras.utils.set_random_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


class KerasNetwork(nn.Module):
    """A Keras model whose tensors are this module's: parameters, and as buffers what training does not change by
    gradients (moving statistics). So averaging, checkpoints, devices and copies work as for any other module."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__()
        self.architecture = Architecture(text, name)
        model = self.architecture.model
        self.weights = nn.ParameterList(
            nn.Parameter(variable.value.detach().clone().cpu()) for variable in model.trainable_variables
        )
        self.fixed = len(model.non_trainable_variables)
        for number, variable in enumerate(model.non_trainable_variables):
            self.register_buffer(f"state_{number}", variable.value.detach().clone().cpu())

    def forward(self, *inputs: Tensor) -> Tensor:
        """Of tensors as Keras lays them out (batch, height, width, channels)."""
        keras, model = self.architecture.keras, self.architecture.model
        states = [getattr(self, f"state_{number}") for number in range(self.fixed)]
        given = inputs[0] if len(inputs) == 1 else list(inputs)
        with keras.device(str(inputs[0].device)):  # else Keras moves everything to a GPU when there is one
            out, after = model.stateless_call(list(self.weights), states, given, training=self.training)
        if self.training:
            with torch.no_grad():
                for state, new in zip(states, after, strict=True):
                    if new is not state:
                        state.copy_(new)
        return out

    def refuse_other(
        self, takes: list[tuple[int, ...]], makes: tuple[int, ...] | int | None, remedy: str
    ) -> None:
        """InvalidInput unless it takes these shapes and makes that one, or so many numbers; None: whatever."""
        arch = self.architecture
        fits = len(takes) == len(arch.takes) and all(map(_fits, arch.takes, takes))
        if not fits:
            raise InvalidInput(
                f"{arch.name}: the Keras network takes {_shapes(arch.takes)}; here it is given {_shapes(takes)}. "
                + remedy
            )
        with torch.no_grad():
            training, found = self.training, self.eval()(*(torch.zeros(2, *shape) for shape in takes))
        self.train(training)
        shape = tuple(found.shape[1:])
        if makes is not None and makes not in (shape, found[0].numel()):
            wanted = f"{makes} number" if isinstance(makes, int) else str(makes)
            raise InvalidInput(f"{arch.name}: the Keras network makes {shape}; needed is {wanted}. {remedy}")


def _fits(own: tuple[int | None, ...], given: tuple[int, ...]) -> bool:
    return len(own) == len(given) and all(a in (None, b) for a, b in zip(own, given, strict=True))


def _shapes(shapes: list[Any]) -> str:
    return " and ".join(map(str, shapes)) or "nothing"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


class KerasGenerator(nn.Module):
    """(z (batch, latent), labels) -> pictures (batch, channels, height, width) in -1 .. 1.

    What ends in a sigmoid makes 0 .. 1, which is spread. With labels the Keras network has two inputs: noise (latent,)
    and the number of the class (1,).
    """

    def __init__(self, text: str, space: Grid, latent: int) -> None:
        super().__init__()
        self.network = KerasNetwork(text, "model.generator")
        label = _label_input(self.network, space, "(noise, number of the class)")
        remedy = "Set model.latent to the network's noise, and modality.size to its pictures', or change the network"
        self.network.refuse_other([(latent,), *label], _keras_shape(space), remedy)
        self.label = label

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        pictures = self.network(z, *_as_input(labels, self.label)).movedim(-1, 1)
        return 2 * pictures - 1 if self.network.architecture.ends_in_sigmoid else pictures


class KerasCritic(nn.Module):
    """(pictures (batch, channels, height, width), labels (batch, 1) or None) -> logits (batch,).

    With labels the Keras network has two inputs: the picture and the number of the class (1,). A sigmoid at its end is
    taken off: the families' losses are of logits.
    """

    def __init__(self, text: str, space: Grid) -> None:
        super().__init__()
        self.network = KerasNetwork(text, "model.discriminator")
        self.network.architecture.give_logits()
        self.label = _label_input(self.network, space, "(picture, number of the class)")
        remedy = "Set modality.size and modality.colour to the network's pictures, or change the network"
        self.network.refuse_other([_keras_shape(space), *self.label], 1, remedy)

    def forward(self, pictures: Tensor, labels: Tensor | None) -> Tensor:
        return self.network(pictures.movedim(1, -1), *_as_input(labels, self.label)).flatten()


class KerasTranslator(nn.Module):
    """Pictures of one domain -> the other, both (batch, channels, height, width) in -1 .. 1."""

    def __init__(self, text: str, space: Grid) -> None:
        super().__init__()
        self.network = KerasNetwork(text, "model.generator")
        shape = _keras_shape(space)
        self.network.refuse_other([shape], shape, "Set modality.size, or change the network")

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(pictures.movedim(1, -1)).movedim(-1, 1)


class KerasPatches(nn.Module):
    """Pictures (batch, channels, height, width) -> one value a patch, (batch, patches); a sigmoid is taken off."""

    def __init__(self, text: str, space: Grid) -> None:
        super().__init__()
        self.network = KerasNetwork(text, "model.discriminator")
        self.network.architecture.give_logits()
        remedy = "Set modality.size and modality.colour to the network's pictures, or change the network"
        self.network.refuse_other([_keras_shape(space)], None, remedy)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(pictures.movedim(1, -1)).flatten(1)


def _keras_shape(space: Grid) -> tuple[int, int, int]:
    return space.height, space.width, space.channels


def _label_input(network: KerasNetwork, space: Grid, inputs: str) -> list[tuple[int, ...]]:
    """The shape of the label's input, (1,) or (), in a list; empty where records have no label."""
    name, takes = network.architecture.name, network.architecture.takes
    if not space.classes:
        return []
    if len(takes) != 2 or takes[1] not in ((1,), ()):
        raise InvalidInput(
            f"{name}: the records have labels, and the Keras network takes {_shapes(list(takes))}; it has to take two "
            f"inputs, {inputs}, or leave modality.label out"
        )
    return [takes[1]]


def _as_input(labels: Tensor | None, shape: list[tuple[int, ...]]) -> list[Tensor]:
    return [] if labels is None or not shape else [labels.reshape(-1, *shape[0])]
