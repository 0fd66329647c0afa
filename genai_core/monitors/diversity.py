"""Diversity of made records: coverage, missing classes and clusters, duplicates, copies of training records, and of
tables whether the columns depend on each other at all: a generator that ignores its noise draws each by itself.

Everything is measured in features of `views`, on equally many made and held-out records, against real records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genai_core.monitors.signals import Signal, signal

NEIGHBOURS = 5  # PRDC (Naeem et al. 2020)
CLUSTERS, ROUNDS = 20, 10
HEAVY = 0.01  # share of the real records from which on a class or cluster is missed
CHANCE = 1e-4  # of one group to be missing by chance, of a share to be as high
NEAR = 0.1  # of the usual distance to the nearest other record: nearer is a copy
UNLIKELY = 3.72  # standard deviations that a normal number exceeds once in 1 / CHANCE
QUANTILE = 0.01
FEATURES, SURE = 512, 5.0  # of a table whose dependence is looked at; standard deviations from none


@dataclass
class Ties:
    """Covariances between features of different columns, and what real records agree on of them."""

    chosen: Tensor  # numbers of the features that are looked at
    real: Tensor
    agreed: float
    noise: Tensor  # variance of each covariance, times rows, where columns do not depend on each other

    @classmethod
    def of(cls, held_out: Tensor, train: Tensor, columns: Tensor) -> Ties | None:
        """None for columns that do not depend on each other."""
        chosen = torch.linspace(0, len(columns) - 1, min(len(columns), FEATURES)).long()
        apart = (columns[chosen, None] != columns[chosen]).float()
        real, variances = _covariance(train[:, chosen]) * apart, train[:, chosen].var(0)
        noise = variances[:, None] * variances * apart
        agreed = float((_covariance(held_out[:, chosen]) * real).sum())
        chance = float(noise.square().sum().sqrt()) / (len(train) * len(held_out)) ** 0.5
        return cls(chosen, real, agreed, noise) if agreed > SURE * chance else None

    def signal(self, made: Tensor) -> Signal:
        """How much of the dependence between real columns there is between made ones."""
        found = float((_covariance(made[:, self.chosen]) * self.real).sum()) / self.agreed
        chance = float((self.real.square() * self.noise).sum().sqrt()) / len(made) ** 0.5 / self.agreed
        said = f"made columns depend on each other {max(found, 0.0):.0%} as much as real ones"
        return signal("dependence", found, said, 3 * chance)


@dataclass
class Real:
    """What real records say: features (rows, d) of held-out and of training ones, and the groups of both.

    names  of the groups: classes, or clusters
    """

    held_out: Tensor
    train: Tensor
    groups: Tensor  # (train rows,)
    names: list[str]
    columns: Tensor | None = None  # (d,): the column of a table that each feature is of
    ties: Ties | None = field(init=False)
    radius: Tensor = field(init=False)  # (rows,): distance to the fifth neighbour among the held-out
    to_train: Tensor = field(init=False)
    near: float = field(init=False)
    covered: float = field(init=False)
    copies: float = field(init=False)
    shares: Tensor = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.held_out)
        within = distances(self.held_out, self.held_out)
        self.radius = within.kthvalue(min(NEIGHBOURS + 1, n), 1).values
        apart = distances(self.held_out, self.train)
        self.to_train = apart.min(1).values
        self.covered = float((apart[:, :n].min(1).values <= self.radius).float().mean())
        self.near = NEAR * float(_others(within).median())
        self.copies = _copies(within, self.limits(self.radius))
        self.shares = torch.bincount(self.groups, minlength=len(self.names)) / len(self.groups)
        self.ties = None if self.columns is None else Ties.of(self.held_out, self.train, self.columns)

    def limits(self, radius: Tensor) -> Tensor:
        """How near (rows,) another record may not be: nearer still where real ones lie closer together than usual.

        radius (rows,): of the held-out record at that place. In a table with a crowded corner (mammography of ADBench)
        a sixth of the records of a sound VAE were copies by the usual distance.
        """
        return self.near * (radius / self.radius.median().clamp(min=1e-9)).clamp(max=1.0)


def diversity(real: Real, made: Tensor, labels: Tensor | None = None) -> list[Signal]:
    """Signals of made records, features (rows, d), as many as there are held-out ones; labels (rows,) of classes.

    A class is missing when no record has its label, or none looks like one of it.
    """
    n = len(made)
    apart = distances(real.held_out, made)
    coverage = float((apart.min(1).values <= real.radius).float().mean())
    relative = min(coverage / max(real.covered, 1e-9), 1.0)
    within = distances(made, made)
    doubled = _copies(within, real.limits(real.radius[apart.argmin(0)])) - real.copies
    chance = max(_noise(n), _sampling_noise(real.copies, n))
    near, nearest = distances(made, real.train).min(1)
    return [
        signal("coverage", relative, f"made records cover {relative:.0%} of what real ones do"),
        signal(
            "duplicates", max(doubled, 0.0), f"{doubled:.1%} of the made records have a near copy", chance
        ),
        *_histogram(real, real.groups[nearest], labels),
        _memorising(real, near, n),
        *([real.ties.signal(made)] if real.ties else []),
    ]


def _memorising(real: Real, near: Tensor, n: int) -> Signal:
    """More of the made than of the held-out records lie as near to a training record as one held-out in a hundred."""
    limit = real.to_train.quantile(QUANTILE)
    usual = float((real.to_train <= limit).float().mean())  # far more where rows are there many times
    extra = float((near <= limit).float().mean()) - usual + QUANTILE
    said = f"{extra:.1%} of the made records are nearer to a training record than 99 % of real ones"
    return signal("memorising", max(extra, 0.0), said, max(_noise(n), _sampling_noise(usual, n)))


def _histogram(real: Real, groups: Tensor, labels: Tensor | None) -> list[Signal]:
    """KL of the made records' groups, corrected for what chance adds, and the groups that are never made."""
    counts = torch.bincount(groups, minlength=len(real.names)).double()
    n, k = float(counts.sum()), len(real.names)
    made, shares = (counts + 0.5) / (n + 0.5 * k), (real.shares.double() * n + 0.5) / (n + 0.5 * k)
    nats = float((made * (made / shares).log()).sum()) - (k - 1) / (2 * n) - (k - 1) / (2 * len(real.groups))
    there = counts if labels is None else counts.minimum(torch.bincount(labels, minlength=k).double())
    lost = [i for i in range(k) if there[i] == 0 and _missed(float(real.shares[i]), n)]
    named = ", ".join(f"{real.names[i]} ({float(real.shares[i]):.0%} of the real ones)" for i in lost)
    return [
        signal(
            "histogram", max(nats, 0.0), f"made classes or clusters lie {nats:.2f} nats from the real ones"
        ),
        signal("missing", len(lost), f"never made: {named}" if lost else ""),
    ]


def _missed(share: float, n: float) -> bool:
    """Whether a group of this share of the real records is missing from n made ones by more than chance."""
    return share > HEAVY and n * math.log1p(-min(share, 1 - 1e-9)) < math.log(CHANCE)


def clusters(x: Tensor, seed: int) -> Tensor:
    """Groups (rows,) of features by Lloyd's algorithm, from the seed; at most CLUSTERS."""
    generator = torch.Generator().manual_seed(seed)
    k = max(min(CLUSTERS, len(x) // 10), 1)
    centres = x[torch.randperm(len(x), generator=generator)[:k]].clone()
    for _ in range(ROUNDS):
        group = distances(x, centres).argmin(1)
        counts = torch.bincount(group, minlength=k).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, group, x)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return distances(x, centres).argmin(1)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """(rows of a, rows of b); what differs by rounding alone is 0, which `torch.cdist` does not promise."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)
    found = squares - 2 * a @ b.T
    return torch.where(found > 1e-5 * squares, found, 0.0).sqrt()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def _others(within: Tensor) -> Tensor:
    """Distance (rows,) of each record to the nearest other one."""
    return (within + torch.diag(torch.full((len(within),), torch.inf))).min(1).values


def _copies(within: Tensor, limits: Tensor) -> float:
    """Share of the records that repeat an earlier one, within their limit: the first of its kind is none."""
    near = (within <= limits[:, None]).tril(-1)
    return float(near.any(1).float().mean())


def _sampling_noise(share: float, n: int) -> float:
    """By how much two samples of n records differ in a share, more than which one look in ten thousand finds.

    Nothing for a share of a hundredth or less, whose noise is `_noise`. Of 1,450 rows of mammography (ADBench) 29 % are
    one and the same; of 80 of them 19 % were, of 80 made ones 36 %.
    """
    return UNLIKELY * math.sqrt(2 * share * (1 - share) / n) if share > QUANTILE else 0.0


def _noise(n: int) -> float:
    """What chance adds to a share of a hundredth: more, one look in ten thousand finds (counts are Poisson's)."""
    counts = torch.arange(1.0, n + 1)
    unlikely = torch.special.gammainc(counts, torch.full_like(counts, n * QUANTILE)) < CHANCE
    return max(float(counts[unlikely][:1].sum()) / n - QUANTILE, 0.0)
