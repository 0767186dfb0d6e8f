"""What is hidden and found again: maps against an embedder whose looks are known."""

import cv2
import numpy as np
import pytest

from dedup_job.gallery.explanation import draw_explanation, explain_photos, render_explanation
from dedup_job.kernels.occlusion import compare_places, overlay

SIZE = 64


def mean_colours(photos):
    """An embedder that sees an 8 by 8 grid of mean colours."""
    small = np.stack([cv2.resize(p, (8, 8), interpolation=cv2.INTER_AREA) for p in photos])
    rows = small.reshape(len(photos), -1).astype(np.float32) + 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def cloth():
    rng = np.random.default_rng(3)
    coarse = rng.integers(90, 140, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def with_print(photo, top, left, colour):
    printed = photo.copy()
    printed[top : top + 12, left : left + 12] = colour
    return printed


def centre_of(heat):
    rows, columns = np.indices(heat.shape)
    return np.average(rows, weights=heat), np.average(columns, weights=heat)


@pytest.mark.parametrize(("top", "left"), [(8, 40), (42, 10), (26, 26)])
def test_the_difference_is_where_the_print_is(cloth, top, left):
    a, b = with_print(cloth, top, left, (255, 0, 0)), with_print(cloth, top, left, (0, 0, 255))
    found = compare_places(a, b, mean_colours)
    vectors = mean_colours(np.stack([a, b]))
    assert found.cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    hot = np.unravel_index(found.difference.argmax(), found.difference.shape)
    assert top - 6 <= hot[0] <= top + 18 and left - 6 <= hot[1] <= left + 18
    assert np.hypot(*(np.subtract(centre_of(found.difference), (top + 6, left + 6)))) < 8


def test_attention_is_on_what_stands_out(cloth):
    a = with_print(cloth, 10, 40, (255, 255, 0))
    found = compare_places(a, cloth, mean_colours)
    hot = np.unravel_index(found.attention_a.argmax(), found.attention_a.shape)
    assert 4 <= hot[0] <= 28 and 34 <= hot[1] <= 58
    assert found.attention_a.max() > 5 * found.attention_b.max()
    assert found.attention_a.min() >= 0 and found.attention_a.dtype == np.float32


def test_equal_photos_do_not_differ_anywhere(cloth):
    found = compare_places(cloth, cloth, mean_colours)
    assert found.cosine == pytest.approx(1) and found.difference.max() < 1e-6
    cold = overlay(cloth, np.zeros((SIZE, SIZE), np.float32))
    assert (cold[..., 0] == cold[..., 2]).all()  # grey, and no colour over it


def test_an_overlay_is_red_where_it_is_hottest(cloth):
    heat = np.zeros((SIZE, SIZE), np.float32)
    heat[20, 30] = 2.0
    shown = overlay(cloth, heat, strength=1.0).astype(int)
    assert shown[20, 30, 0] > 100 and shown[20, 30, 0] > 2 * shown[20, 30, 2]
    assert np.ptp(shown[5, 5]) == 0


def test_shapes_that_do_not_match_are_refused(cloth):
    with pytest.raises(ValueError, match="two square photos of one size"):
        compare_places(cloth, cloth[:32], mean_colours)


def test_the_picture_and_its_page(cloth):
    other = with_print(cloth, 10, 40, (255, 0, 0))
    png = draw_explanation(cloth, other, explain_photos(cloth, other, mean_colours))
    sheet = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape[0] > 900 and sheet.shape[1] > 600 and sheet.std() > 10
    hostile = "<script>alert(1)</script>"
    page = render_explanation(hostile, [(hostile, hostile)], png)
    assert "<script" not in page and page.count("&lt;script&gt;") == 4
    assert "default-src 'none'" in page
