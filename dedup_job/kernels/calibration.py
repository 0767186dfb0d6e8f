"""What a cosine means: the calibration that ships in a model bundle.

`calibration.json` holds, measured on held-out photos: the probability that a pair of a given
cosine is one product; how often true pairs, look-alikes and unrelated pairs reach a cosine; and
the tail of the unrelated pairs beyond what could be counted, as a generalised Pareto distribution
with an interval. Choosing a threshold from it is `threshold.py`.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dedup_job.errors import ModelContractError
from dedup_job.kernels.bundle import CALIBRATION, SCORE_CALIBRATION

Floats = NDArray[np.float64]

CALIBRATION_FORMAT = 1
# Below this the Pareto formula is numerically the exponential it tends to.
_FLAT_SHAPE = 1e-9
_TINY = 1e-300


@dataclass(frozen=True)
class Curve:
    """A piecewise linear function of the cosine. `scores` rise strictly; both float64 (n,)."""

    scores: Floats
    values: Floats

    def at(self, cosines: ArrayLike, left: float | None = None) -> Floats:
        """Values at cosines; the last value beyond the last score, `left` before the first."""
        return np.interp(np.asarray(cosines, dtype=np.float64), self.scores, self.values, left=left)


def pareto_survival(excess: ArrayLike, shape: float, scale: float) -> Floats:
    """P(X >= excess) of a generalised Pareto distribution; 1 for an excess below 0.

    Source: Pickands, Annals of Statistics 3 (1975); Coles, An Introduction to Statistical Modeling
    of Extreme Values (2001), chapter 4.

    Args:
        excess: cosine minus the threshold where the tail begins.
        shape: below 0 the tail ends at `-scale / shape`.
        scale: above 0.
    """
    above = np.maximum(np.asarray(excess, dtype=np.float64), 0.0)
    if abs(shape) < _FLAT_SHAPE:
        return np.exp(-above / scale)
    base = np.maximum(1.0 + shape * above / scale, 0.0)
    with np.errstate(divide="ignore"):
        return np.exp(-np.log(base) / shape)


@dataclass(frozen=True)
class Tail:
    """Unrelated pairs above `threshold`: generalised Pareto (peaks over threshold).

    Attributes:
        threshold: cosine where the tail begins.
        exceed_rate: share of unrelated pairs above it.
        shape: Pareto shape; below 0 the tail ends at `threshold - scale / shape`.
        scale: Pareto scale, above 0.
        low: lower limit of the survival, with the confidence the calibration states.
        high: upper limit of the survival.
    """

    threshold: float
    exceed_rate: float
    shape: float
    scale: float
    low: Curve
    high: Curve

    def survival(self, cosines: ArrayLike) -> Floats:
        """P(cosine >= t) for t at or above `threshold`."""
        excess = np.asarray(cosines, dtype=np.float64) - self.threshold
        return self.exceed_rate * pareto_survival(excess, self.shape, self.scale)


@dataclass(frozen=True)
class Calibration:
    """A validated calibration. All functions take cosines and return float64 in [0, 1].

    Attributes:
        calibration_id: SHA-256 of the content.
        model_id: the model whose cosines it describes.
        prior: share of true pairs that `match_probability` assumes.
        n_true: true pairs measured.
        n_hard_negatives: look-alike pairs measured.
        n_unrelated: unrelated pairs measured.
    """

    calibration_id: str
    model_id: str
    prior: float
    n_true: int
    n_hard_negatives: int
    n_unrelated: int
    probability: Curve
    true_pairs: Curve
    hard_negatives: Curve
    unrelated: Curve
    tail: Tail
    apart: Curve | None = None

    def match_probability(self, cosines: ArrayLike) -> Floats:
        """Probability that a pair of this cosine shows one product, at the calibration's prior."""
        return self.probability.at(cosines)

    def true_survival(self, cosines: ArrayLike) -> Floats:
        """P(cosine >= t | two photos of one product)."""
        return self.true_pairs.at(cosines, left=1.0)

    def hard_negative_survival(self, cosines: ArrayLike) -> Floats:
        """P(cosine >= t | look-alikes: nearly the same photo, another product)."""
        return self.hard_negatives.at(cosines, left=1.0)

    def unrelated_survival(self, cosines: ArrayLike) -> Floats:
        """P(cosine >= t | unrelated photos): counted below the tail's threshold, Pareto above."""
        return self._join(cosines, self.tail.survival(cosines))

    def unrelated_survival_interval(self, cosines: ArrayLike) -> tuple[Floats, Floats]:
        """Lower and upper limit of `unrelated_survival`, never on the wrong side of it.

        Beyond the last score of the interval the upper limit stays where it was.
        """
        point = self.unrelated_survival(cosines)
        low = self._join(cosines, _log_interpolate(self.tail.low, cosines))
        high = self._join(cosines, _log_interpolate(self.tail.high, cosines))
        return np.minimum(low, point), np.maximum(high, point)

    def apart_share(self, cosines: ArrayLike) -> Floats:
        """P(score below the tail | unrelated photos, cosine >= t). Calibrations of scores only."""
        if self.apart is None:
            raise ModelContractError("a calibration of cosines has no scores")
        return self.apart.at(cosines)

    def _join(self, cosines: ArrayLike, above: Floats) -> Floats:
        body = self.unrelated.at(cosines, left=1.0)
        return np.where(np.asarray(cosines) < self.tail.threshold, body, above)


def _log_interpolate(curve: Curve, cosines: ArrayLike) -> Floats:
    # Survival falls by powers of ten, so a straight line between two points overstates it. A zero
    # (the end point of a tail) counts as a thousandth of the smallest limit above it, lest its
    # logarithm drags the whole last stretch down.
    positive = curve.values[curve.values > 0]
    smallest = 1e-3 * positive.min() if len(positive) else _TINY
    logs = np.log(np.maximum(curve.values, smallest))
    return np.exp(np.interp(np.asarray(cosines, dtype=np.float64), curve.scores, logs))


def calibration_id_of(raw: dict[str, Any]) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of a calibration without its own id."""
    content = {key: value for key, value in raw.items() if key != "calibration_id"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_score_calibration(bundle: Path, model_id: str | None = None) -> Calibration:
    """Read `score_calibration.json`: as `read_calibration`, with scores of the verifier for cosines."""
    calibration = read_calibration(bundle, model_id, SCORE_CALIBRATION)
    if calibration.apart is None:
        raise ModelContractError(
            f"model bundle {bundle}: {SCORE_CALIBRATION} is of an older version, unrelated.apart is missing; run "
            "`model-training calibrate`"
        )
    return calibration


def read_calibration(
    bundle: Path, model_id: str | None = None, name: str = CALIBRATION
) -> Calibration:
    """Read `calibration.json` of a bundle directory.

    Args:
        bundle: directory of the bundle.
        model_id: when given, the model the calibration must belong to.
        name: of the file.

    Raises:
        ModelContractError: missing, damaged, altered, or of another model.
    """
    path = bundle / name
    try:
        calibration = parse_calibration(json.loads(path.read_text(encoding="utf-8")), name)
    except FileNotFoundError:
        raise ModelContractError(f"model bundle {bundle} has no {name}") from None
    except (OSError, ValueError) as error:
        raise ModelContractError(f"model bundle {bundle}: {name} is damaged ({error})") from None
    if model_id is not None and calibration.model_id != model_id:
        raise ModelContractError(
            f"model bundle {bundle}: {name} belongs to model {calibration.model_id[:12]}, "
            f"the bundle holds {model_id[:12]}; run `model-training calibrate`"
        )
    return calibration


def parse_calibration(raw: Any, name: str = CALIBRATION) -> Calibration:
    """Check the content of a `calibration.json` and make it computable.

    Args:
        raw: the decoded JSON.
        name: of its file, for messages.

    Raises:
        ModelContractError: a field is missing, of the wrong type, or contradicts another.
    """
    try:
        return _parse(raw)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelContractError(f"{name}: {what}; run `model-training calibrate`") from None


def _parse(raw: dict[str, Any]) -> Calibration:
    if raw["format"] != CALIBRATION_FORMAT:
        raise ValueError(f"format {raw['format']!r}, this version reads {CALIBRATION_FORMAT}")
    if raw["calibration_id"] != calibration_id_of(raw):
        raise ValueError("calibration_id does not match the content, the file was altered")
    probability, unrelated = raw["match_probability"], raw["unrelated"]
    return Calibration(
        calibration_id=raw["calibration_id"],
        model_id=str(raw["model_id"]),
        prior=_number(probability, "prior", 0.0, 1.0),
        n_true=_count(raw, "true_pairs"),
        n_hard_negatives=_count(raw, "hard_negatives"),
        n_unrelated=_count(raw, "unrelated"),
        probability=_curve(probability, "match_probability", "probabilities", falls=False),
        true_pairs=_curve(raw["true_pairs"], "true_pairs", "survival"),
        hard_negatives=_curve(raw["hard_negatives"], "hard_negatives", "survival"),
        unrelated=_curve(unrelated, "unrelated", "survival"),
        tail=_tail(unrelated["tail"]),
        apart=_apart(unrelated),
    )


def _apart(unrelated: dict[str, Any]) -> Curve | None:
    if "apart" not in unrelated:
        return None
    return _curve(unrelated["apart"], "unrelated.apart", "share")


def _tail(raw: dict[str, Any]) -> Tail:
    interval = raw["interval"]
    return Tail(
        threshold=_number(raw, "threshold", -1.0, 1.0),
        exceed_rate=_number(raw, "exceed_rate", 0.0, 1.0),
        shape=_number(raw, "shape", -10.0, 10.0),
        scale=_number(raw, "scale", 1e-12, 10.0),
        low=_curve(interval, "unrelated.tail.interval", "low"),
        high=_curve(interval, "unrelated.tail.interval", "high"),
    )


def _curve(raw: dict[str, Any], name: str, values_key: str, falls: bool = True) -> Curve:
    scores = np.asarray(raw["scores"], dtype=np.float64)
    values = np.asarray(raw[values_key], dtype=np.float64)
    if scores.ndim != 1 or scores.shape != values.shape or not len(scores):
        raise ValueError(f"{name}: scores and {values_key} must be lists of one length")
    if not (np.isfinite(scores).all() and (np.diff(scores) > 0).all()):
        raise ValueError(f"{name}.scores must rise strictly")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name}.{values_key} must lie between 0 and 1")
    steps = np.diff(values)
    # Rounding in the writer may turn a flat stretch by a last digit.
    if (steps > 1e-9).any() if falls else (steps < -1e-9).any():
        raise ValueError(f"{name}.{values_key} must {'fall' if falls else 'rise'} with the score")
    return Curve(scores, values)


def _number(raw: dict[str, Any], key: str, low: float, high: float) -> float:
    value = float(raw[key])
    if not low <= value <= high:  # NaN lands here too
        raise ValueError(f"{key} must lie between {low:g} and {high:g}, got {value}")
    return value


def _count(raw: dict[str, Any], key: str) -> int:
    value = raw[key]["n_pairs"]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key}.n_pairs must be a whole number above 0, got {value!r}")
    return value
