"""How good pairs, groups and embeddings are against a known truth. Numpy only.

Pair metrics take `scores` (n,), higher is more alike, and `labels` (n,), true for duplicates; pairs
of equal score share one point of the curve, so the order of the input never matters. Group metrics
count pairs through contingency tables: memory grows with the items, not with their pairs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """Precision and recall at each distinct score, from the highest score down; all float64 (k,)."""

    threshold: Array
    precision: Array
    recall: Array


def precision_recall_curve(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Curve:
    """Precision and recall of "a pair at or above the threshold is a duplicate".

    Args:
        scores: (n,) finite numbers.
        labels: (n,) booleans (or 0 and 1), true for duplicates.

    Raises:
        ValueError: shapes differ, a score is not finite, or there is no duplicate pair (recall has
            no meaning then).
    """
    score, label = _checked(scores, labels)
    if not label.any():
        raise ValueError("labels hold no duplicate pair: recall is undefined")
    order = np.argsort(-score, kind="stable")
    score, label = score[order], label[order]
    last_of_tie = np.append(score[1:] != score[:-1], True)
    hits = np.cumsum(label)[last_of_tie]
    seen = np.flatnonzero(last_of_tie) + 1
    return Curve(score[last_of_tie], hits / seen, hits / label.sum())


def uap(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Micro average precision over pooled pairs, 0 to 1 (Douze et al. 2021, image similarity).

    The area under the precision-recall steps: each step of recall counts with the precision at
    its end.
    """
    curve = precision_recall_curve(scores, labels)
    return float(np.diff(curve.recall, prepend=0.0) @ curve.precision)


def recall_at_precision(scores: npt.ArrayLike, labels: npt.ArrayLike, precision: float) -> float:
    """The highest recall, 0 to 1, at any threshold whose precision is at least `precision`."""
    curve = precision_recall_curve(scores, labels)
    return float(curve.recall[curve.precision >= precision].max(initial=0.0))


def best_f1(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The highest harmonic mean of precision and recall at any threshold, 0 to 1."""
    curve = precision_recall_curve(scores, labels)
    both = np.maximum(curve.precision + curve.recall, 1e-12)
    return float((2 * curve.precision * curve.recall / both).max())


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Probability that a random duplicate pair outscores a random other pair; ties count half.

    The Mann-Whitney U statistic over the number of (duplicate, other) combinations, 0 to 1.

    Raises:
        ValueError: one of the two classes is empty.
    """
    score, label = _checked(scores, labels)
    positive, negative = score[label], np.sort(score[~label])
    if not len(positive) or not len(negative):
        raise ValueError("roc_auc needs at least one duplicate and one other pair")
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def hard_negative_auc(duplicate_scores: npt.ArrayLike, hard_scores: npt.ArrayLike) -> float:
    """Probability that a duplicate pair outscores a look-alike pair (another print, colourway)."""
    positive, negative = np.ravel(duplicate_scores), np.ravel(hard_scores)
    labels = np.r_[np.ones(len(positive), bool), np.zeros(len(negative), bool)]
    return roc_auc(np.r_[positive, negative], labels)


def recall_at_k(embeddings: npt.ArrayLike, labels: npt.ArrayLike, k: int) -> float:
    """Share of items that have an item of their own label among their k nearest neighbours.

    Args and errors are those of `hits_at_k`.
    """
    return float(hits_at_k(embeddings, labels, k)[1].mean())


def hits_at_k(embeddings: npt.ArrayLike, labels: npt.ArrayLike, k: int) -> tuple[Array, Array]:
    """Which items have an item of their own label among their k nearest neighbours.

    Args:
        embeddings: (n, d) rows of unit L2 norm; nearness is cosine similarity, an item is not its
            own neighbour, equal similarities rank by row.
        labels: (n,) identities; items whose label occurs once cannot succeed and do not count.
        k: neighbours looked at, at least 1.

    Returns:
        The rows that count, int64 (q,), and whether each found one, bool (q,).

    Raises:
        ValueError: shapes differ, k < 1, or no label occurs twice.
    """
    vectors = np.asarray(embeddings, dtype=np.float32)
    identity = np.unique(np.asarray(labels), return_inverse=True)[1].ravel()
    if vectors.ndim != 2 or len(vectors) != len(identity) or k < 1:
        raise ValueError(f"expected (n, d), (n,) and k >= 1; got {vectors.shape}, k = {k}")
    queries = np.flatnonzero(np.bincount(identity)[identity] > 1)
    if not len(queries):
        raise ValueError("no label occurs twice: recall at k is undefined")
    blocks = np.array_split(queries, -(-len(queries) // 1024))
    found = [_finds_own_label(vectors, identity, block, k) for block in blocks]
    return queries, np.concatenate(found)


def _finds_own_label(vectors: Array, identity: Array, queries: Array, k: int) -> Array:
    cosine = vectors[queries] @ vectors.T
    cosine[np.arange(len(queries)), queries] = -np.inf
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, : min(k, len(vectors) - 1)]
    return (identity[nearest] == identity[queries, None]).any(axis=1)


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision, recall and their harmonic mean, each 0 to 1."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean; 0 when both are 0."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


def bcubed(groups: Sequence[Any], products: Sequence[Any]) -> PrecisionRecall:
    """B-cubed precision and recall of a grouping (Bagga and Baldwin 1998), averaged over items.

    Args:
        groups: (n,) the group each item was put in.
        products: (n,) the product each item truly is.
    """
    group, product = _codes(groups), _codes(products)
    if len(group) != len(product) or not len(group):
        raise ValueError(
            f"expected two equally long, non-empty labelings; got {len(group)}, {len(product)}"
        )
    both = _size_of_own(_paired(group, product))
    return PrecisionRecall(
        float((both / _size_of_own(group)).mean()), float((both / _size_of_own(product)).mean())
    )


@dataclass(frozen=True)
class GroupingMetrics:
    """What a grouping got right, over all unordered pairs of items and over items."""

    pair_precision: float
    pair_recall: float
    pair_f1: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f1: float
    hard_merged: int
    hard_negative_pairs: int
    groups_of_two_or_more: int
    largest_group: int

    def as_dict(self) -> dict[str, float]:
        """The figures by name, for reports."""
        return asdict(self)


def grouping_metrics(
    groups: Sequence[Any], products: Sequence[Any], look_alikes: Sequence[Any] | None = None
) -> GroupingMetrics:
    """Compare a grouping with the truth.

    Args:
        groups: (n,) the group each item was put in; an ungrouped item has a label of its own.
        products: (n,) the product each item truly is.
        look_alikes: (n,) items of equal value but different product are hard negatives; None (the
            whole or an entry) means no look-alike.

    Returns:
        Figures as the benchmark's scorer defines them; precision and recall over no pair are 0.
    """
    group, product = _codes(groups), _codes(products)
    cubed = bcubed(groups, products)
    hits = _n_pairs(_paired(group, product))
    pairs = PrecisionRecall(hits / max(_n_pairs(group), 1), hits / max(_n_pairs(product), 1))
    hard_merged, n_hard = 0, 0
    if look_alikes is not None:
        hard_merged, n_hard = _hard_pairs(group, product, look_alikes)
    sizes = np.bincount(group)
    return GroupingMetrics(
        pairs.precision,
        pairs.recall,
        pairs.f1,
        cubed.precision,
        cubed.recall,
        cubed.f1,
        hard_merged,
        n_hard,
        int((sizes > 1).sum()),
        int(sizes.max()),
    )


def _hard_pairs(group: Array, product: Array, look_alikes: Sequence[Any]) -> tuple[int, int]:
    """(merged, all) hard-negative pairs: equal look-alike, different product."""
    known = np.array([value is not None and value == value for value in look_alikes])
    group, product = group[known], product[known]
    look = _codes([value for value, is_known in zip(look_alikes, known, strict=True) if is_known])
    n_hard = _n_pairs(look) - _n_pairs(_paired(look, product))
    in_group = _paired(look, group)
    return _n_pairs(in_group) - _n_pairs(_paired(in_group, product)), n_hard


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    if score.ndim != 1 or score.shape != label.shape:
        raise ValueError(
            f"scores and labels must be (n,) and (n,); got {score.shape}, {label.shape}"
        )
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite")
    return score, label


def _codes(labels: Sequence[Any]) -> Array:
    """Dense int64 codes of arbitrary hashable labels."""
    code_of: dict[Any, int] = {}
    return np.array([code_of.setdefault(label, len(code_of)) for label in labels], dtype=np.int64)


def _paired(a: Array, b: Array) -> Array:
    """Dense codes of the combination of two codings."""
    if not len(a):
        return a
    return np.unique(a * (b.max() + 1) + b, return_inverse=True)[1].ravel()


def _size_of_own(code: Array) -> Array:
    return np.bincount(code)[code]


def _n_pairs(code: Array) -> int:
    sizes = np.bincount(code)
    return int((sizes * (sizes - 1) // 2).sum())
