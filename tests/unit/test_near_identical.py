"""Which pictures are all but the same, against the plain formula, in blocks of any size."""

import tracemalloc

import cv2
import numpy as np
import pytest

from model_training.near_identical import near_identical
from tests.photos_for_training import draw_garment


def photos_with_copies(n: int, n_copies: int) -> list[np.ndarray]:
    """Drawn photos; the last ones repeat the first ones, every second with a trace of noise."""
    rng = np.random.default_rng(3)
    pixels = [draw_garment(i, (64, 48)) for i in range(n)]
    for i in range(n_copies):
        noise = rng.normal(0, 6, pixels[i].shape) if i % 2 else 0
        pixels.append(np.clip(pixels[i] + noise, 0, 255).astype(np.uint8))
    return pixels


def by_the_formula(pixels: list[np.ndarray]) -> set[tuple[int, int]]:
    """RMS difference of 16x16 thumbnails below 1 %, in float64, pair by pair."""
    small = [cv2.resize(p, (16, 16), interpolation=cv2.INTER_AREA) / 255.0 for p in pixels]
    n = len(small)
    return {
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if np.mean((small[i] - small[j]) ** 2) < 0.01**2
    }


@pytest.mark.parametrize("block", [1, 7, 50, 512])
def test_any_block_finds_what_the_formula_finds(block: int) -> None:
    pixels = photos_with_copies(40, 10)
    # Black and white are the largest values there are.
    pixels += [np.full((20, 20, 3), value, np.uint8) for value in (0, 1, 4, 251, 255)]
    near = near_identical(pixels, block)
    found = list(zip(near.first.tolist(), near.second.tolist(), strict=True))
    assert found == sorted(by_the_formula(pixels))
    assert {(i, 40 + i) for i in range(10)} <= set(found)
    whole = near_identical(pixels, len(pixels))
    assert np.array_equal(near.apart, whole.apart)
    assert near.apart[found.index((0, 40))] == 0


@pytest.mark.parametrize("n", [0, 1])
def test_no_two_pictures_have_no_pair(n: int) -> None:
    assert len(near_identical(photos_with_copies(n, 0)).first) == 0


def test_memory_grows_with_the_block_and_not_with_the_square() -> None:
    rng = np.random.default_rng(0)
    pixels = list(rng.integers(0, 256, (3000, 16, 16, 3), np.uint8))
    tracemalloc.start()
    try:
        near = near_identical(pixels, block=64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(near.first) == 0
    # Thumbnails (9 MB, thrice while they are made) and a few blocks; one float32 square is 36 MB.
    assert peak < 34e6
