"""Distance of a picture's patches from those of training pictures at the same place (PatchCore: Roth et al. 2022)

The features are fixed, so this score needs no pretrained network and nothing of the model: edges by direction, blurred
and normalised by their surroundings (as in HOG: Dalal & Triggs 2005), in cells; of pictures in colour the colours too.
A patch of cells is compared with the patches at its own place in MEMORY training pictures: the score is the sum over
the places of the mean distance to the NEIGHBOURS nearest. Single pictures that stand out do so in what they depict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.model import Model
from genai_core.scores import State
from genai_core.spaces import Grid

NEEDS = Model
UNIT = "distance"
MEMORY, NEIGHBOURS = 2000, 3
MAX_FLOATS = 2**22  # of the memory
LARGEST = 40  # pixels on the longer side; larger pictures are averaged down first
CELLS, PATCH = 9, 5  # cells on the longer side; cells along a patch's sides
DIRECTIONS = 8
FINE, COARSE = 0.25, 0.5  # blur before and after the edges, in cells
NORM = 0.1  # contrast below which edges are noise
TOGETHER = 64  # pictures compared at once


def fit(model: Model, x: Tensor, generator: torch.Generator, effort: float = 1.0) -> dict[str, Tensor]:
    """The features of at most MEMORY pictures, float16 (pictures, features, cells down, cells across)."""
    room = MAX_FLOATS // features(model.space, x[:1]).numel()
    order = torch.randperm(len(x), generator=generator)[: max(min(MEMORY, room), NEIGHBOURS)]
    kept = [features(model.space, x[part]) for part in order.sort().values.split(256)]
    return {"memory": torch.cat(kept).half()}


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows,)."""
    return _distances(model.space, x, state).sum(1)


def entries(model: Model, x: Tensor, state: State) -> Tensor:
    """(rows, entries): of every cell what it differs by from the patches found, shared by its pixels; a label: 0."""
    space, sides = model.space, state["memory"].shape[2:]
    memory = _patches(state["memory"].float())
    parts = [_by_cell(_patches(features(space, part)), memory, sides) for part in x.split(TOGETHER)]
    cells = torch.cat(parts)
    heat = F.interpolate(cells, space.shape[1:], mode="bilinear").flatten(1)
    heat = heat * (cells.flatten(1).sum(1, keepdim=True) / heat.sum(1, keepdim=True).clamp(min=1e-12))
    return F.pad((heat / space.channels).repeat(1, space.channels), (space.labelled, 0))


def _by_cell(own: Tensor, memory: Tensor, sides: Sequence[int]) -> Tensor:
    """(rows, 1, down, across), which adds up to the score: a distance d is the sum over its cells of d_cell^2 / d."""
    _, index = _nearest(own, memory, memory.square().sum(2)[:, None])
    chosen = memory[torch.arange(len(memory))[:, None, None], index]  # (places, rows, neighbours, values)
    squares = (own[:, :, None] - chosen).square()
    shares = (squares / squares.sum(3, keepdim=True).sqrt().clamp(min=1e-6)).mean(2)
    by_cell = shares.unflatten(2, (-1, math.prod(_area(sides)))).sum(2)
    return F.fold(by_cell.permute(1, 2, 0), tuple(sides), _area(sides))


def _distances(space: Grid, x: Tensor, state: State) -> Tensor:
    """(rows, places)."""
    memory = _patches(state["memory"].float())
    squares = memory.square().sum(2)[:, None]
    parts = [_nearest(_patches(features(space, part)), memory, squares)[0] for part in x.split(TOGETHER)]
    return torch.cat(parts, 1).T


def _nearest(own: Tensor, memory: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (places, rows) and pictures (places, rows, neighbours); own (places, rows, values), memory alike."""
    found = torch.baddbmm(own.square().sum(2)[..., None] + squares, own, memory.transpose(1, 2), alpha=-2)
    nearest = found.topk(min(NEIGHBOURS, memory.shape[1]), 2, largest=False)
    return nearest.values.clamp(min=0).sqrt().mean(2), nearest.indices


def _area(cells: Sequence[int]) -> tuple[int, int]:
    """Cells of a patch, down and across."""
    return min(PATCH, cells[0]), min(PATCH, cells[1])


def _patches(cells: Tensor) -> Tensor:
    """(rows, features, down, across) -> (places, rows, values)."""
    return F.unfold(cells, _area(cells.shape[2:])).permute(2, 0, 1).contiguous()


def features(space: Grid, x: Tensor) -> Tensor:
    """(rows, features, cells down, cells across)."""
    pictures = x[:, space.labelled :].reshape(-1, *space.shape).float() / (space.levels - 1)
    if (factor := -(-max(space.height, space.width) // LARGEST)) > 1:
        pictures = F.avg_pool2d(pictures, factor, ceil_mode=True)
    step = max(round(max(pictures.shape[2:]) / CELLS), 1)
    edges = _edges(_blurred(pictures, FINE * step)).clamp(min=1e-12).sqrt()
    edges = _blurred(edges, COARSE * step)
    surroundings = _blurred(edges.square().sum(1, keepdim=True), 2 * COARSE * step).sqrt()
    found = edges / (surroundings + NORM)
    if space.channels > 1:
        found = torch.cat([found, _blurred(pictures, COARSE * step)], 1)
    return found[:, :, step // 2 :: step, step // 2 :: step]


def _edges(pictures: Tensor) -> Tensor:
    """(rows, DIRECTIONS, height, width): the gradient's positive parts along each direction, mean over channels."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    angles = [2 * math.pi * i / DIRECTIONS for i in range(DIRECTIONS)]
    parts = [torch.relu(across * math.cos(a) + down * math.sin(a)).mean(1) for a in angles]
    return torch.stack(parts, 1)


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    reach = int(3 * sigma + 0.5)
    if reach == 0:
        return pictures
    weights = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    kernel, channels = (weights / weights.sum()), pictures.shape[1]
    for shape, pad in (((1, 1, 1, -1), (reach, reach, 0, 0)), ((1, 1, -1, 1), (0, 0, reach, reach))):
        padded = F.pad(pictures, pad, mode="replicate")
        pictures = F.conv2d(padded, kernel.view(shape).expand(channels, *([-1] * 3)), groups=channels)
    return pictures
