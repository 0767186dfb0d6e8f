"""Where many vectors lie on nearly one spot: core points with more neighbours than a product has.

The idea of DBSCAN's core points (Ester, Kriegel, Sander and Xu, KDD 1996, p. 228), each spot named by
one of them, its leader.
"""

import numpy as np

from dedup_job.kernels.neighbours import Indices, Vectors

_BLOCK_ROWS = 2_048


def find_leaders(
    vectors: Vectors, min_cosine: float, least_neighbours: int, most_leaders: int
) -> Indices:
    """Leaders of the dense spots, the densest first.

    The row with the most neighbours leads, and its neighbours cannot; repeated with the rows that are
    left. Of equal rows the first one leads, so the order of rows is to be fixed by the caller.

    Args:
        vectors: float32 (n, d), unit L2 norm.
        min_cosine: rows this close are neighbours; a row is its own neighbour.
        least_neighbours: rows with fewer neighbours do not lead.
        most_leaders: where to stop.

    Returns:
        int64 row numbers; no two are neighbours.
    """
    counts = np.zeros(len(vectors), np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        counts[rows] = np.count_nonzero(vectors[rows] @ vectors.T >= min_cosine, axis=1)
    can_lead = counts >= least_neighbours
    leaders: list[int] = []
    for row in np.argsort(-counts, kind="stable"):
        if not can_lead[row]:
            continue
        leaders.append(int(row))
        if len(leaders) == most_leaders:
            break
        can_lead &= vectors @ vectors[row] < min_cosine
    return np.array(leaders, np.int64)
