"""What is said of a bundle in numbers: pairs, neighbours, intervals, kinds, calibration.

Pairs of held-out views are ranked by cosine, or by a verifier's score. Intervals are 95 %, from a
bootstrap over products.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dedup_job.kernels.calibration import Calibration
from dedup_job.kernels.metrics import (
    hard_negative_auc,
    hits_at_k,
    precision_recall_curve,
    recall_at_k,
    roc_auc,
)
from model_training.evaluate import (
    ValidationSet,
    pair_labels,
    rank_pairs,
    recall_by_edit,
)
from model_training.resampling import RankedPairs, draw_products, interval, weigh_pairs

NEIGHBOURS = (1, 5, 10)
MADE = "NEG:"
N_BINS = 10
_N_DRAWS = 200
# An interval from fewer products would promise nothing.
_MIN_FAMILIES = 10


@dataclass(frozen=True)
class Scored:
    """Views, their embeddings and every scored pair of them.

    Attributes:
        views: n views.
        vectors: float32 (n, d), unit rows.
        a, b: int (p,), the rows of each pair, a < b.
        value: float (p,), what pairs are ranked by.
        same: bool (p,), duplicates.
        hard: bool (p,), look-alikes: another product that is nearly the same photo.
        quantity: what `value` holds.
    """

    views: ValidationSet
    vectors: np.ndarray
    a: np.ndarray
    b: np.ndarray
    value: np.ndarray
    same: np.ndarray
    hard: np.ndarray
    quantity: Literal["cosine", "score"] = "cosine"

    def of_source(self, name: str) -> "Scored":
        """The views of one source, and the pairs within it."""
        chosen = self.views.source == name
        rows, place = np.flatnonzero(chosen), np.cumsum(chosen) - 1
        pairs = chosen[self.a] & chosen[self.b]
        return replace(
            self,
            views=self.views.take(rows),
            vectors=self.vectors[rows],
            a=place[self.a[pairs]],
            b=place[self.b[pairs]],
            **{column: getattr(self, column)[pairs] for column in ("value", "same", "hard")},
        )

    def by_source(self) -> dict[str, "Scored"]:
        """Each source by its name; none where all views are of one."""
        names = np.unique(self.views.source)
        return {str(n): self.of_source(n) for n in names} if len(names) > 1 else {}


@dataclass(frozen=True)
class OperatingPoint:
    """The lowest threshold that keeps a precision. `threshold` is None where nothing does.

    `n_true` and `n_false` count the pairs at or above it, `recall` is 0 to 1.
    """

    threshold: float | None
    recall: float
    n_true: int
    n_false: int


def score(vectors: np.ndarray, views: ValidationSet) -> Scored:
    """Rank every pair of views that is scored by cosine."""
    a, b, same, hard = pair_labels(views)
    return Scored(views, vectors, a, b, (vectors @ vectors.T)[a, b], same, hard)


def operating_point(scored: Scored, precision: float) -> OperatingPoint:
    """Where recall is highest among the thresholds of at least `precision`."""
    curve = precision_recall_curve(scored.value, scored.same)
    good = np.flatnonzero(curve.precision >= precision)
    if not len(good):
        return OperatingPoint(None, 0.0, 0, 0)
    threshold = float(curve.threshold[good[-1]])
    found = scored.value >= threshold
    n_true = int((found & scored.same).sum())
    return OperatingPoint(
        threshold, float(curve.recall[good[-1]]), n_true, int(found.sum()) - n_true
    )


def measure(scored: Scored) -> dict[str, Any]:
    """Figures of a set of views: overall, by source, by kind of edit and of look-alike."""
    result: dict[str, Any] = {"all": _summary(scored)}
    for name, one in scored.by_source().items():
        result[name] = _summary(one)
    result["by_kind"] = recall_by_edit(scored.value, scored.views)
    result["by_look_alike"] = by_look_alike(scored)
    return result


def _summary(scored: Scored) -> dict[str, Any]:
    views = scored.views
    points = {name: operating_point(scored, p) for name, p in (("p95", 0.95), ("p99", 0.99))}
    recalls = {
        f"recall_at_{k}": recall_at_k(scored.vectors, views.identity, k)
        for k in _neighbours(scored)
    }
    ranking = rank_pairs(scored.value, scored.same, scored.hard)
    auc = float("nan") if scored.same.all() else roc_auc(scored.value, scored.same)
    return {
        **{name: _known(value) for name, value in {**ranking, "roc_auc": auc}.items()},
        **recalls,
        **{f"threshold_at_{name}": point.threshold for name, point in points.items()},
        **{f"false_pairs_at_{name}": point.n_false for name, point in points.items()},
        "n_views": len(views.identity),
        "n_families": len(np.unique(views.family)),
        "n_duplicate_pairs": int(scored.same.sum()),
        "n_look_alike_pairs": int(scored.hard.sum()),
        "n_unrelated_pairs": int((~scored.same & ~scored.hard).sum()),
        "intervals": intervals(scored),
    }


def _neighbours(scored: Scored) -> tuple[int, ...]:
    """Neighbours are searched by cosine: a score says nothing of them."""
    return NEIGHBOURS if scored.quantity == "cosine" else ()


def _known(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if np.isnan(value) else value


def intervals(scored: Scored) -> dict[str, list[float | None]]:
    """[low, high] of each figure at 95 %; empty for fewer than ten families.

    Families are drawn, with every view in them. The neighbours of a view stay as they are.
    """
    family = np.unique(scored.views.family, return_inverse=True)[1]
    n = int(family.max()) + 1
    if n < _MIN_FAMILIES:
        return {}
    ranked = RankedPairs(scored.value, scored.same, scored.hard)
    a, b = family[scored.a], family[scored.b]
    hits = {
        f"recall_at_{k}": hits_at_k(scored.vectors, scored.views.identity, k)
        for k in _neighbours(scored)
    }
    drawn: dict[str, list[float]] = {}
    for count in draw_products(n, _N_DRAWS):
        figures = ranked.figures(weigh_pairs(count, a, b))
        for name, (rows, found) in hits.items():
            weight = count[family[rows]]
            figures[name] = float(weight @ found / max(weight.sum(), 1e-12))
        for name, value in figures.items():
            drawn.setdefault(name, []).append(value)
    return {
        name: [_known(limit) for limit in interval(np.array(values))]
        for name, values in drawn.items()
    }


def look_alike_kinds(scored: Scored) -> np.ndarray:
    """(p,) str: of each look-alike pair what it is, "" for other pairs.

    `made: GENERATOR`, `other colour` (of one style, both real), `labelled` (said to differ), or
    `both made`.
    """
    kind, family = scored.views.kind, scored.views.family
    made = np.where(np.char.startswith(kind, MADE), np.char.partition(kind, "+")[:, 0], "")
    made = np.char.replace(made, MADE, "made: ")
    a, b = scored.a[scored.hard], scored.b[scored.hard]
    real = np.where(family[a] == family[b], "other colour", "labelled")
    one = np.where(made[a] == "", made[b], made[a])
    both = (made[a] != "") & (made[b] != "")
    found = np.where(both, "both made", np.where(one == "", real, one))
    kinds = np.full(len(scored.hard), "", found.dtype)
    kinds[scored.hard] = found
    return kinds


def by_look_alike(scored: Scored) -> dict[str, dict[str, float]]:
    """Of each kind of look-alike: `auc` against duplicates, `merged` at 95 % precision, and `n`."""
    kinds = look_alike_kinds(scored)
    at = operating_point(scored, 0.95).threshold
    duplicates = scored.value[scored.same]
    found = {}
    for kind in np.unique(kinds[scored.hard]):
        value = scored.value[kinds == kind]
        found[str(kind)] = {
            "auc": hard_negative_auc(duplicates, value),
            "merged": float((value >= at).mean()) if at is not None else 0.0,
            "n": len(value),
        }
    return found


def reliability(scored: Scored, calibration: Calibration) -> dict[str, Any]:
    """How often pairs of a promised match probability are duplicates.

    Returns:
        `bins`: from the lowest tenth of probability to the highest, those that hold pairs, each
        with `promised` (mean), `found` (share of duplicates), `low`, `high` (95 %, over products)
        and `n`; `error`, the mean difference of the two, weighed by pairs (ECE); and `brier`.
    """
    promised = calibration.match_probability(scored.value)
    bin_of = np.minimum((promised * N_BINS).astype(int), N_BINS - 1)
    n = np.bincount(bin_of, minlength=N_BINS)
    found = np.bincount(bin_of, scored.same, N_BINS) / np.maximum(n, 1)
    mean = np.bincount(bin_of, promised, N_BINS) / np.maximum(n, 1)
    limits = _limits_of_bins(scored, bin_of)
    bins = [
        {"promised": float(mean[i]), "found": float(found[i]), "low": limits[i][0],
         "high": limits[i][1], "n": int(n[i])}
        for i in np.flatnonzero(n)
    ]  # fmt: skip
    return {
        "error": float(np.abs(mean - found) @ n / n.sum()),
        "brier": float(np.mean((promised - scored.same) ** 2)),
        "bins": bins,
    }


def _limits_of_bins(scored: Scored, bin_of: np.ndarray) -> list[tuple[float, float]]:
    family = np.unique(scored.views.family, return_inverse=True)[1]
    a, b = family[scored.a], family[scored.b]
    shares = []
    for count in draw_products(int(family.max()) + 1, _N_DRAWS):
        weight = weigh_pairs(count, a, b)
        total = np.bincount(bin_of, weight, N_BINS)
        hits = np.bincount(bin_of, weight * scored.same, N_BINS)
        shares.append(np.where(total > 0, hits / np.maximum(total, 1e-12), np.nan))
    return [interval(column) for column in np.array(shares).T]
