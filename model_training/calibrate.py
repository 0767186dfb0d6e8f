"""What a cosine means, measured on held-out products: writes `calibration.json`.

Three kinds of held-out pairs are ranked with the int8 embedder, through the job's own decode path:
true pairs (a photo and its edits), hard negatives (self-made other products, real colourways and
products labelled dissimilar, each pair of products by its most similar unedited photos, as the job
sees them) and unrelated pairs (photos of different families). Beyond what can be counted, the
unrelated pairs follow a generalised Pareto distribution (Coles 2001, chapter 4: peaks over
threshold), with limits from a bootstrap over products, because pairs of one photo are not
independent.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from dedup_job.errors import ConfigError, GateError
from dedup_job.kernels.calibration import (
    CALIBRATION_FORMAT,
    calibration_id_of,
    pareto_survival,
    parse_calibration,
)
from model_training.evaluate import ValidationSet, pair_labels

TAIL_SHARE = 0.004
# Scores of unrelated pairs fall off faster than the cosines they come from: a tail that began as low would
# promise three to ten times as many of them at the top as held-out pairs show.
SCORE_TAIL_SHARE = 0.0005
_CONFIDENCE = 0.9
_N_BOOTSTRAP = 120
_GRID = np.round(np.linspace(-0.2, 1.0, 241), 4)
_MAX_SHAPE = 0.5
# Of so few near strangers no share is measured; that of the nearest ones measured holds for them too.
_FEWEST_NEAR = 30
_TINY = 1e-9
# Above it there is no tail left to describe.
_HIGHEST_TAIL = 0.996


@dataclass(frozen=True)
class UnrelatedPairs:
    """Unrelated pairs of one source. `cosine` float (n,); `a`, `b`: family codes int (n,).

    `n_photo_pairs`: pairs of photos behind the n pairs of their views, which are no new evidence.
    """

    cosine: np.ndarray
    a: np.ndarray
    b: np.ndarray
    n_photo_pairs: int


@dataclass(frozen=True)
class ParetoTail:
    """Generalised Pareto above `threshold`; survival = rate (1 + shape (s - u) / scale)^(-1/shape)."""

    threshold: float
    rate: float
    shape: float
    scale: float

    def survival(self, scores: np.ndarray) -> np.ndarray:
        """P(cosine >= s), for s at or above the threshold."""
        return self.rate * pareto_survival(scores - self.threshold, self.shape, self.scale)


def calibrate(vectors: np.ndarray, held_out: ValidationSet, model_id: str) -> dict[str, Any]:
    """Measure a calibration.

    Args:
        vectors: float32 (n, d), unit rows of the int8 embedder.
        held_out: the views they belong to; products that training never saw.
        model_id: of the bundle.

    Returns:
        The content of `calibration.json`.

    Raises:
        ConfigError: no two held-out products are unrelated.
        GateError: nearly all of them have one embedding.
    """
    a, b, same, hard = pair_labels(held_out)
    cosine = (vectors @ vectors.T)[a, b]
    look_alikes = _survival(closest_look_alikes(cosine, a, b, hard, held_out))
    strangers = unrelated_by_source(cosine, a, b, same | hard, held_out)
    unrelated = _unrelated(strangers, held_out, TAIL_SHARE)
    return _content(model_id, cosine, same, look_alikes, unrelated)


def calibrate_scores(
    score: np.ndarray, cosine: np.ndarray, held_out: ValidationSet, model_id: str
) -> dict[str, Any]:
    """As `calibrate`, of a verifier's scores; and how many of the near strangers it holds apart.

    Args:
        score: float (p,), of every pair that `pair_labels` names, in its order.
        cosine: float (p,), of the same pairs.
        held_out: as of `calibrate`.
        model_id: of the bundle.

    Returns:
        The content of `score_calibration.json`.
    """
    a, b, same, hard = pair_labels(held_out)
    rows, weight = nearest_look_alikes(cosine, a, b, hard, held_out)
    by_score, by_cosine = (
        unrelated_by_source(value, a, b, same | hard, held_out) for value in (score, cosine)
    )
    unrelated = _unrelated(by_score, held_out, SCORE_TAIL_SHARE)
    unrelated["apart"] = _apart(by_score, by_cosine, unrelated["tail"]["threshold"])
    return _content(model_id, score, same, _survival(score[rows], weight), unrelated)


def _content(
    model_id: str,
    value: np.ndarray,
    same: np.ndarray,
    look_alikes: dict[str, Any],
    unrelated: dict[str, Any],
) -> dict[str, Any]:
    content = {
        "format": CALIBRATION_FORMAT,
        "model_id": model_id,
        "match_probability": _match_probability(value, same),
        "true_pairs": _survival(value[same]),
        "hard_negatives": look_alikes,
        "unrelated": unrelated,
    }
    content["calibration_id"] = calibration_id_of(content)
    parse_calibration(content)
    return content


def write_calibration(path: Path, content: dict[str, Any]) -> None:
    """Write what `calibrate` measured where a bundle has it."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def closest_look_alikes(
    cosine: np.ndarray, a: np.ndarray, b: np.ndarray, hard: np.ndarray, held_out: ValidationSet
) -> np.ndarray:
    """Of each pair of products that look alike, the cosine of their most similar unedited photos.

    That is what the job compares with its threshold. Edited or otherwise turned photos of the two
    would only make look-alikes seem rarer than they are.

    Returns:
        float (n_product_pairs,).
    """
    unedited = _unedited(held_out)
    keep = hard & unedited[a] & unedited[b]
    n_pairs, of_pair = _pairs_of(held_out.product, a[keep], b[keep])
    closest = np.full(n_pairs, -1.0)
    np.maximum.at(closest, of_pair, cosine[keep])
    return closest


def nearest_look_alikes(
    cosine: np.ndarray, a: np.ndarray, b: np.ndarray, hard: np.ndarray, held_out: ValidationSet
) -> tuple[np.ndarray, np.ndarray]:
    """Of every product, how all views of its photo and of its nearest look-alike's compare.

    A catalog's threshold counts so many look-alikes a SKU, the nearest ones. An edit may hide what tells two
    products apart, so a verifier scores edited look-alikes higher than unedited ones: all views count.

    Returns:
        Rows of pairs int (k,), and their weights float (k,): every product weighs the same, 1 in all.
    """
    rows = np.flatnonzero(hard)
    ends = np.stack([a[rows], b[rows]])
    product = np.unique(held_out.product, return_inverse=True)[1]
    n_pairs, photo_pair = _pairs_of(held_out.identity, *ends)
    unedited = np.flatnonzero(_unedited(held_out)[ends].all(axis=0))
    # Of both ends' products: the photo pair of the highest cosine comes last, and stays.
    order = unedited[np.argsort(cosine[rows[unedited]], kind="stable")]
    nearest = {int(p): int(photo_pair[i]) for i in order for p in product[ends[:, i]]}
    times = np.bincount(list(nearest.values()), minlength=n_pairs)
    weight = (times / np.bincount(photo_pair))[photo_pair] / max(len(nearest), 1)
    return rows[weight > 0], weight[weight > 0]


def _pairs_of(names: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, np.ndarray]:
    """How many pairs of names the rows a and b bring, whichever comes first, and which one each is."""
    code = np.unique(names, return_inverse=True)[1].astype(np.int64)
    low, high = np.sort(np.stack([code[a], code[b]]), axis=0)
    pairs, of_pair = np.unique(low * (code.max() + 1) + high, return_inverse=True)
    return len(pairs), of_pair


def _unedited(views: ValidationSet) -> np.ndarray:
    made = np.char.startswith(views.kind, "NEG:") & (np.char.find(views.kind, "+") < 0)
    unedited: np.ndarray = (views.kind == "original") | made
    return unedited


def unrelated_by_source(
    cosine: np.ndarray, a: np.ndarray, b: np.ndarray, related: np.ndarray, held_out: ValidationSet
) -> list[UnrelatedPairs]:
    """Unrelated pairs within each source: a catalog is of one world, shop photos or home photos.

    Self-made other products are left out: no catalog holds them.
    """
    real = ~np.char.startswith(held_out.kind, "NEG:")
    family = np.unique(held_out.family, return_inverse=True)[1]

    def chosen(keep: np.ndarray) -> UnrelatedPairs:
        n_photo_pairs, _ = _pairs_of(held_out.identity, a[keep], b[keep])
        return UnrelatedPairs(cosine[keep], family[a[keep]], family[b[keep]], n_photo_pairs)

    pairs = []
    for source in np.unique(held_out.source):
        within = (held_out.source == source) & real
        keep = ~related & within[a] & within[b]
        if keep.sum() >= 100:
            pairs.append(chosen(keep))
    if not pairs and related.all():
        raise ConfigError("no two held-out products are unrelated; give photos of more products")
    return pairs or [chosen(~related)]


def effective_pairs(sources: list[UnrelatedPairs]) -> int:
    """How many equally weighted pairs carry the same evidence (Kish: (sum w)^2 / sum w^2).

    Sources weigh the same, so a small one limits what a large one can promise.
    """
    return max(1, round(len(sources) ** 2 / sum(1 / s.n_photo_pairs for s in sources)))


def fit_tail(excess: np.ndarray, weight: np.ndarray, threshold: float, rate: float) -> ParetoTail:
    """Weighted maximum likelihood of a generalised Pareto distribution.

    The shape is held where the tail reaches cosine 1, as no measurement can promise that unrelated
    photos never come close, and below `_MAX_SHAPE`.

    Args:
        excess: float (n,), cosine minus threshold, above 0.
        weight: float (n,), of each pair.
        threshold: cosine where the tail begins.
        rate: weighted share of pairs above it.
    """
    weight = weight / weight.sum()
    room = 1.0 - threshold

    def shape_of(free: float, scale: float) -> float:
        lowest = -scale / room
        return lowest + (_MAX_SHAPE - lowest) / (1 + np.exp(-free))

    def cost(parameters: np.ndarray) -> float:
        scale = float(np.exp(parameters[1]))
        shape = shape_of(float(parameters[0]), scale)
        if abs(shape) < 1e-6:
            return float(np.log(scale) + (weight * excess).sum() / scale)
        base = 1 + shape * excess / scale
        if (base <= 0).any():
            return 1e9
        return float(np.log(scale) + (1 + 1 / shape) * (weight * np.log(base)).sum())

    start = np.array([0.0, np.log(max(float((weight * excess).sum()), 1e-4))])
    found = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    scale = float(np.exp(found.x[1]))
    return ParetoTail(threshold, rate, float(shape_of(float(found.x[0]), scale)), scale)


def pool_adjacent_violators(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The non-decreasing sequence nearest to `value` in weighted squares (isotonic regression)."""
    blocks: list[list[float]] = []
    for v, w in zip(value, weight, strict=True):
        blocks.append([float(v), float(w), 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            v2, w2, n2 = blocks.pop()
            v1, w1, n1 = blocks.pop()
            total = w1 + w2
            blocks.append([(v1 * w1 + v2 * w2) / total, total, n1 + n2])
    return np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks])


def _match_probability(cosine: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    bins = np.clip(np.digitize(cosine, _GRID) - 1, 0, len(_GRID) - 1)
    total = np.bincount(bins, minlength=len(_GRID)).astype(np.float64)
    hits = np.bincount(bins, weights=same, minlength=len(_GRID))
    filled = total > 0
    probability = pool_adjacent_violators(hits[filled] / total[filled], total[filled])
    centre = np.minimum(_GRID[filled] + (_GRID[1] - _GRID[0]) / 2, 1.0)
    return {
        "scores": _rounded(centre),
        "probabilities": _rounded(np.clip(probability, 1e-6, 1 - 1e-4)),
        "prior": float(same.mean()),
        "note": "isotonic regression over all held-out pairs (true, look-alike, unrelated) as they "
        "came; the prior is the share of true pairs among them",
    }


def _survival(cosine: np.ndarray, weight: np.ndarray | None = None) -> dict[str, Any]:
    if weight is None:
        survival = _survival_at(np.sort(cosine), _GRID)
    else:
        survival = np.array([weight[cosine >= at - 1e-6].sum() for at in _GRID]).clip(0, 1)
    return {
        "scores": _rounded(_GRID),
        "survival": _rounded(survival),
        "n_pairs": len(cosine),
    }


def _survival_at(ordered: np.ndarray, scores: np.ndarray) -> np.ndarray:
    # Half a rounding step below, so that pairs of cosine 1 count at 1.
    above = len(ordered) - np.searchsorted(ordered, scores - 1e-6, "left")
    share: np.ndarray = above / max(len(ordered), 1)
    return share


def _unrelated(
    sources: list[UnrelatedPairs], held_out: ValidationSet, tail_share: float
) -> dict[str, Any]:
    body = np.mean([_survival_at(np.sort(s.cosine), _GRID) for s in sources], axis=0)
    threshold = float(_GRID[np.argmax(body <= tail_share)]) if body[-1] <= tail_share else 1.0
    if threshold > _HIGHEST_TAIL:
        raise GateError(
            f"the network tells nothing apart: {tail_share:.2%} of unrelated held-out pairs have a cosine "
            f"of {threshold:.4f} or more; train it again with a lower training.learning_rate"
        )
    tail = _fit_sources(sources, [np.ones(len(s.cosine)) for s in sources], threshold)
    scores = np.round(np.linspace(threshold, 1.0, 41), 5)
    replicas = _bootstrap(sources, threshold)
    edges = (50 * (1 - _CONFIDENCE), 50 * (1 + _CONFIDENCE))
    curves = np.stack([r.survival(scores) for r in replicas])
    low, high = np.percentile(curves, edges, axis=0)
    below = threshold >= _GRID
    return {
        "n_pairs": effective_pairs(sources),
        "n_view_pairs": int(sum(len(s.cosine) for s in sources)),
        "n_photos": len(set(held_out.identity[~np.char.startswith(held_out.kind, "NEG:")])),
        "note": "pairs within each source (home photos, shop photos); sources weigh the same",
        "scores": _rounded(_GRID[below]),
        "survival": _rounded(body[below]),
        "tail": {
            "threshold": threshold,
            "exceed_rate": tail.rate,
            "shape": tail.shape,
            "scale": tail.scale,
            "interval": {
                "confidence": _CONFIDENCE,
                "shape": list(np.percentile([r.shape for r in replicas], edges)),
                "scale": list(np.percentile([r.scale for r in replicas], edges)),
                "scores": [float(s) for s in scores],
                "low": [float(v) for v in np.minimum.accumulate(low)],
                "high": [float(v) for v in np.minimum.accumulate(high)],
            },
        },
    }


def _apart(
    by_score: list[UnrelatedPairs], by_cosine: list[UnrelatedPairs], tail_from: float
) -> dict[str, Any]:
    """Of the unrelated pairs at or above a cosine, the share that scores below the tail."""
    near, apart, n_near = np.zeros(len(_GRID)), np.zeros(len(_GRID)), np.zeros(len(_GRID))
    for scores, cosines in zip(by_score, by_cosine, strict=True):
        survival = _survival_at(np.sort(cosines.cosine), _GRID)
        near, n_near = near + survival, n_near + survival * len(cosines.cosine)
        low = cosines.cosine[scores.cosine < tail_from]
        apart += _survival_at(np.sort(low), _GRID) * len(low) / len(cosines.cosine)
    enough = n_near >= _FEWEST_NEAR
    share = np.minimum.accumulate((apart[enough] + _TINY) / (near[enough] + _TINY))
    return {"scores": _rounded(_GRID[enough]), "share": _rounded(share)}


def _fit_sources(
    sources: list[UnrelatedPairs], weights: list[np.ndarray], threshold: float
) -> ParetoTail:
    excess, weight, rates = [], [], []
    for pairs, w in zip(sources, weights, strict=True):
        above = (pairs.cosine > threshold) & (w > 0)
        excess.append(pairs.cosine[above] - threshold)
        total = max(float(w.sum()), 1.0)
        weight.append(w[above] / total)
        rates.append(float(w[above].sum()) / total)
    pooled = np.concatenate(excess)
    if len(pooled) < 10:
        return ParetoTail(threshold, max(float(np.mean(rates)), 1e-9), 0.0, 0.05)
    return fit_tail(pooled, np.concatenate(weight), threshold, float(np.mean(rates)))


def _bootstrap(sources: list[UnrelatedPairs], threshold: float) -> list[ParetoTail]:
    """Refit on resampled families: a pair counts as often as both its families were drawn."""
    rng = np.random.default_rng(0)
    replicas = []
    for _ in range(_N_BOOTSTRAP):
        weights = []
        for pairs in sources:
            members = np.unique(np.concatenate([pairs.a, pairs.b]))
            drawn = rng.choice(members, len(members))
            count = np.bincount(drawn, minlength=int(members.max()) + 1)
            weights.append((count[pairs.a] * count[pairs.b]).astype(np.float64))
        replicas.append(_fit_sources(sources, weights, threshold))
    return replicas


def _rounded(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.round(np.asarray(values, np.float64), 9)]
