"""The threshold a catalog of this size needs.

True pairs grow with the number of photos, unrelated pairs with its square: the same cosine that is
precise among a thousand photos is not among a million. So the threshold is solved in every run,
from the calibrated false pairs F(t) and the pairs O(t) the run really found at or above t. The same rule
serves scores of the pair verifier, with their own calibration: what is called a cosine here is then such a
score.

F(t) / O(t) <= 1 - target precision is the Benjamini-Hochberg rule written for a threshold, with
the survival of unrelated pairs as p-value (Benjamini & Hochberg, JRSS B 57, 1995; in this form
Storey, Taylor & Siegmund, JRSS B 66, 2004): the lowest cosine that meets it keeps the expected
share of false pairs below the target. The survival is taken at its upper limit, see `most_false_pairs`. With no pair found, O(t) counts as one, so a catalog without
duplicates gets the threshold at which a single false pair becomes unlikely.

The target is an average. In a small catalog it is met by pairs so clear that many doubtful ones fit below
them; `probable_from` gives the threshold from which each pair by itself is likely enough.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dedup_job.kernels.calibration import Calibration, Floats

Counts = NDArray[np.int64]

GRID_STEPS = 1_000  # thresholds are whole thousandths
_TOP = 999
_LOWEST_FLOOR, _HIGHEST_FLOOR = 0.3, 0.97
FLOOR_MARGIN = 0.02
# So many pairs as expected are added to those that were seen: a hundred of them say little by themselves.
_DENSITY_PRIOR = 100.0
# Generous on purpose: a catalog in which every photo has three true duplicates is a very full one.
_GENEROUS_PAIRS_PER_CONTENT = 3.0
_HOPELESS_PRECISION = 0.5
# Fewer counted pairs than this do not carry a rate (its relative error is above 30 %).
_ENOUGH_EXCEEDANCES = 10
_MOST_CAUTION = 3.0
_PAIRS_BEHIND_NONE = 3.0  # "rule of three": 95 % upper limit of a count of which none was seen


@dataclass(frozen=True)
class CatalogSize:
    """What the number of false pairs depends on.

    Attributes:
        n_contents: distinct photo contents that are searched.
        n_comparisons: pairs of contents that share a block.
        look_alikes_per_sku: other products of nearly the same photo that each content has; such
            a pair has two ends, so there are half as many pairs.
        density: how many more strangers of this catalog are nearly alike than of the calibration's
            photos, see `measure_density`.
    """

    n_contents: int
    n_comparisons: int
    look_alikes_per_sku: float = 1.0
    density: float = 1.0

    @property
    def strange_pairs(self) -> float:
        """Comparisons that bring as many false pairs as so many of the calibration's do."""
        return self.n_comparisons * self.density


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold and what may be expected of it.

    Attributes:
        min_score: pairs at or above it are reported.
        expected_false_pairs: F at the threshold.
        expected_precision: 1 - F / pairs found, in [0, 1], with the upper limit of the unrelated tail.
        expected_false_low: F with the lower limit of the unrelated tail.
        expected_false_high: F with the upper limit of the unrelated tail.
        target_met: whether the target precision holds at the threshold.
        thin_tail: whether the promise rests on extrapolation beyond what was counted.
        note: plain sentences for the run's report; empty when there is nothing to say.
        is_least: whether the target precision alone would have allowed a lower threshold.
    """

    min_score: float
    expected_false_pairs: float
    expected_precision: float
    expected_false_low: float
    expected_false_high: float
    target_met: bool
    thin_tail: bool
    note: str
    is_least: bool = False


def cosine_histogram(cosines: ArrayLike) -> Counts:
    """Count cosines in thousandths: bin b holds [b / 1000, (b + 1) / 1000).

    Args:
        cosines: any number of cosines; those below 0 are left out.

    Returns:
        int64 (1001,).
    """
    values = np.asarray(cosines, dtype=np.float64)
    bins = np.floor(values[values >= 0.0] * GRID_STEPS).astype(np.int64)
    return np.bincount(np.minimum(bins, GRID_STEPS), minlength=GRID_STEPS + 1).astype(np.int64)


def expected_false_pairs(calibration: Calibration, size: CatalogSize, cosines: ArrayLike) -> Floats:
    """F(t): unrelated pairs and look-alikes at or above each cosine, float64."""
    unrelated = calibration.unrelated_survival(cosines)
    return size.strange_pairs * unrelated + _look_alikes(calibration, size, cosines)


def most_false_pairs(calibration: Calibration, size: CatalogSize, cosines: ArrayLike) -> Floats:
    """F(t) with the upper limit of the unrelated tail: what a promise must hold for.

    Far beyond what was counted the limit of a bootstrap no longer falls; from a few thousand photos on nothing would
    match. So it is at most `_MOST_CAUTION` times the estimate.
    """
    _, high = calibration.unrelated_survival_interval(cosines)
    unrelated = np.minimum(high, _MOST_CAUTION * calibration.unrelated_survival(cosines))
    return size.strange_pairs * unrelated + _look_alikes(calibration, size, cosines)


def solve_threshold(
    calibration: Calibration,
    size: CatalogSize,
    observed: Counts,
    target_precision: float,
    least: float,
    scale: str = "cosine",
) -> ThresholdChoice:
    """The lowest threshold, in thousandths, whose expected precision reaches the target.

    Args:
        calibration: of the model that made the embeddings.
        size: of the catalog.
        observed: int64 (1001,) histogram of the pairs found, see `cosine_histogram`.
        target_precision: in (0, 1).
        least: the lowest threshold there may be: pairs were searched from it, or are probable from it.
        scale: what the notes call the numbers: `cosine` or `score`.
    """
    first = min(int(np.ceil(round(least * GRID_STEPS, 6))), _TOP)
    steps = np.arange(_TOP + 1)
    n_observed = _at_or_above(observed)[steps]
    false = most_false_pairs(calibration, size, steps / GRID_STEPS)
    allowed = (1.0 - target_precision) * np.maximum(n_observed, 1)
    met = false <= allowed
    step = first + int(np.argmax(met[first:])) if met[first:].any() else _TOP
    choice = judge_threshold(
        calibration, size, observed, step / GRID_STEPS, target_precision, scale
    )
    return replace(choice, is_least=bool(step == first and met[max(first - 1, 0)] and first > 0))


def probable_from(calibration: Calibration, least_probability: float) -> float:
    """The lowest cosine, in thousandths, from which a pair shows one product with at least that probability.

    Args:
        calibration: of the cosines; its probabilities hold at its own prior.
        least_probability: in [0, 1).

    Returns:
        At most .999, also where no cosine is that probable.
    """
    steps = np.arange(_TOP + 1)
    probable = calibration.match_probability(steps / GRID_STEPS) >= least_probability
    return float(np.argmax(probable) if probable.any() else _TOP) / GRID_STEPS


def judge_threshold(
    calibration: Calibration,
    size: CatalogSize,
    observed: Counts,
    min_cosine: float,
    target_precision: float,
    scale: str = "cosine",
) -> ThresholdChoice:
    """What may be expected of a given threshold, solved or set by `--min-cosine`.

    Arguments as `solve_threshold`; `min_cosine` counts in whole thousandths.
    """
    step = min(int(np.ceil(round(min_cosine * GRID_STEPS, 6))), GRID_STEPS)
    n_observed = max(int(_at_or_above(observed)[step]), 1)
    look_alikes = float(_look_alikes(calibration, size, min_cosine))
    false = float(expected_false_pairs(calibration, size, min_cosine))
    low, high = calibration.unrelated_survival_interval(min_cosine)
    false_low, false_high = (size.strange_pairs * float(s) + look_alikes for s in (low, high))
    most_false = float(most_false_pairs(calibration, size, min_cosine))
    allowed = (1.0 - target_precision) * n_observed
    thin = _thin_tail_note(calibration, size, min_cosine, allowed, scale)
    unmet = _unmet_note(
        most_false, look_alikes, allowed, f"{scale} {min_cosine:g}", target_precision
    )
    unexplained = _unexplained_note(calibration, size, min_cosine, n_observed, false_high, scale)
    return ThresholdChoice(
        min_score=min_cosine,
        expected_false_pairs=false,
        expected_precision=float(np.clip(1.0 - most_false / n_observed, 0.0, 1.0)),
        expected_false_low=false_low,
        expected_false_high=false_high,
        target_met=not unmet,
        thin_tail=bool(thin),
        note=" ".join(sentence for sentence in (unmet, thin, unexplained) if sentence),
    )


def search_floor(
    calibration: Calibration, size: CatalogSize, min_cosine: float | None = None
) -> float:
    """Cosine from which candidates are searched and scored pairs are kept, in thousandths.

    Below it even a catalog in which every content has three true duplicates would hold more false
    pairs than true ones, so no target can land there; a margin is kept for the next nights. It
    also bounds the work: at most a few pairs a content are expected above it, at any size.

    Args:
        calibration: of the model that made the embeddings.
        size: of the catalog.
        min_cosine: an explicit threshold; the floor is then a margin below it.
    """
    if min_cosine is not None:
        return round(max(0.0, min_cosine - FLOOR_MARGIN), 3)
    cosines = np.arange(GRID_STEPS) / GRID_STEPS
    most_pairs = _generous_true_pairs(calibration, size, cosines)
    false = expected_false_pairs(calibration, size, cosines)
    hopeful = np.flatnonzero(false <= (1.0 - _HOPELESS_PRECISION) * most_pairs)
    lowest = cosines[hopeful[0]] if len(hopeful) and size.n_contents else _HIGHEST_FLOOR
    return round(float(np.clip(lowest - FLOOR_MARGIN, _LOWEST_FLOOR, _HIGHEST_FLOOR)), 3)


def verify_floor(
    calibration: Calibration, size: CatalogSize, pairs_per_photo: float, least_cosine: float
) -> float:
    """Cosine from which pairs are worth verifying, in thousandths.

    The lower it is, the fewer true pairs are lost to a low cosine, and the more unrelated ones are looked at:
    their number sets it.

    Args:
        calibration: of the cosines.
        size: of the catalog.
        pairs_per_photo: unrelated pairs that are looked at, a photo.
        least_cosine: of the pairs that the scores' calibration counted; below it nothing is known.
    """
    cosines = np.arange(round(least_cosine * GRID_STEPS), _TOP + 1) / GRID_STEPS
    looked_at = size.n_comparisons * calibration.unrelated_survival(cosines)
    few = np.flatnonzero(looked_at <= pairs_per_photo * size.n_contents)
    return round(float(cosines[few[0]] if len(few) else cosines[-1]), 3)


def measure_density(
    cosines: Calibration,
    scores: Calibration,
    size: CatalogSize,
    floor_cosine: float,
    scored: Counts,
) -> float:
    """How many strangers came near enough to be verified, against how many were to be expected.

    Shops that photograph everything in one pose have several times as many as people's bedrooms, and as many
    times more false pairs. Counted are pairs whose score is too low for a match, so that duplicates do not
    make a catalog look dense.

    Args:
        cosines: calibration of the cosines.
        scores: calibration of the scores.
        size: of the catalog.
        floor_cosine: from which pairs were verified.
        scored: int64 (1001,) histogram of the verified pairs' scores, see `cosine_histogram`.

    Returns:
        The ratio, drawn towards 1 where few are expected.
    """
    near = size.n_comparisons * float(cosines.unrelated_survival(floor_cosine))
    expected = near * float(scores.apart_share(floor_cosine))
    seen = int(scored[: int(scores.tail.threshold * GRID_STEPS)].sum())
    return (seen + _DENSITY_PRIOR) / (expected + _DENSITY_PRIOR)


def _generous_true_pairs(calibration: Calibration, size: CatalogSize, cosines: ArrayLike) -> Floats:
    most = _GENEROUS_PAIRS_PER_CONTENT * size.n_contents
    return most * calibration.true_survival(cosines)


def _look_alikes(calibration: Calibration, size: CatalogSize, cosines: ArrayLike) -> Floats:
    n_look_alikes = size.n_contents * size.look_alikes_per_sku / 2
    return n_look_alikes * calibration.hard_negative_survival(cosines)


def _at_or_above(observed: Counts) -> Counts:
    return np.cumsum(observed[::-1])[::-1]


def _unmet_note(
    false: float, look_alikes: float, allowed: float, where: str, target_precision: float
) -> str:
    if false <= allowed:
        return ""
    cause = "look-alikes" if look_alikes > false / 2 else "unrelated photos"
    return (
        f"A precision of {target_precision:g} is not expected at {where}: "
        f"{false:.3g} false pairs, mostly {cause}, where {allowed:.3g} are allowed."
    )


def _thin_tail_note(
    calibration: Calibration, size: CatalogSize, min_cosine: float, allowed: float, scale: str
) -> str:
    """Say so when counting alone cannot carry the promise.

    The pairs counted at the threshold limit the rate by themselves when they are many, or when
    even their upper limit leaves the expected false pairs within what is allowed.
    """
    counted = calibration.n_unrelated * float(calibration.unrelated_survival(min_cosine))
    highest_rate = (counted + _PAIRS_BEHIND_NONE) / calibration.n_unrelated
    if counted >= _ENOUGH_EXCEEDANCES or size.strange_pairs * highest_rate <= allowed:
        return ""
    return (
        f"The unrelated tail is thin: {size.strange_pairs:.3g} comparisons rest on "
        f"{calibration.n_unrelated:.3g} calibration pairs, of which about {counted:.2g} reach "
        f"{scale} {min_cosine:g}, so the expected false pairs are extrapolated."
    )


def _unexplained_note(
    calibration: Calibration,
    size: CatalogSize,
    min_cosine: float,
    n_observed: int,
    most_false: float,
    scale: str,
) -> str:
    """Say so when a catalog unlike the calibration photos may have broken F(t) itself.

    More pairs than true ones can be make F / O look better, not worse, so this must be told.
    """
    most = float(_generous_true_pairs(calibration, size, min_cosine)) + most_false
    if n_observed <= max(most, 1.0):
        return ""
    return (
        f"{n_observed} pairs reach {scale} {min_cosine:g} where the calibration explains at most "
        f"{most:.3g}: either products repeat very often, or these photos are unlike those the "
        "model was calibrated on; look at a sample before trusting the precision."
    )
