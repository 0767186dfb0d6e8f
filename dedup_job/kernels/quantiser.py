"""A coarse quantiser: cuts a large block of vectors into cells of bounded size.

Spherical k-means (Dhillon & Modha, Machine Learning 42, 2001) on a sample; cells that would still
be too large are cut again, so that one popular kind of photo does not fill one task's memory.
"""

import numpy as np
from numpy.typing import NDArray

from dedup_job.kernels.neighbours import Indices, Vectors

# Vectors of the sample that stand behind each cell, and the most that are ever collected.
_SAMPLE_PER_CELL, _MAX_SAMPLE = 64, 100_000
_ITERATIONS = 10
_CUT_ROUNDS = 3
# Sums of products differ in the last bits with the batch a vector comes in; cells must not.
_SCORE_DECIMALS = 9


def wanted_cells(n_rows: int, max_members: int) -> int:
    """Number of cells to start from: on average they are half full, as k-means is uneven."""
    return -(-2 * n_rows // max_members)


def sample_size(n_rows: int, max_members: int) -> int:
    """Vectors to train on: enough for every cell, bounded for the driver."""
    return min(n_rows, _MAX_SAMPLE, _SAMPLE_PER_CELL * wanted_cells(n_rows, max_members))


def train_cells(sample: Vectors, n_rows: int, max_members: int, seed: int) -> Vectors:
    """Centroids of the cells of a block.

    Args:
        sample: float32 (s, d) unit rows of the block, in an order free of chance; s >= 1.
        n_rows: vectors in the whole block.
        max_members: vectors whose nearest cell a cell should be, at most. Kept as far as the sample
            shows; vectors that are all equal cannot be parted.
        seed: of the first centroids.

    Returns:
        float32 (k, d), unit rows.
    """
    rng = np.random.default_rng(seed)
    cells = _k_means(sample, wanted_cells(n_rows, max_members), rng)
    for _ in range(_CUT_ROUNDS):
        owner = nearest_cells(sample, cells, 1)[:, 0]
        rows = np.bincount(owner, minlength=len(cells)) * (n_rows / len(sample))
        too_large = np.flatnonzero(rows > max_members)
        if not len(too_large):
            break
        parts = [
            _k_means(sample[owner == cell], wanted_cells(int(rows[cell]), max_members), rng)
            for cell in too_large
        ]
        cells = np.concatenate([np.delete(cells, too_large, axis=0), *parts])
    return cells


def nearest_cells(vectors: Vectors, cells: Vectors, n_nearest: int) -> Indices:
    """The nearest cells of each vector, nearest first, ties to the smaller number.

    Args:
        vectors: float32 (n, d), unit rows.
        cells: float32 (k, d), unit rows.
        n_nearest: cells to return; all of them where k is smaller.

    Returns:
        int64 (n, min(n_nearest, k)).
    """
    scores = np.round(vectors.astype(np.float64) @ cells.T.astype(np.float64), _SCORE_DECIMALS)
    rows, n_nearest = np.arange(len(scores)), min(n_nearest, len(cells))
    nearest = np.empty((len(scores), n_nearest), np.int64)
    # A few passes: sorting hundreds of cells took thirty times as long, thousands twenty times.
    for place in range(n_nearest):
        nearest[:, place] = scores.argmax(axis=1)  # the first of equals
        scores[rows, nearest[:, place]] = -np.inf
    return nearest


def _k_means(vectors: Vectors, k: int, rng: np.random.Generator) -> Vectors:
    k = min(k, len(vectors))
    cells = vectors[np.sort(rng.choice(len(vectors), size=k, replace=False))].copy()
    for _ in range(_ITERATIONS):
        owner = nearest_cells(vectors, cells, 1)[:, 0]
        cells = _means(vectors, owner, cells)
    return cells


def _means(vectors: Vectors, owner: NDArray[np.int64], cells: Vectors) -> Vectors:
    """Normalised mean of each cell; an empty or balanced-out cell stays where it was."""
    sums = np.zeros(cells.shape, dtype=np.float64)
    np.add.at(sums, owner, vectors)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means = np.divide(sums, norms, out=cells.astype(np.float64), where=norms > 1e-9)
    return means.astype(np.float32)
