"""Whether a candidate may replace the champion: both on the same held-out photos, in pairs.

The difference of the two uAPs gets its interval from a paired bootstrap over products
(`resampling.py`).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.errors import GateError
from dedup_job.kernels.bundle import Manifest
from dedup_job.kernels.model import load_embedder
from model_training.bundling import network_of
from model_training.data import PhotoSet
from model_training.evaluate import build_validation
from model_training.figures import score
from model_training.registry import Registry
from model_training.resampling import RankedPairs, draw_products, interval, weigh_pairs
from model_training.verified_figures import as_the_job_acts

_N_BOOTSTRAP = 400
# Neither the validation's nor the calibration's: the candidate was looked at on those.
_SEED = 3


@dataclass(frozen=True)
class Comparison:
    """Champion and candidate on one held-out set; uAPs are 0 to 1.

    Each ranks pairs by what its job acts on: the score of its verifier, or, where `..._verifier` (an id)
    is None, the cosine. `low` and `high` bound `difference` (candidate minus champion) at 95 % confidence.
    """

    champion: str
    candidate: str
    champion_uap: float
    candidate_uap: float
    difference: float
    low: float
    high: float
    n_products: int
    n_duplicate_pairs: int
    n_other_pairs: int
    champion_verifier: str | None = None
    candidate_verifier: str | None = None

    def line(self) -> str:
        """For a terminal."""
        return (
            f"uAP {self.champion_uap:.4f} (by {_quantity(self.champion_verifier)}) -> "
            f"{self.candidate_uap:.4f} (by {_quantity(self.candidate_verifier)}), "
            f"difference {self.difference:+.4f} ({self.low:+.4f} to {self.high:+.4f}) "
            f"on {self.n_products} held-out products"
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, and what they rank pairs by."""
        return {
            **asdict(self),
            "champion_by": _quantity(self.champion_verifier),
            "candidate_by": _quantity(self.candidate_verifier),
        }


def compare_bundles(champion: Path, candidate: Path, held_out: PhotoSet) -> Comparison:
    """Rank the same edits of the same held-out photos with both, and compare their uAPs.

    Args:
        champion: bundle in use.
        candidate: bundle that may replace it.
        held_out: photos that neither was trained on.

    Raises:
        ModelContractError, ConfigError: one of the two is no sound bundle.
    """
    ranked: list[RankedPairs] = []
    manifests: list[Manifest] = []
    for bundle in (champion, candidate):
        embedder = load_embedder(bundle)
        views = build_validation(held_out, network_of(embedder.manifest), seed=_SEED)
        scored = as_the_job_acts(score(embedder.embed(views.views), views), bundle)
        ranked.append(RankedPairs(scored.value, scored.same))
        manifests.append(embedder.manifest)
    # The pairs of both are the same ones.
    family, same = np.unique(scored.views.family, return_inverse=True)[1], scored.same
    differences = _bootstrap(ranked, family[scored.a], family[scored.b])
    low, high = interval(differences)
    champion_uap, candidate_uap = (pairs.uap(np.ones(len(same))) for pairs in ranked)
    return Comparison(
        champion=manifests[0].model_id,
        candidate=manifests[1].model_id,
        champion_uap=champion_uap,
        candidate_uap=candidate_uap,
        difference=candidate_uap - champion_uap,
        low=low,
        high=high,
        n_products=int(family.max()) + 1,
        n_duplicate_pairs=int(same.sum()),
        n_other_pairs=int((~same).sum()),
        champion_verifier=manifests[0].verifier_id,
        candidate_verifier=manifests[1].verifier_id,
    )


def check_promotion(comparison: Comparison, margin: float) -> None:
    """Refuse a candidate that is worse, or may be worse by more than `margin` (uAP).

    Raises:
        GateError: why it is refused, in one line.
    """
    champion = (comparison.champion, comparison.champion_verifier)
    if (comparison.candidate, comparison.candidate_verifier) == champion:
        raise GateError(
            "not promoted: the candidate is the champion (same model_id, same verifier if any)"
        )
    if comparison.difference < 0:
        raise GateError(f"not promoted: the candidate is worse, {comparison.line()}")
    if comparison.low < -margin:
        raise GateError(
            f"not promoted: too few held-out products to be sure within {margin:g} (--margin), "
            f"{comparison.line()}"
        )


def promote(
    registry: Registry, champion: Path, candidate: Path, held_out: PhotoSet, margin: float
) -> tuple[str, Comparison]:
    """Compare, and make the candidate the registry's champion unless that is refused.

    Args:
        registry: gets the candidate.
        champion: its champion, from `Registry.open`.
        candidate: a bundle.
        held_out: photos that neither was trained on.
        margin: see `check_promotion`.

    Returns:
        The version's name, and the comparison.

    Raises:
        GateError: refused; the registry is as it was.
    """
    comparison = compare_bundles(champion, candidate, held_out)
    check_promotion(comparison, margin)
    if registry.champion != champion:
        raise GateError(
            f"not promoted: the champion changed meanwhile, {champion.name} was compared with; "
            f"start again"
        )
    version = registry.add(candidate)
    registry.point_at(version, {"comparison": comparison.as_dict()})
    return version, comparison


def _quantity(verifier_id: str | None) -> str:
    """What a job ranks pairs by."""
    return "cosine" if verifier_id is None else "score"


def _bootstrap(ranked: list[RankedPairs], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differences of uAP over drawn families."""
    differences = []
    for count in draw_products(int(max(a.max(), b.max())) + 1, _N_BOOTSTRAP):
        weight = weigh_pairs(count, a, b)
        first, second = (pairs.uap(weight) for pairs in ranked)
        differences.append(second - first)
    return np.array(differences)
