"""One picture from several sources: names, sides of the split, and what joins what."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from model_training import data
from model_training.sources import keep_in_training, read_sources
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


class Inputs:
    """Sources in one directory, by the seeds of what their photos show, and what comes of them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._options = argparse.Namespace(
            photos=None, products=None, pairs=None, image_root=None, cache_dir=root / "cache"
        )

    def products(self, rows: list[tuple[str, str, int]]) -> "Inputs":
        """SKU, style and seed; the table and its photos lie in a directory of their own."""
        folder = write_garments(self._root / "shop", {f"{sku}.png": seed for sku, _, seed in rows})
        lines = [f"shop/{sku}.png,{sku},{style}" for sku, style, _ in rows]
        self._options.products = write_table(folder.parent / "p.csv", "image,sku,style", lines)
        return self

    def folder(self, seeds: dict[str, int]) -> "Inputs":
        self._options.photos = write_garments(self._root / "folder", seeds)
        return self

    def pairs(self, seeds: dict[str, int], rows: list[str]) -> "Inputs":
        write_garments(self._root / "labelled", seeds)
        return self._pairs_of("labelled", rows)

    def _pairs_of(self, folder: str, rows: list[str]) -> "Inputs":
        lines = []
        for row in rows:
            a, b, label = row.split()
            lines.append(f"{folder}/{a},{folder}/{b},{label}")
        path = self._root / "q.csv"
        self._options.pairs = write_table(path, "image_a,image_b,label", lines)
        self._options.image_root = self._root
        return self

    def load(self, decided: Path | None = None) -> data.PhotoSet:
        return read_sources(self._options, decided)


def by_path(photos: data.PhotoSet) -> dict[str, data.Photo]:
    """Photos by the last two parts of their path."""
    return {"/".join(p.path.parts[-2:]): p for p in photos.photos}


def assert_no_picture_repels_itself(found: dict[str, data.Photo], *names: str) -> None:
    """They are one picture: of one product, and on one side."""
    assert len({found[n].product for n in names}) == 1
    assert len({found[n].held_out for n in names}) == 1


# Styles that are held out, and not, by the hash of their names.
STYLES = {True: "style-1", False: "style-0"}


def test_equal_names_in_two_sources_are_two_products(tmp_path: Path) -> None:
    names = ["front.png", "back.png"]
    for i, folder in enumerate(("folder", "pairs", "decided", "shop")):
        write_garments(tmp_path / folder, {name: 2 * i + j for j, name in enumerate(names)})
    pair = ["front.png,back.png,0"]
    header = "image_a,image_b,label"
    table = write_table(tmp_path / "pairs" / "pairs.csv", header, pair)
    decided = write_table(tmp_path / "decided" / "pairs.csv", header, pair)
    shop = write_table(tmp_path / "shop" / "p.csv", "image,sku,style",
                       [f"{n},{n},{n}" for n in names])  # fmt: skip
    photos = [
        *data.read_pairs(table, table.parent)[0],
        *data.read_pairs(decided, decided.parent, origin="decisions")[0],
        *data.read_folder(tmp_path / "folder"),
        *data.read_products(shop, shop.parent),
    ]
    loaded = data.load_photos(photos, tmp_path / "cache").photos
    for label in ("identity", "product", "family"):
        assert len({getattr(p, label) for p in loaded}) == 8
    assert [p.held_out for p in loaded] == [p.held_out for p in photos]


@pytest.mark.parametrize("side", [True, False])
def test_a_pair_goes_with_the_shops_own_photo(tmp_path: Path, side: bool) -> None:
    inputs = Inputs(tmp_path).products([("red", STYLES[side], 1), ("blue", STYLES[side], 2)])
    # y is the shop's red one; z was said to be the same, x to be another.
    inputs.pairs({"x.png": 3, "y.png": 1, "z.png": 4}, ["y.png z.png 1", "x.png y.png 0"])
    loaded = inputs.load()
    found = by_path(loaded)
    red, y, z = (found[n] for n in ("shop/red.png", "labelled/y.png", "labelled/z.png"))
    assert red.identity == y.identity == z.identity == "products:shop/red.png"
    assert red.product == y.product == z.product == "products:red"
    assert red.family == y.family == z.family == f"products:{STYLES[side]}"
    assert red.held_out == y.held_out == z.held_out == side
    assert found["shop/blue.png"].product == "products:blue"
    assert found["shop/blue.png"].held_out == side
    assert found["labelled/x.png"].product not in (red.product, "products:blue")


@pytest.mark.parametrize("side", [True, False])
def test_a_folders_photo_goes_with_the_shops_own(tmp_path: Path, side: bool) -> None:
    inputs = Inputs(tmp_path).products([("red", STYLES[side], 1)])
    # A photo in a folder twice, on the other side by its name.
    found = by_path(inputs.folder({"item-5.png": 1, "item-0.png": 1, "item-1.png": 2}).load())
    for name in ("folder/item-5.png", "folder/item-0.png"):
        assert replace(found[name], path=Path()) == replace(
            found["shop/red.png"], path=Path(), source="folder"
        )
    assert found["folder/item-1.png"].product == "folder:item-1.png"


def test_two_of_the_shops_photos_are_never_joined_by_a_third(tmp_path: Path) -> None:
    rows = [("a", STYLES[True], 1), ("b", STYLES[False], 1), ("c", STYLES[False], 2)]
    alone = by_path(Inputs(tmp_path / "alone").products(rows).load())
    assert [p.held_out for p in alone.values()] == [True, False, False]
    inputs = Inputs(tmp_path / "mixed").products(rows)
    inputs.folder({"f.png": 1}).pairs({"y.png": 1, "z.png": 3}, ["y.png z.png 0"])
    found = by_path(inputs.load())
    assert found["shop/a.png"].product != found["shop/b.png"].product
    for name in ("folder/f.png", "labelled/y.png"):
        assert found[name].identity == found["shop/a.png"].identity
    # What shows one picture lies on one side, and their styles with it.
    shop = ("a", "b", "c")
    assert {found[f"shop/{n}.png"].held_out for n in shop} == {True}
    assert found["folder/f.png"].held_out and found["labelled/y.png"].held_out


def test_what_people_said_joins_two_skus_and_their_sides(tmp_path: Path) -> None:
    rows = [("a", STYLES[True], 1), ("b", STYLES[False], 2), ("c", STYLES[False], 3)]
    inputs = Inputs(tmp_path).products(rows)
    found = by_path(inputs.pairs({"y.png": 1, "z.png": 2}, ["y.png z.png 1"]).load())
    same = [found[n] for n in ("shop/a.png", "shop/b.png", "labelled/y.png", "labelled/z.png")]
    assert len({p.identity for p in same}) == len({p.product for p in same}) == 1
    assert found["shop/b.png"].family == f"products:{STYLES[False]}"
    assert {p.held_out for p in found.values()} == {True}
    assert found["shop/c.png"].product == "products:c"


def test_a_dissimilar_pair_stays_apart_whatever_it_looks_like(tmp_path: Path) -> None:
    rows = [("a", STYLES[True], 1), ("b", STYLES[False], 1)]
    inputs = Inputs(tmp_path).products(rows)
    found = by_path(inputs.pairs({"y.png": 1, "z.png": 1}, ["y.png z.png 0"]).load())
    assert found["labelled/y.png"].identity == found["shop/a.png"].identity
    assert found["labelled/z.png"].identity == found["shop/b.png"].identity
    assert found["labelled/y.png"].product != found["labelled/z.png"].product
    # One SKU only: one of the two goes with it.
    inputs = Inputs(tmp_path / "one").products(rows[:1])
    found = by_path(inputs.pairs({"y.png": 1, "z.png": 1}, ["y.png z.png 0"]).load())
    assert found["labelled/y.png"].product == found["shop/a.png"].product
    assert found["labelled/y.png"].product != found["labelled/z.png"].product
    assert {p.held_out for p in found.values()} == {True}


def test_a_decided_photo_goes_with_that_of_the_pairs(tmp_path: Path) -> None:
    decided = write_garments(tmp_path / "decided", {"1.png": 1, "2.png": 5})
    pd.DataFrame({"image_a": ["1.png"], "image_b": ["2.png"], "label": [1]}).to_parquet(
        decided / "pairs.parquet"
    )
    inputs = Inputs(tmp_path).pairs({"1.png": 1, "3.png": 3}, ["1.png 3.png 0"])
    found = by_path(inputs.load(decided))
    assert found["decided/1.png"].identity == found["labelled/1.png"].identity
    assert found["decided/2.png"].identity == found["labelled/1.png"].identity
    assert_no_picture_repels_itself(found, "decided/1.png", "decided/2.png", "labelled/1.png")


def test_copies_of_a_folder_take_the_side_of_the_first(tmp_path: Path) -> None:
    root = write_garments(tmp_path / "in", {"item-0.jpg": 1, "item-5.jpg": 1, "item-6.jpg": 2})
    photos = data.read_folder(root)
    assert [p.held_out for p in photos] == [False, True, False]
    assert [p.held_out for p in data.load_photos(photos, tmp_path / "c").photos] == [False] * 3
    loaded = data.load_photos(photos[::-1], tmp_path / "c").photos
    assert [p.held_out for p in loaded] == [False, True, True]


def test_what_was_trained_on_takes_all_that_is_connected_along(tmp_path: Path) -> None:
    rows = [("a", STYLES[True], 1), ("b", STYLES[False], 2), ("c", STYLES[False], 3)]
    inputs = Inputs(tmp_path).products(rows)
    loaded = inputs.pairs({"y.png": 1, "z.png": 2}, ["y.png z.png 1"]).load()
    kept = keep_in_training(loaded, {data.photo_sha256(by_path(loaded)["shop/c.png"])})
    assert {p.held_out for p in loaded.photos} == {True}
    assert {p.held_out for p in kept.photos} == {False}


def test_random_sources_leave_no_picture_on_both_sides(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for trial in range(4):
        seeds = rng.integers(0, 9, 30).tolist()
        inputs = Inputs(tmp_path / str(trial))
        # Each SKU its own picture: what the table itself repeats it answers for.
        inputs.products([(f"s{i}", f"style-{i // 2}", i) for i in range(6)])
        inputs.folder({f"item-{i}.png": seed for i, seed in enumerate(seeds[:10])})
        names = {f"{seed}.png": seed for seed in seeds[10:]}
        a = sorted(names)
        inputs.pairs(names, [f"{x} {y} 1" for x, y in zip(a[::3], a[1::3], strict=False)]
                     + [f"{a[0]} {a[-1]} 0"])  # fmt: skip
        loaded = inputs.load()
        for label in ("product", "family"):
            sides: dict[str, set[bool]] = {}
            for photo in loaded.photos:
                sides.setdefault(getattr(photo, label), set()).add(photo.held_out)
            assert all(len(side) == 1 for side in sides.values())
        shown: dict[bytes, set[tuple[str, bool]]] = {}
        for photo in loaded.photos:
            of_picture = shown.setdefault(photo.path.read_bytes(), set())
            of_picture.add((photo.product, photo.held_out))
        assert all(len(found) == 1 for found in shown.values())
