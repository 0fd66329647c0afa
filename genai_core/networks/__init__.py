"""Networks by space: `causal(space, settings)`, `encoder`, `decoder`, `players`.

A space registers its networks with `functools.singledispatch`; a family asks by space and never by modality.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from genai_core.networks.any_order import AnyOrderNetwork
from genai_core.networks.dilated import DilatedNetwork
from genai_core.networks.mlp import TokenEncoder
from genai_core.networks.picture_autoencoder import PictureEncoder, PictureObservation
from genai_core.networks.picture_players import picture_players
from genai_core.networks.pixels import PixelNetwork
from genai_core.networks.sequence_autoencoder import SequenceEncoder, SequenceObservation
from genai_core.networks.sequence_players import sequence_players
from genai_core.networks.token_players import token_players
from genai_core.networks.transformer import CausalTransformer
from genai_core.observations import TokenObservation
from genai_core.spaces import Grid, Sequence, Tokens


def _unknown(space: object) -> Any:
    raise TypeError(f"no network is registered for the space {type(space).__name__}")


@singledispatch
def causal(space: object, settings: Any) -> Any:
    """The `CausalNetwork` of an autoregressive model."""
    return _unknown(space)


@singledispatch
def encoder(space: object, settings: Any) -> Any:
    """x (batch, entries) -> (batch, settings.hidden)."""
    return _unknown(space)


@singledispatch
def decoder(space: object, settings: Any) -> Any:
    """The `Observation` p(x | h) given h (batch, settings.hidden)."""
    return _unknown(space)


@singledispatch
def players(space: object, settings: Any) -> Any:
    """Generator and critic of an adversarial model, as (`Generator`, critic): see `genai_core.networks.adversaries`."""
    return _unknown(space)


def width(space: object) -> int:
    """Of hidden layers of a variational autoencoder, unless a job says otherwise.

    Tables are narrow: rows are drawn faster.
    """
    return 96 if isinstance(space, Tokens) else 256


def sequence_network(space: Sequence, settings: Any) -> Any:
    """The causal network of a sequence: of samples dilated convolutions, of words a transformer."""
    return DilatedNetwork(space, settings) if space.ordered else CausalTransformer(space, settings)


causal.register(Grid, PixelNetwork)
causal.register(Sequence, sequence_network)
causal.register(Tokens, AnyOrderNetwork)
encoder.register(Grid, PictureEncoder)
encoder.register(Sequence, SequenceEncoder)
encoder.register(Tokens, TokenEncoder)
decoder.register(Grid, PictureObservation)
decoder.register(Sequence, SequenceObservation)
decoder.register(Tokens, TokenObservation)
players.register(Grid, picture_players)
players.register(Sequence, sequence_players)
players.register(Tokens, token_players)
