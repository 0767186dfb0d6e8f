"""One picture from several sources: names, sides of the split, and what joins what."""

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from model_training import data
from tests.photos_for_training import draw_garment

N_ITEMS = 24
ITEMS = [f"item-{i}.jpg" for i in range(N_ITEMS)]


def write_garments(folder: Path, seeds: dict[str, int]) -> Path:
    """Photos by name, equal where the seed is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in seeds.items():
        cv2.imwrite(str(folder / name), draw_garment(seed, (64, 48))[:, :, ::-1])
    return folder


def write_table(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def of_folder(root: Path) -> list[data.Photo]:
    return data.read_folder(root)


def of_products(root: Path) -> list[data.Photo]:
    rows = [f"{name},sku-{i},style-{i // 2}" for i, name in enumerate(ITEMS)]
    return data.read_products(write_table(root / "p.csv", "image,sku,style", rows), root)


def of_pairs(root: Path) -> list[data.Photo]:
    rows = [f"{ITEMS[i]},{ITEMS[i + 1]},1" for i in range(0, N_ITEMS, 2)]
    rows += [f"{ITEMS[i]},{ITEMS[(i + 2) % N_ITEMS]},0" for i in range(0, N_ITEMS, 2)]
    return data.read_pairs(write_table(root / "q.csv", "image_a,image_b,label", rows), root)[0]


@pytest.mark.parametrize(
    ("read", "expected"),
    [(of_folder, [5, 12, 14, 22]), (of_products, [2, 3]), (of_pairs, [12, 13, 14, 15, 22, 23])],
)
def test_one_source_is_split_as_it_always_was(
    tmp_path: Path, read: Callable[[Path], list[data.Photo]], expected: list[int]
) -> None:
    root = write_garments(tmp_path / "in", {name: i for i, name in enumerate(ITEMS)})
    photos = read(root)
    loaded = data.load_photos(photos, tmp_path / "cache").photos
    for some in (photos, loaded):
        assert sorted(int(p.path.stem[5:]) for p in some if p.held_out) == expected
