"""Photos laid over each other, against maps that are known."""

import cv2
import numpy as np
import pytest

from dedup_job.kernels.alignment import (
    align,
    find_features,
    find_placement,
    lay_over,
    place,
    turn,
)
from dedup_job.sample.photo import photograph
from dedup_job.sample.plan import plan_listings

SIZE = 128


def shots(n):
    """Drawn garments, each another: uint8 (128, 128, 3)."""
    listings = [one for one in plan_listings(4 * n, seed=5) if not one.edits][:n]
    photos = (photograph(one.design, one.shot) for one in listings)
    return [cv2.resize(p, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for p in photos]


def turned(photo, degrees=0.0, scale=1.0, shift=(0.0, 0.0), *, mirror=False):
    """The photo moved on a white page, and the 2x3 map that moved it."""
    place = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), degrees, scale)
    place[:, 2] += shift
    moved = cv2.warpAffine(photo, place, (SIZE, SIZE), borderValue=(255, 255, 255))
    return (np.ascontiguousarray(moved[:, ::-1]) if mirror else moved), place


def match(a, b):
    return align(a, b, find_features(a), find_features(b))


def correlation(a, b, inside):
    """Of the grey values where both are."""
    greys = (cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[inside] for photo in (a, b))
    return np.corrcoef(*greys)[0, 1]


MOVES = [
    {},
    {"degrees": 9.0},
    {"scale": 0.75, "shift": (10.0, -8.0)},
    {"scale": 1.3},
    {"degrees": -5.0, "scale": 0.85, "mirror": True},
]


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_a_moved_copy_lies_over_the_photo_again(move):
    good = 0
    for photo in shots(6):
        copy, _ = turned(photo, **move)
        found = match(photo, copy)
        assert found.n_matches >= 8
        inside = found.inside > 0
        apart = np.abs(found.pixels.astype(int) - photo)[inside].mean()
        before = np.abs(copy.astype(int) - photo).mean()
        good += bool(apart < max(5, before / 3) and correlation(photo, found.pixels, inside) > 0.93)
    assert good >= 5  # one of six may have little to hold on to


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_a_placement_is_the_map_back_from_the_copy_to_the_photo(move):
    good = 0
    for photo in shots(6):
        copy, there = turned(photo, **move)
        found = find_placement(photo, copy, find_features(photo), find_features(copy))
        assert found.is_mirrored == move.get("mirror", False)
        assert found.to_a.shape == (2, 3) and found.n_matches >= 8
        # The map of the move and then the one that was found leave the middle where it was. A copy's mirror
        # image is laid, so what moved the photo moved that, too.
        middle = np.array([[40, 40], [88, 40], [64, 64], [40, 88], [88, 88]], float)
        moved = middle @ there[:, :2].T + there[:, 2]
        back = moved @ found.to_a[:, :2].T + found.to_a[:, 2]
        good += bool(np.abs(back - middle).max() < 2.0)
    assert good >= 5


def test_a_photo_is_drawn_where_the_map_puts_it_and_stays_without_one():
    photo = shots(1)[0]
    laid = place(photo, np.array([[1.0, 0, 20], [0, 1, -10]]), 12)
    assert laid.n_matches == 12
    assert (laid.pixels[:-10, 20:] == photo[10:, :-20]).all()
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[:-10, 20:] = 255
    assert (laid.inside == expected).all() and (laid.pixels[expected == 0] == 255).all()
    stays = place(photo, None, 12)
    assert (stays.pixels == photo).all() and (stays.inside == 255).all() and stays.n_matches == 0
    assert (turn(photo, True) == photo[:, ::-1]).all() and (turn(photo, False) == photo).all()


def test_the_mirror_image_of_features_is_what_the_mirrored_photo_has():
    for photo in shots(3):
        computed = find_features(photo).mirrored()
        seen = find_features(np.ascontiguousarray(photo[:, ::-1]))
        apart = np.linalg.norm(computed.points[:, None] - seen.points[None], axis=2)
        nearest = apart.argmin(axis=1)
        there = apart.min(axis=1) < 0.5
        cosine = (computed.descriptors * seen.descriptors[nearest]).sum(axis=1)[there]
        # Of many weak features, another 150 may be the strongest ones.
        assert there.sum() >= 20 and np.median(cosine) > 0.95


def test_garments_taken_apart_do_not_lie_over_each_other():
    photos = shots(8)
    agreed = [match(a, b).n_matches for a in photos for b in photos if a is not b]
    copies = [match(a, turned(a, degrees=4.0)[0]).n_matches for a in photos]
    assert np.median(agreed) < 10 < np.median(copies)


def test_a_photo_of_nothing_has_no_features_and_lies_as_it_was():
    blank, photo = np.full((SIZE, SIZE, 3), 255, np.uint8), shots(1)[0]
    assert len(find_features(blank)) == len(find_features(blank).mirrored()) == 0
    found = match(photo, blank)
    assert found.n_matches == 0 and (found.pixels == blank).all() and (found.inside == 255).all()
    assert lay_over(blank, photo) is None


def test_equal_input_gives_equal_output():
    a, b = shots(2)
    first, again = match(a, b), match(a, b)
    assert (first.pixels == again.pixels).all() and first.n_matches == again.n_matches


def test_what_differs_is_found_though_the_copy_was_moved():
    photo = shots(1)[0]
    printed = photo.copy()
    printed[56:72, 56:72] = (255, 220, 0)
    copy, _ = turned(printed, degrees=6.0, scale=0.9, mirror=True)
    found = lay_over(photo, copy)
    assert found is not None
    print_on, elsewhere = found.difference[58:70, 58:70], found.difference.copy()
    elsewhere[48:80, 48:80] = 0
    assert np.median(print_on) > 25
    assert np.quantile(elsewhere, 0.95) < 10
