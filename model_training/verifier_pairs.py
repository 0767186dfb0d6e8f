"""Pairs that the verifier learns from: copies, look-alikes, and the near strangers of a photo.

A pair is two edited views as the job would hold them: prepared, stored as JPEG, laid over each other.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from dedup_job.kernels.images import Pixels
from dedup_job.kernels.verifier import Described, describe_stored, lay_pair
from model_training.batches import Sampler
from model_training.config import ExperimentConfig
from model_training.data import PhotoSet
from model_training.processes import open_pool

# Shares of the rounds: about a self-made product instead of a photo; with a near stranger beside it.
_MADE_SHARE, _STRANGER_SHARE = 0.2, 0.4
# Of the views of a round: copies in a catalog are both edited as often as not.
_HEAVY_SHARE = 0.75
# Of a product's copies, those of another photo that people called the same, where there is one.
_LABELLED_SHARE = 0.5
PAIRS_PER_PART = 250


@dataclass(frozen=True)
class PairSet:
    """Laid pairs. `frames`: uint8 (n, 2, size, size, PAIR_CHANNELS); `same`: bool (n,)."""

    frames: Pixels
    same: np.ndarray


class PairSampler:
    """Draws pairs of views.

    Args:
        photos: training photos only.
        config: input size, blur and shares of the sources.
        seed: equal seeds and neighbours give equal pairs.
        neighbours: int (n_photos, k), photos of other products that look most alike, nearest first.
    """

    def __init__(
        self, photos: PhotoSet, config: ExperimentConfig, seed: int, neighbours: np.ndarray
    ) -> None:
        self._sampler = Sampler(photos, config, seed)
        self._rng = np.random.default_rng(seed + 1)
        self._neighbours = neighbours

    def draw(self) -> list[tuple[Described, Described, bool]]:
        """The pairs of one round: views of a photo, of its look-alike, sometimes of a near stranger.

        A view's local features take most of the time, so every view is in two pairs or more.

        Returns:
            Four or six tuples of two views and whether they are one product.
        """
        sampler, row = self._sampler, self._sampler.draw_seed()
        photo, copy = sampler.photo(row), sampler.photo(self._copy_of(row))
        if self._rng.random() < _MADE_SHARE:
            photo = copy = sampler.look_alike(row)
        other = sampler.look_alike_of(photo, row)
        a, b, c, d = (self._view(rgb) for rgb in (photo, copy, other, other))
        pairs = [(a, b, True), (c, d, True), (a, c, False), (b, d, False)]
        if self._rng.random() < _STRANGER_SHARE:
            stranger = self._view(sampler.photo(self._rival_of(row)))
            pairs += [(a, stranger, False), (d, stranger, False)]
        # Neither frame of a pair is always that of the photo as it was taken.
        turned = self._rng.random(len(pairs)) < 0.5
        return [
            (y, x, s) if turn else (x, y, s) for (x, y, s), turn in zip(pairs, turned, strict=True)
        ]

    def _view(self, rgb: Pixels) -> Described:
        return describe_stored(
            self._sampler.view(rgb, heavy=bool(self._rng.random() < _HEAVY_SHARE))
        )

    def _copy_of(self, row: int) -> int:
        copies = self._sampler.copies(row)
        if len(copies) and self._rng.random() < _LABELLED_SHARE:
            return int(self._rng.choice(copies))
        return row

    def _rival_of(self, row: int) -> int:
        family = self._sampler.rivals(row)
        if len(family) and self._rng.random() < 0.7:
            return int(self._rng.choice(family))
        nearest = self._neighbours[row]
        return int(nearest[int(self._rng.integers(len(nearest)))])


def draw_pairs(
    photos: PhotoSet,
    config: ExperimentConfig,
    neighbours: np.ndarray,
    n_pairs: int,
    seed: int,
    n_processes: int,
) -> Iterator[PairSet]:
    """Draw pairs in processes of their own, part by part; equal arguments give equal pairs."""
    n_parts = -(-n_pairs // PAIRS_PER_PART)
    with open_pool(n_processes, _open, (photos, config, neighbours)) as pool:
        # A few parts ahead, no more: a part is 90 MB, and drawing is quicker than learning.
        seeds = iter(range(seed, seed + 1_000 * n_parts, 1_000))
        drawn = deque(pool.submit(_draw_part, s) for s in islice(seeds, n_processes + 1))
        while drawn:
            part = drawn.popleft().result()
            drawn.extend(pool.submit(_draw_part, s) for s in islice(seeds, 1))
            yield part


_opened: dict[str, Any] = {}


def _open(photos: PhotoSet, config: ExperimentConfig, neighbours: np.ndarray) -> None:
    _opened["sources"] = (photos, config, neighbours)


def _draw_part(seed: int) -> PairSet:
    photos, config, neighbours = _opened["sources"]
    sampler = PairSampler(photos, config, seed, neighbours)
    pairs: list[tuple[Described, Described, bool]] = []
    while len(pairs) < PAIRS_PER_PART:
        pairs += sampler.draw()
    pairs = pairs[:PAIRS_PER_PART]
    frames = np.stack([lay_pair(a, b) for a, b, _ in pairs])
    return PairSet(frames, np.array([same for _, _, same in pairs]))
