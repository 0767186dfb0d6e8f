"""The pair verifier: what a candidate pair shows once one photo lies over the other.

An embedding says how alike two photos are as a whole; a small print or a changed colour moves it less than
a crop or a badge does. The verifier looks at both photos at once. They are laid over each other
(`kernels.alignment`), and a small convolutional network sees both, where they overlap, and how they differ:
once in the frame of the one and once in the frame of the other. What it says is joined with the cosine to
one score in [0, 1], on which the threshold acts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from dedup_job.kernels.alignment import (
    LocalFeatures,
    find_features,
    find_placement,
    place,
    turn,
)
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.pictures import pack_picture, unpack_picture

Floats = npt.NDArray[np.float32]
# One photo, the other one over it, how they differ, where the other one is, how sure that is.
PAIR_CHANNELS = 11
_GREY_LEVELS_PER_MATCH = 5
# Spreads the score: odds of a million to one are at .97, not at .999999.
_SPREAD = 4.0


@dataclass(frozen=True)
class Described:
    """A prepared photo with its local features."""

    pixels: Pixels
    features: LocalFeatures


def describe(pixels: Pixels) -> Described:
    """Find the local features of a prepared photo: uint8 (size, size, 3)."""
    return Described(pixels, find_features(pixels))


def describe_stored(pixels: Pixels) -> Described:
    """`describe` a prepared photo as it is after it was stored and read again, as those of a job are."""
    return describe(unpack_picture(pack_picture(pixels)))


def lay_pair(a: Described, b: Described) -> Pixels:
    """What the network sees of a pair: b over a, and a over b.

    Returns:
        uint8 (2, size, size, `PAIR_CHANNELS`).
    """
    found = find_placement(a.pixels, b.pixels, a.features, b.features)
    turned_b = turn(b.pixels, found.is_mirrored)
    back = None if found.to_a is None else cv2.invertAffineTransform(found.to_a)
    return np.stack(
        [
            _stack(a.pixels, turned_b, found.to_a, found.n_matches),
            _stack(turned_b, a.pixels, back, found.n_matches),
        ]
    )


def _stack(
    base: Pixels, other: Pixels, where: npt.NDArray[np.float64] | None, n_matches: int
) -> Pixels:
    laid = place(other, where, n_matches)
    apart = cv2.absdiff(base, laid.pixels)
    apart[laid.inside == 0] = 0
    sure = np.full_like(laid.inside, min(255, _GREY_LEVELS_PER_MATCH * laid.n_matches))
    return np.dstack([base, laid.pixels, apart, laid.inside, sure])


@dataclass(frozen=True)
class ScoreRule:
    """How the network's answer and the cosine become a score: a logistic regression on held-out pairs.

    Attributes:
        bias: added.
        answer_weight: times the network's answer, the mean of both frames.
        cosine_weight: times the cosine.
    """

    bias: float
    answer_weight: float
    cosine_weight: float

    def score(self, answers: npt.ArrayLike, cosines: npt.ArrayLike) -> Floats:
        """Scores of pairs: float32, 0 to 1, rising in both."""
        log_odds = (
            self.bias
            + self.answer_weight * np.asarray(answers, np.float64)
            + self.cosine_weight * np.asarray(cosines, np.float64)
        )
        scores: Floats = (1.0 / (1.0 + np.exp(-log_odds / _SPREAD))).astype(np.float32)
        return scores


def mean_answer(votes: Sequence[Floats]) -> float:
    """One answer, a logarithm of odds, from the network's votes on both frames of a pair.

    The network votes many times and its votes are added up here: a sum of int8 numbers is finer than one.

    Args:
        votes: float32 (n_votes,) for each frame.
    """
    return math.fsum(float(v.sum()) for v in votes) / len(votes)


def golden_pairs(images: Pixels) -> list[Pixels]:
    """What the network sees of the golden pictures of a bundle, each beside the next one.

    Args:
        images: uint8 (n, size, size, 3).
    """
    described = [describe(image) for image in images]
    return [lay_pair(*pair) for pair in pairwise(described)]
