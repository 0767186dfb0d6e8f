"""A drawn shop of any size that changes from night to night, for benchmarks of whole runs."""

import csv
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from dedup_job.sample.edits import apply_edits
from dedup_job.sample.photo import photograph
from dedup_job.sample.plan import Listing, plan_listings

WIDTH_PX, HEIGHT_PX = 200, 266
_PRODUCTS_A_SEED = 1_000  # one seed has only so many different garments to offer


class DrawnShop:
    """Listings with one photo each, `photos/N.jpg`; the photos are drawn once and kept.

    Args:
        folder: gets photos and catalog.
        n_rows: listings on the first night.
        n_reserve: listings that later nights may add.
        seed: of everything.
    """

    def __init__(self, folder: Path, n_rows: int, n_reserve: int, seed: int = 0) -> None:
        self.folder = folder
        draw_photos(_plan(n_rows + n_reserve, seed), folder / "photos", seed)
        self._rng = np.random.default_rng(seed)
        self._n_listed = n_rows
        self._n_versions = 0
        self.rows = {f"sku-{i:07d}": f"photos/{i:07d}.jpg" for i in range(n_rows)}

    def write_catalog(self) -> Path:
        path = self.folder / "catalog.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["sku_id", "image_uri"])
            writer.writerows(sorted(self.rows.items()))
        return path

    def add(self, n: int) -> None:
        for i in range(self._n_listed, self._n_listed + n):
            self.rows[f"sku-{i:07d}"] = f"photos/{i:07d}.jpg"
        self._n_listed += n

    def delete(self, n: int) -> None:
        for sku in self._some(n):
            del self.rows[sku]

    def change(self, n: int) -> None:
        """Other photos for `n` listings: edits of what they showed, under new names."""
        for sku in self._some(n):
            self._n_versions += 1
            shown = cv2.imread(str(self.folder / self.rows[sku]))
            edited = apply_edits(shown, ("light", "crop"), self._n_versions)
            name = f"photos/v{self._n_versions:06d}.jpg"
            cv2.imwrite(str(self.folder / name), edited, [cv2.IMWRITE_JPEG_QUALITY, 88])
            self.rows[sku] = name

    def _some(self, n: int) -> list[str]:
        return list(self._rng.choice(sorted(self.rows), n, replace=False))


def _plan(n_listings: int, seed: int) -> list[Listing]:
    listings: list[Listing] = []
    while len(listings) < n_listings:
        listings += plan_listings(_PRODUCTS_A_SEED, seed)
        seed += 1
    return listings[:n_listings]


def draw_photos(listings: Sequence[Listing], folder: Path, seed: int) -> None:
    """Write the photos that are not there yet: small JPEG files, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = list(enumerate(listings))
    drawn = [list(part) for _, part in groupby(numbered, lambda pair: pair[1].product_id)]
    jobs = [(part, folder, seed) for part in drawn if not _is_drawn(part, folder)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_draw, jobs, chunksize=16))


def _is_drawn(part: list[tuple[int, Listing]], folder: Path) -> bool:
    return all((folder / f"{number:07d}.jpg").exists() for number, _ in part)


def _draw(job: tuple[list[tuple[int, Listing]], Path, int]) -> None:
    part, folder, seed = job
    original = None
    for number, listing in part:
        edits = tuple(name for name in listing.edits if name != "copy")
        if not listing.edits or original is None:
            pixels = original = photograph(listing.design, listing.shot)
        else:
            pixels = apply_edits(original, edits, seed + number)
        small = cv2.resize(pixels, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 84 + number % 9]
        cv2.imwrite(str(folder / f"{number:07d}.jpg"), bgr, quality)
