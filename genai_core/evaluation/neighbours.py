"""Nearest neighbours in feature space, exactly and in blocks: memory does not grow with the product of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 4_000_000  # distances held at once


def blocks(points: np.ndarray, among: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of `points` (n, d), and their Euclidean distances (rows, m) to all of `among` (m, d)."""
    points, among = np.asarray(points, np.float32), np.asarray(among, np.float32)
    squares, step = (among**2).sum(1), max(BLOCK // max(len(among), 1), 1)
    for start in range(0, len(points), step):
        part = points[start : start + step]
        found = part @ among.T
        found *= -2
        found += squares
        found += (part**2).sum(1)[:, None]
        np.maximum(found, 0, out=found)
        yield slice(start, start + len(part)), np.sqrt(found, out=found)


def nearest(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Distance of every point to the closest of `among`, float32 (n,)."""
    found = np.empty(len(points), np.float32)
    for rows, distances in blocks(points, among):
        found[rows] = distances.min(1)
    return found


def radii(points: np.ndarray, k: int) -> np.ndarray:
    """Distance of every point to its k-th nearest other point, float32 (n,)."""
    found = np.empty(len(points), np.float32)
    for rows, distances in blocks(points, points):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        found[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return found
