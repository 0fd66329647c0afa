"""Networks by space: `encoder(space)`, `decoder(space)`, `causal(space)`, `critic(space)`.

A space registers its networks with `functools.singledispatch`; a family asks by space and never by modality.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from genai_core.networks.any_order import AnyOrderNetwork
from genai_core.networks.mlp import TokenCritic, TokenEncoder
from genai_core.observations import TokenObservation
from genai_core.spaces import Tokens


def _unknown(space: object) -> Any:
    raise TypeError(f"no network is registered for the space {type(space).__name__}")


@singledispatch
def encoder(space: object, hidden: int, embedding: int) -> Any:
    """Records (batch, ...) -> (batch, hidden)."""
    return _unknown(space)


@singledispatch
def decoder(space: object, hidden: int) -> Any:
    """The observation p(x | h) of hidden states (batch, hidden)."""
    return _unknown(space)


@singledispatch
def causal(space: object, context: int, hidden: int, embedding: int, dropout: float) -> Any:
    """log p(position | the positions before it) for every position."""
    return _unknown(space)


@singledispatch
def critic(space: object, hidden: int, pac: int) -> Any:
    """Dense records (batch, size) -> logits (batch / pac,)."""
    return _unknown(space)


encoder.register(Tokens, TokenEncoder)
decoder.register(Tokens, TokenObservation)
causal.register(Tokens, AnyOrderNetwork)
critic.register(Tokens, TokenCritic)
