"""From folders, tables and pairs to identities, splits and batches."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from dedup_job.errors import ConfigError
from model_training import data
from model_training.batches import Sampler
from model_training.config import ExperimentConfig, load_config
from model_training.sources import keep_in_training
from tests.photos_for_training import draw_garment


def write_photos(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), draw_garment(i, (64, 48))[:, :, ::-1])


def in_memory(n: int, source: str = "folder", per_style: int = 1) -> data.PhotoSet:
    photos = [
        data.Photo(Path(f"{i}.jpg"), source, f"p{i}", f"p{i}", f"s{i // per_style}", False)
        for i in range(n)
    ]
    pixels = [draw_garment(i, (64, 48)) for i in range(n)]
    masks = [np.full((64, 48), 255, np.uint8) for _ in range(n)]
    return data.PhotoSet(photos, pixels, masks, np.ones(n, bool))


def small_config(**training: object) -> ExperimentConfig:
    raw = {"network": {"input_px": 32}, "training": {"photos_per_batch": 6, **training}}
    return ExperimentConfig.model_validate(raw)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def drawn_rows(sampler: Sampler, n: int) -> set[int]:
    """The photos of `in_memory(n)` in a drawn batch; identities are numbered by sorted name."""
    names = sorted(f"p{i}" for i in range(n))
    return {int(names[code][1:]) for code in sampler.draw().identity if code < n}


def test_similar_pairs_become_products(tmp_path: Path) -> None:
    write_photos(tmp_path, [f"{c}.jpg" for c in "abcdef"])
    table = tmp_path / "pairs.csv"
    table.write_text("image_a,image_b,label\na.jpg,b.jpg,1\nb.jpg,c.jpg,similar\nd.jpg,e.jpg,1\n"
                     "a.jpg,f.jpg,0\nc.jpg,d.jpg,dissimilar\n")  # fmt: skip
    photos, dissimilar = data.read_pairs(table, tmp_path)
    product = {p.path.name: p.product for p in photos}
    assert product["a.jpg"] == product["b.jpg"] == product["c.jpg"]
    assert product["d.jpg"] == product["e.jpg"] != product["a.jpg"]
    assert product["f.jpg"] not in (product["a.jpg"], product["d.jpg"])
    names = [p.path.name for p in photos]
    assert {(names[i], names[j]) for i, j in dissimilar} == {("a.jpg", "f.jpg"), ("c.jpg", "d.jpg")}


def test_contradicting_labels_are_an_error(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    table = tmp_path / "pairs.csv"
    table.write_text("image_a,image_b,label\na.jpg,b.jpg,1\nb.jpg,c.jpg,1\na.jpg,c.jpg,0\n")
    with pytest.raises(ConfigError, match=r"a\.jpg and c\.jpg are labelled dissimilar"):
        data.read_pairs(table, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_a,image_b\na.jpg,b.jpg\n", "no column label; it has: image_a, image_b"),
        ("image_a,image_b,label\na.jpg,b.jpg,maybe\n", "label 'maybe'"),
        ("image_a,image_b,label\na.jpg,x.jpg,1\n", r"x\.jpg named in .* does not exist"),
        ("image_a,image_b,label\n", "no rows"),
    ],
)
def test_a_bad_pair_table_is_explained(tmp_path: Path, text: str, message: str) -> None:
    write_photos(tmp_path, ["a.jpg", "b.jpg"])
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(ConfigError, match=message):
        data.read_pairs(table, tmp_path)


def test_products_split_by_style(tmp_path: Path) -> None:
    names = [f"{style}-{colour}.jpg" for style in range(30) for colour in "rg"]
    write_photos(tmp_path, names)
    lines = [f"{n},{n[:-4]},style{n.split('-')[0]}" for n in names]
    (tmp_path / "p.csv").write_text("image,sku,style\n" + "\n".join(lines) + "\n")
    photos = data.read_products(tmp_path / "p.csv", tmp_path)
    by_style: dict[str, set[bool]] = {}
    for photo in photos:
        by_style.setdefault(photo.family, set()).add(photo.held_out)
    assert all(len(sides) == 1 for sides in by_style.values())
    assert {True} in by_style.values() and {False} in by_style.values()


def test_a_folder_is_one_product_a_photo(tmp_path: Path) -> None:
    write_photos(tmp_path / "shirts", ["a.jpg", "b.png"])
    (tmp_path / "notes.txt").write_text("x")
    photos = data.read_folder(tmp_path)
    assert [p.identity for p in photos] == ["folder:shirts/a.jpg", "folder:shirts/b.png"]
    with pytest.raises(ConfigError, match="not a folder"):
        data.read_folder(tmp_path / "none")


def test_equal_names_in_two_folders_are_two_products_on_one_side(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(30)]
    for sku in ("sku0", "sku1"):
        write_photos(tmp_path / sku, names)
    photos = data.read_folder(tmp_path)
    assert len({p.identity for p in photos}) == len({p.product for p in photos}) == 60
    assert len({p.family for p in photos}) == 60
    # The split goes by the file's name: a set that moves into a folder keeps its split.
    assert all(p.held_out == data.is_held_out(p.path.name, 0.12) for p in photos)
    assert {p.held_out for p in photos} == {True, False}


def test_the_split_is_stable_and_near_its_share() -> None:
    held_out = [data.is_held_out(f"photo-{i}.jpg", 0.12) for i in range(4000)]
    assert 0.1 < np.mean(held_out) < 0.14
    assert data.is_held_out("photo-1.jpg", 0.12) == held_out[1]


def test_the_cache_is_read_back_and_repeats_of_a_photo_become_one_product(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "in" / "d.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes())
    first = data.load_photos(data.read_folder(tmp_path / "in"), tmp_path / "cache")
    again = data.load_photos(data.read_folder(tmp_path / "in"), tmp_path / "cache")
    assert all(np.array_equal(a, b) for a, b in zip(first.pixels, again.pixels, strict=True))
    assert [p.product for p in again.photos] == [f"folder:{n}.jpg" for n in "abca"]
    assert [p.identity for p in again.photos] == [f"folder:{n}.jpg" for n in "abcd"]


def test_an_unreadable_training_photo_is_an_error(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", ["a.jpg"])
    (tmp_path / "in" / "b.jpg").write_bytes(b"<html>")
    with pytest.raises(ConfigError, match=r"b\.jpg: not_image"):
        data.load_photos(data.read_folder(tmp_path / "in"), tmp_path / "cache")


def test_a_cache_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", ["a.jpg", "b.jpg"])
    (tmp_path / "file").write_text("x")
    message = r"^--cache-dir .*file/cache cannot be used: Not a directory; name a directory that"
    with pytest.raises(ConfigError, match=message):
        data.load_photos(data.read_folder(tmp_path / "in"), tmp_path / "file" / "cache")
    with pytest.raises(ConfigError, match=r"^--cache-dir .*file cannot be used: .*; name a dir"):
        data.load_photos(data.read_folder(tmp_path / "in"), tmp_path / "file")


@pytest.mark.parametrize("failing", ["savez", "replace"])
def test_a_cache_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_photos(tmp_path / "in", ["a.jpg", "b.jpg"])
    photos = data.read_folder(tmp_path / "in")
    where = np if failing == "savez" else os
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="No space left"):
        patch.setattr(where, failing, full_disk)
        data.load_photos(photos, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    data.load_photos(photos, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_two_commands_that_start_together_write_a_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "in", ["a.jpg", "b.jpg"])
    photos = data.read_folder(tmp_path / "in")
    save, written = np.savez, []

    def while_another_writes(path: Path, **arrays: np.ndarray) -> None:
        written.append(path)
        if len(written) == 1:
            data.load_photos(photos, tmp_path / "cache")
        save(path, **arrays)

    monkeypatch.setattr(np, "savez", while_another_writes)
    assert len(data.load_photos(photos, tmp_path / "cache")) == 2
    assert len(set(written)) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_batch_has_two_views_of_each_photo_and_two_of_its_look_alike() -> None:
    batch = Sampler(in_memory(12), small_config(), seed=0).draw()
    assert batch.views.shape == (24, 32, 32, 3) and batch.views.dtype == np.uint8
    values, counts = np.unique(batch.identity, return_counts=True)
    assert len(values) == 12 and set(counts) == {2}
    assert np.array_equal(batch.identity, batch.product)


def test_equal_seeds_give_equal_batches() -> None:
    first = Sampler(in_memory(12), small_config(), seed=5).draw()
    second = Sampler(in_memory(12), small_config(), seed=5).draw()
    assert np.array_equal(first.views, second.views)
    assert np.array_equal(first.identity, second.identity)


def test_mined_neighbours_meet_in_a_batch() -> None:
    sampler = Sampler(in_memory(40), small_config(cluster_size=2), seed=0)
    partner = np.arange(40) ^ 1
    sampler.set_neighbours(partner[:, None].astype(np.int32))
    for _ in range(5):
        rows = drawn_rows(sampler, 40)
        assert len(rows) == 6
        assert {row ^ 1 for row in rows} == rows


def test_real_colourways_meet_in_a_batch() -> None:
    sampler = Sampler(in_memory(40, "products", per_style=4), small_config(cluster_size=3), seed=1)
    for _ in range(5):
        styles = np.bincount([row // 4 for row in drawn_rows(sampler, 40)])
        assert styles[styles > 0].min() >= 2


def test_a_photo_meets_every_other_photo_of_its_product() -> None:
    photos = in_memory(8)
    photos.photos = [replace(p, identity="one", product="one") for p in photos.photos]
    sampler = Sampler(photos, small_config(cluster_size=2), seed=0)
    met = {row: {sampler._cluster(row)[1] for _ in range(80)} for row in (0, 3)}
    assert met == {0: {1, 2, 3, 4, 5, 6, 7}, 3: {0, 1, 2, 4, 5, 6, 7}}


def test_one_picture_under_two_colours_of_a_style_becomes_one_product(tmp_path: Path) -> None:
    names = ["a-black.png", "a-blue.png", "a-red.png", "b-black.png"]
    write_photos(tmp_path, names)
    same = (tmp_path / "a-black.png").read_bytes()
    for copy in ("a-blue.png", "b-black.png"):
        (tmp_path / copy).write_bytes(same)
    rows = [f"{name},{name[:-4]},{name[0]}" for name in names]
    (tmp_path / "t.csv").write_text("\n".join(["image,sku,style", *rows]))
    loaded = data.load_photos(data.read_products(tmp_path / "t.csv", tmp_path), tmp_path / "cache")
    skus = ["a-black", "a-black", "a-red", "b-black"]
    assert [p.product for p in loaded.photos] == [f"products:{sku}" for sku in skus]
    assert [p.identity for p in loaded.photos] == [f"products:{name}" for name in names]


def test_both_views_can_be_heavily_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bool] = []

    def view(self: Sampler, rgb: np.ndarray, heavy: bool) -> np.ndarray:
        drawn.append(heavy)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(Sampler, "view", view)
    for share, expected in ((0.0, 0.5), (1.0, 1.0)):
        drawn.clear()
        Sampler(in_memory(12), small_config(both_heavy_share=share), seed=0).draw()
        assert np.mean(drawn) == expected


def test_an_unknown_setting_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("network: {widht: 1}")
    with pytest.raises(ConfigError, match=r"network\.widht"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_the_shipped_experiments_are_valid() -> None:
    folder = Path(data.__file__).parent / "configs"
    experiments = [load_config(path) for path in sorted(folder.glob("*.yaml"))]
    assert len(experiments) >= 2


def test_photos_of_one_sku_are_one_product_and_no_duplicates(tmp_path: Path) -> None:
    write_photos(tmp_path, [f"{name}.png" for name in "abcdx"])
    rows = ["a,c,0,A,B", "b,c,0,A,B", "a,d,1,A,C", "x,a,0,D,A", "x,c,0,E,B"]
    lines = [",".join([*(f"{p}.png" for p in r.split(",")[:2]), *r.split(",")[2:]]) for r in rows]
    header = "image_a,image_b,label,sku_id_a,sku_id_b"
    (tmp_path / "pairs.csv").write_text("\n".join([header, *lines]))
    photos, _ = data.read_pairs(tmp_path / "pairs.csv", tmp_path)
    by_name = {p.path.stem: p for p in photos}
    # a and b are of SKU A; a and d are duplicates; x is shown by two SKUs, so it is nobody's.
    assert len({by_name[n].product for n in "abd"}) == 1
    assert by_name["a"].identity == by_name["d"].identity != by_name["b"].identity
    assert len({by_name[n].product for n in "acx"}) == 3
    assert all(len({by_name[n].held_out for n in group}) == 1 for group in ("abd",))


@pytest.mark.parametrize("blank", [None, "", " "])
def test_an_unknown_sku_joins_nothing(tmp_path: Path, blank: str | None) -> None:
    write_photos(tmp_path, [f"{name}.png" for name in "abcdef"])
    rows = [
        ("a", "b", "0", blank, "B"),
        ("c", "d", "0", blank, blank),
        ("e", "b", "0", "B", "B"),
        ("f", "e", "0", "F", blank),  # whose e is was said above
    ]
    named = [(f"{a}.png", f"{b}.png", *rest) for a, b, *rest in rows]
    columns = ["image_a", "image_b", "label", "sku_id_a", "sku_id_b"]
    frame = pd.DataFrame(named, columns=columns)
    if blank is None:
        table = tmp_path / "pairs.parquet"
        frame.to_parquet(table)
    else:
        table = tmp_path / "pairs.csv"
        frame.to_csv(table, index=False)
    photos, _ = data.read_pairs(table, tmp_path)
    product = {p.path.stem: p.product for p in photos}
    assert product["b"] == product["e"]
    assert len(set(product.values())) == 5


def test_a_table_whose_skus_are_all_unknown_is_read(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.png", "b.png", "c.png"])
    frame = pd.DataFrame({"image_a": ["a.png", "c.png"], "image_b": ["b.png", "a.png"], "label": [1, 0],
                          "sku_id_a": [None, None], "sku_id_b": [None, None]})  # fmt: skip
    frame.to_parquet(tmp_path / "pairs.parquet")
    photos, _ = data.read_pairs(tmp_path / "pairs.parquet", tmp_path)
    assert [p.product == photos[0].product for p in photos] == [True, True, False]


def test_a_folders_photo_goes_with_the_labelled_one_it_equals(tmp_path: Path) -> None:
    for folder in ("labelled", "folder"):
        write_photos(tmp_path / folder, ["0.png", "1.png"])
    (tmp_path / "folder" / "2.png").write_bytes((tmp_path / "folder" / "1.png").read_bytes())
    (tmp_path / "pairs.csv").write_text("image_a,image_b,label\n0.png,1.png,0\n")
    paired, _ = data.read_pairs(tmp_path / "pairs.csv", tmp_path / "labelled")
    photos = [replace(p, held_out=p.path.stem == "0") for p in paired]
    photos += [replace(p, held_out=True) for p in data.read_folder(tmp_path / "folder")]
    loaded = data.load_photos(photos, tmp_path / "cache").photos
    assert [(p.product, p.held_out) for p in loaded] == [
        ("pairs:0.png", True), ("pairs:1.png", False),
        ("pairs:0.png", True), ("pairs:1.png", False), ("pairs:1.png", False),
    ]  # fmt: skip


def test_what_was_trained_on_does_not_judge(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.png", "b.png", "c.png"])
    photos = [replace(p, held_out=True) for p in data.read_folder(tmp_path)]
    photos[1] = replace(photos[1], family=photos[0].family)
    loaded = data.load_photos(photos, tmp_path / "cache")
    assert keep_in_training(loaded, set()) is loaded
    kept = keep_in_training(loaded, {data.photo_sha256(photos[0])})
    assert [p.held_out for p in kept.photos] == [False, False, True]
