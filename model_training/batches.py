"""Batches: clusters of look-alike photos, each as two views and two views of another product.

Samplers run in processes of their own, so that augmentation and the network share the cores.
"""

import contextlib
from dataclasses import dataclass
from multiprocessing import get_context
from queue import Empty
from typing import Any

import cv2
import numpy as np

from dedup_job.errors import DedupError
from dedup_job.kernels.images import Pixels, fit
from model_training.augment import compose, cut_out
from model_training.config import ExperimentConfig
from model_training.data import PhotoSet
from model_training.look_alikes import make_look_alike
from model_training.processes import end_with_parent

_QUEUE_DEPTH = 6
# Two samplers of one training draw from seeds that far apart.
_SEED_STRIDE = 100_000
# Look-alikes get labels of their own, far from any photo's.
_OTHER_PRODUCT = 10_000_000


@dataclass(frozen=True)
class Batch:
    """`views`: uint8 (n, size, size, 3). `identity`, `product`: int32 (n,), see `losses`."""

    views: Pixels
    identity: np.ndarray
    product: np.ndarray


class Sampler:
    """Draws batches from a photo set.

    Args:
        photos: training photos only.
        config: sizes, shares and the seed.
        seed: of this sampler; equal seeds and equal neighbours give equal batches.
    """

    def __init__(self, photos: PhotoSet, config: ExperimentConfig, seed: int) -> None:
        self._photos = photos
        self._config = config
        self._rng = np.random.default_rng(seed)
        self._identity = _codes([p.identity for p in photos.photos])
        self._product = _codes([p.product for p in photos.photos])
        self._families = _members([p.family for p in photos.photos])
        self._identities = _members([p.identity for p in photos.photos])
        self._pools, self._pool_share = _pools(photos, config)
        self._neighbours: np.ndarray | None = None

    def set_neighbours(self, neighbours: np.ndarray) -> None:
        """Use mined neighbours: int (n_photos, k), nearest first, without the photo itself."""
        self._neighbours = neighbours

    def draw(self) -> Batch:
        """Draw one batch of 4 views a photo."""
        views, identity, product = [], [], []
        for row in self._draw_rows():
            for view, is_other in self._views_of(row):
                views.append(view)
                identity.append(_OTHER_PRODUCT + row if is_other else self._identity[row])
                product.append(_OTHER_PRODUCT + row if is_other else self._product[row])
        return Batch(np.stack(views), np.array(identity, np.int32), np.array(product, np.int32))

    def _draw_rows(self) -> list[int]:
        size = min(self._config.training.photos_per_batch, len(self._photos))
        rows: list[int] = []
        while len(rows) < size:
            for row in self._cluster(self.draw_seed()):
                if row not in rows and len(rows) < size:
                    rows.append(row)
        return rows

    def draw_seed(self) -> int:
        """A photo's row, from a source drawn by the sources' shares."""
        pool = self._pools[int(self._rng.choice(len(self._pools), p=self._pool_share))]
        return int(self._rng.choice(pool))

    def _cluster(self, seed: int) -> list[int]:
        """The seed and its hardest company: labelled positives and negatives, then mined ones."""
        photo, rng = self._photos.photos[seed], self._rng
        same = [r for r in self._identities[photo.identity] if r != seed]
        company = self._shuffled(same)[:1]
        company += [int(r) for r in self._shuffled(self._photos.dissimilar.get(seed, []))[:2]]
        family = [
            r for r in self._families[photo.family] if self._product[r] != self._product[seed]
        ]
        company += self._shuffled(family)[:2]
        if self._neighbours is not None:
            nearest = self._neighbours[seed]
            take = rng.permutation(len(nearest))[: self._config.training.cluster_size]
            company += [int(nearest[i]) for i in sorted(take)]
        return [seed, *company][: self._config.training.cluster_size]

    def _shuffled(self, rows: list[int]) -> list[int]:
        return [rows[i] for i in self._rng.permutation(len(rows))]

    def photo(self, row: int) -> Pixels:
        """A photo, not edited: uint8 (height, width, 3)."""
        return self._photos.pixels[row]

    def look_alike(self, row: int) -> Pixels:
        """A self-made other product of a photo, not edited."""
        return self.look_alike_of(self.photo(row), row)

    def look_alike_of(self, rgb: Pixels, row: int) -> Pixels:
        """A self-made other product of a picture whose garment lies where that of a photo does."""
        made, _ = make_look_alike(rgb, self._photos.masks[row], self._rng, self._random_crop())
        return made

    def copies(self, row: int) -> np.ndarray:
        """Rows of other photos that are labelled duplicates of this one."""
        same = self._identities[self._photos.photos[row].identity]
        return np.array([r for r in same if r != row], np.int64)

    def rivals(self, row: int) -> np.ndarray:
        """Rows that are known to show another product than this photo, nearly the same: labelled or by family."""
        family = self._families[self._photos.photos[row].family]
        others = [r for r in family if self._product[r] != self._product[row]]
        return np.array([*others, *self._photos.dissimilar.get(row, [])], np.int64)

    def view(self, rgb: Pixels, heavy: bool) -> Pixels:
        """An edited copy as the network takes it: uint8 (size, size, 3)."""
        # Catalogs hold look-alikes as they were taken: the light views are mostly unedited.
        shares = (0.0, 0.4, 0.35, 0.25) if heavy else (0.65, 0.2, 0.1, 0.05)
        n_edits = int(self._rng.choice(4, p=shares))
        edited, _ = compose(rgb, self._rng, n_edits)
        network = self._config.network
        return fit(edited, network.input_px, network.blur_sigma_px)

    def _views_of(self, row: int) -> list[tuple[Pixels, bool]]:
        rng = self._rng
        rgb, other = self.photo(row), self.look_alike(row)
        good = bool(self._photos.mask_good[row])
        # On a plain background only the garment can tell the two products apart.
        if good and self._photos.photos[row].source == "folder" and rng.random() < 0.15:
            seed, mask = int(rng.integers(2**31)), self._photos.masks[row]
            rgb = cut_out(rgb, mask, np.random.default_rng(seed))
            other = cut_out(other, mask, np.random.default_rng(seed))
        both_heavy = self._config.training.both_heavy_share
        return [
            (self.view(rgb, heavy=rng.random() < both_heavy), False),
            (self.view(rgb, heavy=True), False),
            (self.view(other, heavy=rng.random() < both_heavy), True),
            (self.view(other, heavy=True), True),
        ]

    def _random_crop(self) -> Pixels:
        rgb = self._photos.pixels[int(self._rng.integers(len(self._photos)))]
        height, width = rgb.shape[:2]
        side = max(8, int(min(height, width) * self._rng.uniform(0.3, 0.6)))
        y, x = (height - side) // 2, (width - side) // 2
        return rgb[y : y + side, x : x + side]


class BatchProcess:
    """Samplers in processes of their own, `training.processes` of them, with a short queue of ready batches.

    Use as a context manager; leaving it ends the processes.
    """

    def __init__(self, photos: PhotoSet, config: ExperimentConfig, seed: int) -> None:
        context = get_context("spawn")
        self._ready = context.Queue(_QUEUE_DEPTH)
        self._news: list[Any] = []
        self._processes: list[Any] = []
        for i in range(config.training.processes):
            news = context.Queue()
            arguments = (photos, config, seed + _SEED_STRIDE * i, self._ready, news)
            self._processes.append(context.Process(target=_serve, args=arguments, daemon=True))
            self._news.append(news)

    def __enter__(self) -> "BatchProcess":
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for news, process in zip(self._news, self._processes, strict=True):
            # Neighbours that were never read would keep this process alive at its end.
            news.cancel_join_thread()
            process.terminate()
            process.join()

    def draw(self) -> Batch:
        """The next batch.

        Raises:
            DedupError: a process died.
        """
        while True:
            try:
                return Batch(*self._ready.get(timeout=20))
            except Empty:
                if not all(process.is_alive() for process in self._processes):
                    raise DedupError("the augmentation process died; its error is above") from None

    def set_neighbours(self, neighbours: np.ndarray) -> None:
        """Send mined neighbours; used from the next batches on."""
        for news in self._news:
            news.put(neighbours)


def _serve(photos: PhotoSet, config: ExperimentConfig, seed: int, ready: Any, news: Any) -> None:
    end_with_parent()
    cv2.setNumThreads(1)
    sampler = Sampler(photos, config, seed)
    while True:
        with contextlib.suppress(Empty):
            sampler.set_neighbours(news.get_nowait())
        batch = sampler.draw()
        ready.put((batch.views, batch.identity, batch.product))


def _pools(photos: PhotoSet, config: ExperimentConfig) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of each source that there is, and how often clusters begin in it."""
    source = np.array([photo.source for photo in photos.photos])
    share = {"products": config.training.studio_share, "pairs": config.training.labelled_share}
    rows = {name: np.flatnonzero(source == name) for name in (*share, "folder")}
    there = [name for name in rows if len(rows[name])]
    share["folder"] = max(0.0, 1.0 - sum(share.get(name, 0.0) for name in there))
    weight = np.array([share[name] for name in there])
    if not weight.any():  # only sources of share 0
        weight = np.ones(len(there))
    return [rows[name] for name in there], weight / weight.sum()


def _codes(names: list[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int32)


def _members(names: list[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)
    return members
