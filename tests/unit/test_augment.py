"""Edits keep the product, look-alikes change it visibly, and both are valid pictures."""

import cv2
import numpy as np
import pytest

from model_training import augment, look_alikes
from tests.photos_for_training import draw_garment


@pytest.mark.parametrize("name", augment.EDITS)
@pytest.mark.parametrize("shape", [(224, 168), (40, 37), (60, 224)])
def test_every_edit_gives_a_picture(name: str, shape: tuple[int, int]) -> None:
    rgb = draw_garment(0, shape)
    for seed in range(6):
        edited = augment.EDITS[name](rgb.copy(), np.random.default_rng(seed))
        assert edited.dtype == np.uint8
        assert edited.ndim == 3 and edited.shape[2] == 3
        assert min(edited.shape[:2]) >= 16


@pytest.mark.parametrize("name", augment.EDITS)
def test_edits_leave_their_input_and_repeat_by_seed(name: str) -> None:
    rgb = draw_garment(1)
    before = rgb.copy()
    first = augment.EDITS[name](rgb, np.random.default_rng(3))
    second = augment.EDITS[name](rgb, np.random.default_rng(3))
    assert np.array_equal(rgb, before)
    assert np.array_equal(first, second)


def test_compose_never_draws_held_out_edits() -> None:
    rgb = draw_garment(2, (64, 48))
    seen = set()
    for seed in range(150):
        _, kinds = augment.compose(rgb, np.random.default_rng(seed), 3)
        assert len(set(kinds)) == 3
        seen |= set(kinds)
    assert not seen & augment.HELD_OUT
    assert len(augment.HELD_OUT) == 3
    assert len(seen) > 15


@pytest.mark.parametrize("name", ["light", "white_balance", "gamma", "saturation"])
def test_light_edits_keep_the_hue(name: str) -> None:
    rgb = draw_garment(3)
    chest = (slice(90, 120), slice(70, 100))
    hue = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[chest][..., 0].mean()
    for seed in range(10):
        edited = augment.EDITS[name](rgb, np.random.default_rng(seed))
        moved = abs(cv2.cvtColor(edited, cv2.COLOR_RGB2HSV)[chest][..., 0].mean() - hue)
        assert min(moved, 180 - moved) < 9


@pytest.mark.parametrize("name", look_alikes.GENERATORS)
def test_every_look_alike_is_visible_and_inside_the_garment(name: str) -> None:
    rgb = draw_garment(4)
    mask, good = look_alikes.find_garment(rgb)
    assert good
    outside = cv2.dilate(mask, np.ones((15, 15), np.uint8)) == 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        made, _ = look_alikes.make_look_alike(rgb, mask, rng, draw_garment(5)[60:120, 60:120], name)
        assert look_alikes.visible_change(rgb, made) >= 1.0
        moved = np.abs(made.astype(int) - rgb)[outside]
        assert moved.max() <= 2


def test_training_never_uses_the_held_out_generator() -> None:
    rgb = draw_garment(6, (96, 72))
    mask, _ = look_alikes.find_garment(rgb)
    kinds = {
        look_alikes.make_look_alike(rgb, mask, np.random.default_rng(seed), rgb[20:50, 20:50])[1]
        for seed in range(80)
    }
    assert not kinds & look_alikes.HELD_OUT
    assert {"recolour", "pattern", "print_on"} <= kinds


def test_the_garment_is_found() -> None:
    rgb = draw_garment(7)
    mask, good = look_alikes.find_garment(rgb)
    assert good
    assert mask[112, 84] == 255
    assert mask[3, 3] == 0


def test_a_photo_of_one_colour_gets_a_centre_mask() -> None:
    mask, good = look_alikes.find_garment(np.full((100, 80, 3), 200, np.uint8))
    assert mask.shape == (100, 80)
    assert not good
    assert mask[50, 40] == 255
    assert mask[2, 2] == 0 and 0.2 < (mask > 0).mean() < 0.5


def test_the_garment_does_not_depend_on_what_was_looked_at_before() -> None:
    photos = [draw_garment(seed) for seed in range(6)]
    first = [look_alikes.find_garment(rgb)[0] for rgb in photos]
    again = [look_alikes.find_garment(rgb)[0] for rgb in reversed(photos)]
    for mask, same in zip(first, reversed(again), strict=True):
        assert np.array_equal(mask, same)


def test_cut_out_replaces_the_background_only() -> None:
    rgb = draw_garment(8)
    mask, _ = look_alikes.find_garment(rgb)
    out = augment.cut_out(rgb, mask, np.random.default_rng(0))
    inside = cv2.erode(mask, np.ones((15, 15), np.uint8)) > 0
    assert np.array_equal(out[inside], rgb[inside])
    assert np.ptp(out[:8, :8].reshape(-1, 3), axis=0).max() <= 1
