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
from dedup_job.kernels.pictures import pack_picture, unpack_picture
from dedup_job.kernels.verifier import describe, lay_pair
from model_training.batches import Sampler
from model_training.config import ExperimentConfig
from model_training.data import PhotoSet
from model_training.processes import open_pool

# Of the pairs: two copies of one photo; two copies of one self-made product; a photo and a self-made
# product; two self-made products of one photo; two products of one style, or near strangers.
_KINDS = ("copies", "other_copies", "look_alikes", "two_others", "strangers")
# By what they still teach a trained verifier: strangers are soon told apart.
_SHARES = (0.38, 0.12, 0.34, 0.04, 0.12)
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

    def draw(self) -> tuple[Pixels, Pixels, bool]:
        """Two views and whether they are one product."""
        kind = str(self._rng.choice(_KINDS, p=_SHARES))
        sampler = self._sampler
        row = sampler.draw_seed()
        if kind == "strangers":
            sides = [sampler.photo(row), sampler.photo(self._rival_of(row))]
        elif kind == "copies":
            sides = [sampler.photo(row), sampler.photo(self._copy_of(row))]
        elif kind == "other_copies":
            sides = 2 * [sampler.look_alike(row)]
        elif kind == "look_alikes":
            sides = [sampler.photo(row), sampler.look_alike(row)]
        else:
            sides = [sampler.look_alike(row), sampler.look_alike(row)]
        # Copies in a catalog are both edited as often as not.
        heavy = self._rng.permutation([True, bool(self._rng.random() < 0.6)])
        views = [sampler.view(rgb, heavy=bool(h)) for rgb, h in zip(sides, heavy, strict=True)]
        return views[0], views[1], kind in ("copies", "other_copies")

    def _copy_of(self, row: int) -> int:
        """Another photo that people called the same, half of the time, where there is one."""
        copies = self._sampler.copies(row)
        if len(copies) and self._rng.random() < 0.5:
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
        seeds = iter([seed + 1_000 * part for part in range(n_parts)])
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
    frames, same = [], []
    for _ in range(PAIRS_PER_PART):
        a, b, is_same = sampler.draw()
        frames.append(lay_views(a, b))
        same.append(is_same)
    return PairSet(np.stack(frames), np.array(same))


def lay_views(a: Pixels, b: Pixels) -> Pixels:
    """Two prepared views, stored and read again, as the network sees them: see `lay_pair`."""
    stored = (describe(unpack_picture(pack_picture(view))) for view in (a, b))
    return lay_pair(*stored)
