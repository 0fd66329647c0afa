"""How far two samples lie apart in given features: Frechet and kernel distance, beside real against real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genai_core.errors import InvalidData

BLOCK = 1024  # rows


@dataclass(frozen=True)
class Apart:
    """Distances of a made sample from a real one, and those of another real sample of the same size.

    frechet, frechet_real  squared Frechet distances: not comparable among features, and the fewer the rows the larger
    kernel, kernel_real    unbiased kernel distances: 0 in expectation for equal distributions, may be negative
    rows                   of the made sample
    """

    frechet: float
    frechet_real: float
    kernel: float
    kernel_real: float
    rows: int

    @property
    def ratio(self) -> float:
        """Frechet distance of the made sample, that of real rows being 1."""
        return self.frechet / max(self.frechet_real, 1e-12)


def apart(made: np.ndarray, real: np.ndarray, other_real: np.ndarray) -> Apart:
    """Compare features (rows, d) of made and of other real records with those of real ones.

    made and other_real must have equally many rows, or the smaller would look further away. Raises InvalidData.
    """
    if len(made) != len(other_real):
        raise InvalidData(
            f"found {len(made)} made and {len(other_real)} real rows; give equally many, "
            "the Frechet distance falls with the number of rows"
        )
    return Apart(
        frechet_distance(made, real),
        frechet_distance(other_real, real),
        kernel_distance(made, real),
        kernel_distance(other_real, real),
        len(made),
    )


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of two Gaussians with the samples' means and covariances (Heusel et al. 2017).

    a, b: features (rows, d), at least two rows each. No matrix root is taken: tr sqrt(A B) is the sum of the singular
    values of R_a R_b^T, where R^T R is a covariance, so that fewer rows than features (singular covariances) are
    no numerical trouble. The distance of small samples is biased upwards (Chong & Forsyth 2020).
    """
    a, b = _features(a), _features(b)
    shift = a.mean(0) - b.mean(0)
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = shift @ shift + np.square(root_a).sum() + np.square(root_b).sum() - 2 * cross
    return float(max(distance, 0.0))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3 (KID: Binkowski et al. 2018).

    a, b: features (rows, d), at least two rows each, of about unit size or as the features' network gives them.
    """
    a, b = _features(a), _features(b)
    within = sum((_kernels(x, x) - _with_itself(x)) / (len(x) * (len(x) - 1)) for x in (a, b))
    return float(within - 2 * _kernels(a, b) / (len(a) * len(b)))


def _kernels(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of the kernel over all pairs; in blocks, or ten thousand rows would take gigabytes."""
    blocks = (a[start : start + BLOCK] for start in range(0, len(a), BLOCK))
    return float(sum(((part @ b.T / a.shape[1] + 1) ** 3).sum() for part in blocks))


def _with_itself(x: np.ndarray) -> float:
    return float(((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum())


def _covariance_root(x: np.ndarray) -> np.ndarray:
    """R (at most d, d) with R^T R the covariance of x."""
    return np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1)


def _features(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise InvalidData(f"found features of shape {x.shape}; accepted: at least two rows of finite numbers")
    return x
