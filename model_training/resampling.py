"""Intervals from a bootstrap over products (Efron and Tibshirani 1993, ch. 16).

Pairs of one photo are not independent, products are: so products are drawn, and a pair counts as
often as those of its ends were drawn. Pairs are ranked once and weighed again for every draw.
"""

from collections.abc import Iterator

import numpy as np

CONFIDENCE = 95
_PRECISIONS = {"recall_at_p95": 0.95, "recall_at_p99": 0.99}


class RankedPairs:
    """Scored pairs, to be weighed again and again.

    Every figure is a matter of how much lies at and above each score of a duplicate; so pairs are
    sorted once into the levels and gaps between these scores, and a draw only adds up weights.

    Args:
        score: float (n,).
        same: bool (n,), true for duplicates; at least one.
        hard: bool (n,), true for look-alikes; none of them if left out.
    """

    def __init__(self, score: np.ndarray, same: np.ndarray, hard: np.ndarray | None = None) -> None:
        levels = np.unique(score[same])
        self._n_places = 2 * len(levels) + 1
        # From the highest score down: gap, level, gap, ..., level, gap.
        rising = np.searchsorted(levels, score, "left") + np.searchsorted(levels, score, "right")
        kind = same * 2 + (np.zeros(len(score), bool) if hard is None else hard & ~same)
        self._cell = (self._n_places - 1 - rising) * 3 + kind

    def uap(self, weight: np.ndarray) -> float:
        """`kernels.metrics.uap` with every pair counted `weight` (n,) times; 0 without duplicates."""
        others, hits = self._counted(weight)[:2]
        return _area(others, hits)

    def figures(self, weight: np.ndarray) -> dict[str, float]:
        """The figures of `kernels.metrics` with every pair counted `weight` (n,) times.

        Returns:
            uap, recall_at_p95, recall_at_p99, roc_auc and hard_auc; an AUC of no such pair is NaN.
        """
        others, hits, hard = self._counted(weight)
        precision = hits / np.maximum(hits + others, 1e-12)
        total = max(float(hits[-1]), 1e-12)
        return {
            "uap": _area(others, hits),
            **{
                name: float(hits[precision >= level].max(initial=0.0)) / total
                for name, level in _PRECISIONS.items()
            },
            "roc_auc": _auc(hits, others),
            "hard_auc": _auc(hits, hard),
        }

    def _counted(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight of others, duplicates and look-alikes at or above each place, each (places,)."""
        cells = np.bincount(self._cell, weight, 3 * self._n_places).reshape(-1, 3)
        plain, hard, same = np.cumsum(cells, axis=0).T
        return plain + hard, same, hard


def draw_products(n: int, n_draws: int) -> Iterator[np.ndarray]:
    """How often each of n products was drawn, float64 (n,): the same draws every time."""
    rng = np.random.default_rng(0)
    for _ in range(n_draws):
        yield np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)


def weigh_pairs(count: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How often pairs of products were drawn; a pair within a product as often as the product.

    Args:
        count: float (n,), from `draw_products`.
        a: int (p,), product of one end.
        b: int (p,), product of the other.
    """
    weight: np.ndarray = count[a] * np.where(a == b, 1.0, count[b])
    return weight


def interval(values: np.ndarray) -> tuple[float, float]:
    """What holds `CONFIDENCE` % of the values; NaN, where a figure had no meaning, not counted."""
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, (50 - CONFIDENCE / 2, 50 + CONFIDENCE / 2))
    return float(low), float(high)


def _area(others: np.ndarray, hits: np.ndarray) -> float:
    if hits[-1] == 0:
        return 0.0
    step = np.diff(hits, prepend=0.0)
    return float(step @ (hits / np.maximum(hits + others, 1e-12)) / hits[-1])


def _auc(hits: np.ndarray, misses: np.ndarray) -> float:
    """The share of (duplicate, other) combinations in the right order; ties count half."""
    if hits[-1] <= 0 or misses[-1] <= 0:
        return float("nan")
    above = hits - np.diff(hits, prepend=0.0) / 2
    return float(np.diff(misses, prepend=0.0) @ above / (hits[-1] * misses[-1]))
