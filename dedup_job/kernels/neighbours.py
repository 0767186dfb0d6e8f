"""All pairs of vectors at or above a cosine, within one cell.

Annoy finds candidates, float64 re-scores them: Annoy's own distances (float32, fast-math) decide
only how far a query looks, never what is reported. `exact_pairs` is the oracle, the fast path of
small cells, and the search of `candidates.search = "exact"`.

A cell is one matrix of vectors in an order the caller fixes (by content hash). Rows before
`n_indexed` are found, rows from `first_query` on look: a plain cell indexes and queries every row,
visitors from other cells stand behind the indexed rows, and two chunks of an exact search meet
with `first_query = n_indexed`.
"""

from dataclasses import dataclass

import numpy as np
from annoy import AnnoyIndex
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]

# Rows of one block of the exact matrix product: 1024 x 4096 float32 scores are 16 MB.
_BLOCK_INDEXED, _BLOCK_QUERIES = 4096, 1024
# A float32 product of unit vectors is off by some 1e-7; what it lets through is scored again.
_SLACK = 1e-5
# Annoy is compiled with -ffast-math and gives distances, not cosines.
_ANNOY_SLACK = 1e-4
_FIRST_K = 16
_RESCORE_ROWS = 16_384
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CellSearch:
    """How one cell is searched.

    Attributes:
        min_cosine: pairs below it are not reported.
        n_trees: trees of the Annoy index.
        search_k_factor: Annoy inspects `search_k_factor * n_trees * k` vectors for k neighbours.
        exact_below_rows: cells with fewer indexed rows are searched exactly, because that is
            quicker there. Measured on one core, 128 dimensions, 32 trees, exact against Annoy:
            4,096 rows 0.04 s and 0.36 s; 20,000 rows 0.7 s and 2.3 s; 60,000 rows 6.4 s and 13 s.
            A larger cell with few queries counts as a cell of as many comparisons: comparing them
            is quicker than building an index for them.
        seed: of Annoy's random splits.
    """

    min_cosine: float
    n_trees: int = 32
    search_k_factor: int = 1
    exact_below_rows: int = 20_000
    seed: int = 2026


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs of row numbers, sorted, with `i < j`.

    Attributes:
        i: int64 (n,), an indexed row.
        j: int64 (n,), a querying row (an indexed one, or one behind them).
        cosine: float32 (n,), as `pair_cosines` gives it.
    """

    i: Indices
    j: Indices
    cosine: Vectors


def find_pairs(
    vectors: Vectors, search: CellSearch, n_indexed: int | None = None, first_query: int = 0
) -> Pairs:
    """All pairs of a cell: exactly when that is little work, by Annoy otherwise.

    Args:
        vectors: float32 (n, d), unit L2 norm, in an order that does not depend on chance.
        search: floor and effort.
        n_indexed: rows before this are searched; default: all.
        first_query: rows from this on are queries; at most `n_indexed`.

    Raises:
        ValueError: a vector is not finite or not of unit norm.
    """
    n_found = len(vectors) if n_indexed is None else n_indexed
    n_looking = min(n_found, len(vectors) - first_query)
    if n_found * n_looking < search.exact_below_rows**2:
        return exact_pairs(vectors, search.min_cosine, n_indexed, first_query)
    return annoy_pairs(vectors, search, n_indexed, first_query)


def pair_cosines(vectors: Vectors, i: Indices, j: Indices) -> Vectors:
    """Cosine of each pair of rows: the same bits in whichever cell and order a pair is met.

    Products and their sum are float64, over the dimensions in order, so neither the neighbours in
    a block nor the order of the two operands can change the last bit.

    Args:
        vectors: float32 (n, d), unit L2 norm.
        i: int64 (p,) row numbers.
        j: int64 (p,) row numbers.

    Returns:
        float32 (p,) in [-1, 1].
    """
    cosines = np.empty(len(i), dtype=np.float32)
    for start in range(0, len(i), _RESCORE_ROWS):
        part = slice(start, start + _RESCORE_ROWS)
        products = vectors[i[part]].astype(np.float64) * vectors[j[part]].astype(np.float64)
        cosines[part] = np.clip(products.sum(axis=1), -1.0, 1.0)
    return cosines


def at_least(cosines: Vectors, min_cosine: float) -> NDArray[np.bool_]:
    """Whether each float32 cosine reaches a float64 floor, compared in float64 as Spark does.

    numpy alone would round the floor to float32 and disagree with Spark at the boundary.
    """
    return np.asarray(cosines, dtype=np.float64) >= min_cosine


def exact_pairs(
    vectors: Vectors, min_cosine: float, n_indexed: int | None = None, first_query: int = 0
) -> Pairs:
    """All pairs by a blocked matrix product. Arguments and errors as `find_pairs`."""
    n_indexed = _check(vectors, n_indexed, first_query)
    found: list[Indices] = []
    for query_start in range(first_query, len(vectors), _BLOCK_QUERIES):
        queries = vectors[query_start : query_start + _BLOCK_QUERIES]
        # Pairs have i < j, so indexed rows behind the last query of the block cannot take part.
        last_indexed = min(n_indexed, query_start + len(queries))
        for start in range(0, last_indexed, _BLOCK_INDEXED):
            indexed = vectors[start : min(start + _BLOCK_INDEXED, last_indexed)]
            j, i = np.nonzero(queries @ indexed.T >= np.float32(min_cosine - _SLACK))
            i, j = i + start, j + query_start
            found.append(np.stack([i[i < j], j[i < j]]))
    return _score(vectors, found, min_cosine)


def annoy_pairs(
    vectors: Vectors, search: CellSearch, n_indexed: int | None = None, first_query: int = 0
) -> Pairs:
    """All pairs that an Annoy index of the cell can see. Arguments and errors as `find_pairs`.

    Each query asks for twice as many neighbours until the last one falls below the floor: the
    result is every pair at or above it, not the k nearest. The index is built by one thread from
    a fixed seed; more threads would give other trees each time.
    """
    n_indexed = _check(vectors, n_indexed, first_query)
    if n_indexed == 0 or first_query == len(vectors):
        return _score(vectors, [], search.min_cosine)
    index = AnnoyIndex(vectors.shape[1], "angular")
    index.set_seed(search.seed)
    for row in range(n_indexed):
        index.add_item(row, vectors[row])
    index.build(search.n_trees, n_jobs=1)
    # Annoy's angular distance of unit vectors is sqrt(2 (1 - cosine)).
    max_distance = float(np.sqrt(2.0 * max(0.0, 1.0 - search.min_cosine + _ANNOY_SLACK)))
    found = []
    for query in range(first_query, len(vectors)):
        vector = None if query < n_indexed else vectors[query].tolist()
        near = _neighbours(index, query, vector, max_distance, search)
        near = near[near != query]
        found.append(np.stack([np.minimum(near, query), np.maximum(near, query)]))
    return _score(vectors, found, search.min_cosine)


def _neighbours(
    index: AnnoyIndex, row: int, vector: list[float] | None, max_distance: float, search: CellSearch
) -> Indices:
    """Indexed rows within `max_distance` of an indexed row, or of a vector that is not indexed."""
    n_items = index.get_n_items()
    k = min(_FIRST_K, n_items)
    while True:
        search_k = search.search_k_factor * search.n_trees * k
        if vector is None:
            ids, distances = index.get_nns_by_item(row, k, search_k, include_distances=True)
        else:
            ids, distances = index.get_nns_by_vector(vector, k, search_k, include_distances=True)
        seen_all = not distances or distances[-1] > max_distance
        if seen_all or k == n_items:
            near = np.asarray(distances) <= max_distance
            return np.asarray(ids, dtype=np.int64)[near]
        k = min(2 * k, n_items)


def _score(vectors: Vectors, found: list[Indices], min_cosine: float) -> Pairs:
    """Distinct pairs in order, re-scored, below the floor dropped. `found`: int64 (2, p) each."""
    i, j = np.concatenate([np.empty((2, 0), dtype=np.int64), *found], axis=1)
    i, j = np.divmod(np.unique(i * len(vectors) + j), max(len(vectors), 1))
    cosines = pair_cosines(vectors, i, j)
    kept = at_least(cosines, min_cosine)
    return Pairs(i[kept], j[kept], cosines[kept])


def _check(vectors: Vectors, n_indexed: int | None, first_query: int) -> int:
    n_indexed = len(vectors) if n_indexed is None else n_indexed
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"vectors must be float32 (n, d), got {vectors.dtype} {vectors.shape}")
    if not 0 <= first_query <= n_indexed <= len(vectors):
        raise ValueError(
            f"need 0 <= first_query ({first_query}) <= n_indexed ({n_indexed}) <= {len(vectors)}"
        )
    norms = np.linalg.norm(vectors, axis=1)
    # NaN compares false, so it lands here as well; Annoy would take it and answer at random.
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= _UNIT_TOLERANCE))
    if len(bad):
        raise ValueError(
            f"vectors must be finite with unit norm; row {bad[0]} has norm {norms[bad[0]]:g}"
        )
    return n_indexed
