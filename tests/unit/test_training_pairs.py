"""Dissimilar pairs on held-out products, and how much is needed to measure on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dedup_job.errors import ConfigError
from model_training.calibrate import closest_look_alikes, unrelated_by_source
from model_training.config import NetworkConfig
from model_training.data import Photo, PhotoSet
from model_training.evaluate import build_validation, pair_labels, product_rivals
from model_training.sources import count_crossing, held_out_of, split
from tests.photos_for_training import draw_garment


def photo_set(folder: Path, held_out: str, dissimilar: list[tuple[int, int]]) -> PhotoSet:
    """One product a letter of `held_out`: "h" is held out, "t" is for training."""
    photos, pixels = [], []
    for i, side in enumerate(held_out):
        path = folder / f"{i}.png"
        pixels.append(draw_garment(i, (64, 48)))
        cv2.imwrite(str(path), pixels[-1][:, :, ::-1])
        photos.append(Photo(path, "pairs", f"p{i}", f"p{i}", f"p{i}", side == "h"))
    both = dissimilar + [(b, a) for a, b in dissimilar]
    rivals = {a: [y for x, y in both if x == a] for a, _ in both}
    masks = [np.full((64, 48), 255, np.uint8) for _ in photos]
    return PhotoSet(photos, pixels, masks, np.ones(len(photos), bool), rivals)


def test_held_out_dissimilar_pairs_are_hard_negatives_and_never_unrelated(tmp_path: Path) -> None:
    views = build_validation(photo_set(tmp_path, "hhh", [(2, 0)]), NetworkConfig(input_px=32))
    views = views.take(np.arange(len(views.product))[::-1])  # names need not ascend
    a, b, same, hard = pair_labels(views)
    ends = np.sort(np.stack([views.product[a], views.product[b]]), axis=0)
    rivals = (ends[0] == "p0") & (ends[1] == "p2")
    others = (ends[0] == "p0") & (ends[1] == "p1")
    # Three views of a product as it is, so nine pairs of views of two products.
    assert rivals.sum() == others.sum() == 9
    assert hard[rivals].all() and not same[rivals].any()
    assert not hard[others].any()
    cosine = np.where(rivals, 0.9, np.where(hard, 0.5, 0.1))
    unrelated = unrelated_by_source(cosine, a, b, same | hard, views)
    assert max(float(pairs.cosine.max()) for pairs in unrelated) == 0.1
    # Each product with its self-made look-alike, and the labelled pair of products once.
    assert sorted(closest_look_alikes(cosine, a, b, hard, views)) == [0.5, 0.5, 0.5, 0.9]


def test_rivals_stay_when_rows_are_taken(tmp_path: Path) -> None:
    views = build_validation(photo_set(tmp_path, "hhh", [(0, 1)]), NetworkConfig(input_px=32))
    taken = views.take(np.flatnonzero((views.product == "p0") | (views.product == "p1")))
    assert taken.rivals == {("p0", "p1")}
    assert pair_labels(taken)[3].sum() == 9
    alone = views.take(np.flatnonzero(views.product == "p2"))
    assert not pair_labels(alone)[3].any()


def test_dissimilar_pairs_across_the_split_are_counted_and_not_used(tmp_path: Path) -> None:
    photos = photo_set(tmp_path, "t" * 8 + "h" * 10, [(0, 8), (1, 9), (0, 1), (8, 9)])
    assert count_crossing(photos) == 2
    training, held_out = split(photos)
    assert product_rivals(training) == {("p0", "p1")}
    assert product_rivals(held_out) == {("p8", "p9")}


def test_too_few_products_to_measure_on_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"9 held-out products .* \(need 10 and 9\); give photos"):
        split(photo_set(tmp_path, "t" * 8 + "h" * 9, []))
    with pytest.raises(ConfigError, match=r"7 training photos are too few \(need 8\)"):
        split(photo_set(tmp_path, "t" * 7 + "h" * 10, []))
    # All of them labelled dissimilar: nothing is left that could be unrelated.
    every = [(i, j) for i in range(8, 18) for j in range(i + 1, 18)]
    with pytest.raises(ConfigError, match=r"10 held-out products .* with 0 unrelated pairs"):
        split(photo_set(tmp_path, "t" * 8 + "h" * 10, every))
    assert len(held_out_of(photo_set(tmp_path, "th", []), min_families=1)) == 1
