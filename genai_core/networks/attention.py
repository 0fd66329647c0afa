"""Transformer blocks: causal self-attention with rotary positions, a feed-forward part, and a cache for sampling"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """A product with a matrix that is kept in full precision, computed in the precision of what comes in."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Cache:
    """Keys and values of the places that were read so far, so that sampling computes them once."""

    def __init__(self, layers: int, rows: int, heads: int, length: int, width: int, like: Tensor) -> None:
        self.kept = like.new_zeros(layers, 2, rows, heads, length, width)
        self.length = 0  # places in it; whoever reads them all sets it

    def extended(self, layer: int, keys_values: Tensor) -> Tensor:
        """keys_values (2, rows, heads, places, width) of the next places -> those of all places."""
        last = self.length + keys_values.shape[3]
        self.kept[layer, :, :, :, self.length : last] = keys_values
        return self.kept[layer, :, :, :, :last]


class Block(nn.Module):
    """Pre-norm residual block (Vaswani et al. 2017; Xiong et al. 2020) with squared ReLU (So et al. 2021)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.Parameter(torch.ones(width))
        self.before_feed = nn.Parameter(torch.ones(width))
        self.sharpness = nn.Parameter(torch.ones(heads, 1, 1))
        self.queries_keys_values = Linear(width, 3 * width, width**-0.5)
        self.out = Linear(width, width, SMALL)
        self.up = Linear(width, 4 * width, width**-0.5)
        self.down = Linear(4 * width, width, SMALL)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, turn: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """x (rows, places, width); turn (2, places, half a head): see `turns`, in the precision to compute in."""
        x = x + self.dropout(self._attend(_normed(x, self.before_attention, turn.dtype), turn, cache, layer))
        inner = F.relu(self.up(_normed(x, self.before_feed, turn.dtype))).square()
        return x + self.dropout(self.down(inner))

    def _attend(self, x: Tensor, turn: Tensor, cache: Cache | None, layer: int) -> Tensor:
        rows, places, width = x.shape
        each = self.queries_keys_values(x).view(rows, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # normalised queries and keys (Henry et al. 2020) keep the attention stable at high learning rates
        queries, keys = _turned(F.layer_norm(each[:2], each.shape[-1:]), turn)
        keys_values = torch.stack([keys, each[2]])
        if cache is not None:
            keys_values = cache.extended(layer, keys_values)
        queries = queries * (self.sharpness * queries.shape[-1] ** -0.5).to(x.dtype)
        found = _attention(queries, *keys_values)
        return self.out(found.transpose(1, 2).reshape(rows, places, width))


SMALL = 1e-3  # scale of what is added to the residual stream at first


def turns(places: int, width: int) -> Tensor:
    """Cosine and sine (2, places, width / 2) by which a head is turned at each place (RoPE: Su et al. 2021)."""
    frequencies = 1e-3 ** torch.linspace(0, 1, width // 2)
    angles = torch.arange(places)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def precision(device: torch.device) -> torch.dtype:
    """For the products of a training step: bfloat16 where the processor multiplies it natively, twice as fast."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _normed(x: Tensor, gain: Tensor, dtype: torch.dtype) -> Tensor:
    """Layer norm without bias: torch's RMS norm is no single kernel on CPUs and took 2.5 times as long."""
    return F.layer_norm(x, x.shape[-1:], gain).to(dtype)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    cosine, sine = turn
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


def _attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention with a scale of 1; one query sees everything, several queries are all that there is.

    On CPUs three products: for 16 x 128 places, 3 heads of 64 in bfloat16 a step forth and back took 6.4 ms, torch
    2.13's fused kernel 21.7 ms.
    """
    several = queries.shape[2] > 1
    if queries.device.type != "cpu":
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=several, scale=1.0)
    q, k, v = (part.flatten(0, 1) for part in (queries, keys, values))
    ahead = q.new_zeros(q.shape[1], k.shape[1])
    if several:
        ahead = ahead.fill_(float("-inf")).triu(1)
    return torch.bmm(torch.baddbmm(ahead, q, k.transpose(1, 2)).softmax(-1), v).view_as(queries)
