"""The pair verifier of a bundle, made ready to compute."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.errors import ModelContractError, one_line
from dedup_job.kernels.bundle import GOLDEN, MANIFEST, VERIFIER, Manifest, read_manifest
from dedup_job.kernels.golden import read_golden
from dedup_job.kernels.model import LiteRtNetwork, Network
from dedup_job.kernels.verifier import (
    Described,
    Floats,
    ScoreRule,
    golden_pairs,
    lay_pair,
    mean_answer,
)

# Other kernel sets of LiteRT round differently; a damaged network answers something else.
_GOLDEN_TOLERANCE = 1.0


class Verifier:
    """Scores pairs as the bundle's calibration expects them.

    Args:
        network: uint8 (n, size, size, PAIR_CHANNELS) to float32 (n, votes).
        rule: joins its answer and the cosine.
    """

    def __init__(self, network: Network, rule: ScoreRule) -> None:
        self._network = network
        self.rule = rule

    def answer(self, a: Described, b: Described) -> float:
        """The network's answer on a pair: a logarithm of odds, not calibrated."""
        return mean_answer(list(self._network(lay_pair(a, b))))

    def score(self, answers: Iterable[float], cosines: Iterable[float]) -> Floats:
        """Scores of pairs: float32, 0 to 1."""
        return self.rule.score(list(answers), list(cosines))


def load_verifier(directory: Path, n_threads: int = 1) -> Verifier | None:
    """Load the verifier of a bundle and try it on the golden pictures; None where it has none.

    Raises:
        ModelContractError: the bundle is not what it promises.
        ConfigError: the directory is no bundle.
    """
    manifest = read_manifest(directory)
    if not manifest.has_verifier:
        return None
    rule, golden = _read_facts(directory, manifest)
    network = LiteRtNetwork(directory / VERIFIER, n_threads)
    verifier = Verifier(network, rule)
    frames = golden_pairs(read_golden(directory / GOLDEN, manifest).images)
    try:
        got = np.array([mean_answer(list(network(pair))) for pair in frames])
    except (ValueError, RuntimeError) as error:
        raise ModelContractError(
            f"model bundle {directory}: the verifier cannot run its golden pairs: {one_line(error)}"
        ) from None
    if got.shape != golden.shape or not (np.abs(got - golden) <= _GOLDEN_TOLERANCE).all():
        raise ModelContractError(
            f"model bundle {directory}: the verifier answers {np.round(got, 1).tolist()} on its golden "
            f"pairs, expected {np.round(golden, 1).tolist()}; it is damaged or computes differently here"
        )
    return verifier


def _read_facts(directory: Path, manifest: Manifest) -> tuple[ScoreRule, np.ndarray]:
    try:
        facts: dict[str, Any] = manifest.raw["verifier"]
        weights = [
            float(facts["rule"][name]) for name in ("bias", "answer_weight", "cosine_weight")
        ]
        golden = np.array(facts["golden_answers"], np.float64)
        verified_from = manifest.verified_from
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST} does not describe its verifier ({error})"
        ) from None
    if not np.isfinite(weights).all() or min(weights[1:]) < 0:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST}: the verifier's weights are {weights}, expected "
            "numbers, the last two not below 0"
        )
    if not 0.0 <= verified_from < 1.0:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST}: the verifier's floor_cosine is {verified_from}, expected "
            "0 to 1"
        )
    return ScoreRule(*weights), golden
