"""A small shop on disk whose catalog changes from night to night."""

from pathlib import Path

import cv2
import numpy as np

from tests.e2e.jobs import write_csv
from tests.photos import draw_photo, encode


class Shop:
    """SKUs with one photo each, drawn from a few designs, so that some are near-duplicates.

    `rows` maps a SKU to (file name, version). Every photo file has a name of its own; a photo that
    changes without a new version keeps its name and gets other bytes.
    """

    def __init__(self, folder: Path, seed: int = 0, n_designs: int = 12) -> None:
        self.folder = folder
        self.rows: dict[str, tuple[str, str]] = {}
        self._rng = np.random.default_rng(seed)
        self._n_designs = n_designs
        self._n_named = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, sku: str | None = None, design: int | None = None, version: str = "") -> str:
        """List a product with a new photo of a design; returns its SKU."""
        self._n_named += 1
        sku = sku or f"sku-{self._n_named:04d}"
        name = f"p{self._n_named:04d}.jpg"
        self._draw(name, design)
        self.rows[sku] = (name, version)
        return sku

    def swap_photo(self, sku: str, design: int | None = None) -> None:
        """Other bytes under the same name."""
        name, version = self.rows[sku]
        self._draw(name, design)
        self.rows[sku] = (name, f"{version}x" if version else "")

    def rename(self, sku: str) -> None:
        """The same bytes under another name."""
        name, version = self.rows[sku]
        self._n_named += 1
        other = f"p{self._n_named:04d}.jpg"
        (self.folder / name).rename(self.folder / other)
        self.rows[sku] = (other, version)

    def delete(self, sku: str) -> None:
        """Take a product off the list; its file stays, as it does in real stores."""
        del self.rows[sku]

    def change_at_random(self, n_changes: int) -> None:
        """Adds, deletes, photo swaps, renames and shared photos, drawn by the shop's seed."""
        for _ in range(n_changes):
            sku = str(self._rng.choice(sorted(self.rows)))
            kind = self._rng.choice(["add", "delete", "swap", "rename", "copy", "relist"])
            if kind == "add":
                self.add(version=str(self._rng.choice(["", "v1"])))
            elif kind == "copy":
                copy = self.add()
                (self.folder / self.rows[copy][0]).write_bytes(
                    (self.folder / self.rows[sku][0]).read_bytes()
                )
            elif kind == "relist":
                row = self.rows.pop(sku)
                self.rows[f"{sku}r"] = row
            elif len(self.rows) > 2:
                {"delete": self.delete, "swap": self.swap_photo, "rename": self.rename}[kind](sku)

    def write(self, skus: list[str] | None = None) -> Path:
        """Write the catalog, or the rows of some SKUs, as CSV."""
        chosen = sorted(self.rows) if skus is None else skus
        rows = [
            {"sku_id": sku, "image_uri": self.rows[sku][0], "image_version": self.rows[sku][1]}
            for sku in chosen
        ]
        return write_csv(self.folder / "catalog.csv", rows)

    def _draw(self, name: str, design: int | None) -> None:
        seed = int(self._rng.integers(self._n_designs)) if design is None else design
        picture = draw_photo(seed, 96, 128).astype(np.int16)
        # A shade of its own: near the design's other photos, never their very bytes.
        picture = np.clip(picture + self._rng.integers(-6, 7, 3), 0, 255).astype(np.uint8)
        picture = cv2.resize(picture, (96 + int(self._rng.integers(0, 9)), 128))
        (self.folder / name).write_bytes(encode(picture, quality=int(self._rng.integers(80, 96))))
