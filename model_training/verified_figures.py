"""Pairs of views as the nightly job values them: by score where a bundle verifies pairs, else by cosine."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dedup_job.kernels.bundle import VERIFIER, read_manifest
from dedup_job.kernels.calibration import Calibration, read_score_calibration
from dedup_job.kernels.verifier_model import Verifier, load_verifier
from model_training.figures import Scored, measure, reliability
from model_training.verifier_bundle import answer_views


@dataclass(frozen=True)
class Verified:
    """What a verifier makes of the views that `evaluate` looks at.

    Attributes:
        calibration: of the scores.
        trained: the views by kinds of edits that training uses, by score.
        figures: for JSON.
    """

    calibration: Calibration
    trained: Scored
    figures: dict[str, Any]


def measure_verified(
    bundle: Path, verifier: Verifier, trained: Scored, unseen: Scored, fresh: Scored
) -> Verified:
    """Let a bundle's verifier look at pairs that were ranked by cosine, and measure its scores.

    Args:
        bundle: directory.
        verifier: of the bundle.
        trained: views by kinds of edits that training uses.
        unseen: views by kinds it never uses.
        fresh: other draws of known kinds, for the reliability of the calibration.

    Raises:
        ModelContractError: the bundle holds no sound calibration of scores.
    """
    manifest = read_manifest(bundle)
    calibration = read_score_calibration(bundle, manifest.model_id)
    by_cosine = {"trained_kinds": trained, "unseen_kinds": unseen, "calibration": fresh}
    floor = manifest.verified_from
    by_score = {name: score_pairs(one, bundle, verifier, floor) for name, one in by_cosine.items()}
    figures = {
        "floor_cosine": floor,
        "n_verified": {name: int((one.value >= floor).sum()) for name, one in by_cosine.items()},
        "trained_kinds": measure(by_score["trained_kinds"]),
        "unseen_kinds": measure(by_score["unseen_kinds"]),
        "calibration": reliability(by_score["calibration"], calibration),
    }
    return Verified(calibration, by_score["trained_kinds"], figures)


def score_pairs(scored: Scored, bundle: Path, verifier: Verifier, floor_cosine: float) -> Scored:
    """The same pairs by the score of a bundle's verifier; 0 for those that it does not look at."""
    answered = answer_views(bundle / VERIFIER, scored.vectors, scored.views, floor_cosine)
    return replace(scored, value=answered.scores(verifier.rule), quantity="score")


def as_the_job_acts(scored: Scored, bundle: Path) -> Scored:
    """Pairs ranked by cosine, by what a job with this bundle compares with its threshold."""
    verifier = load_verifier(bundle)
    if verifier is None:
        return scored
    return score_pairs(scored, bundle, verifier, read_manifest(bundle).verified_from)
