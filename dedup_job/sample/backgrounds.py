"""What garments are photographed on: float32 (height, width, 3) RGB pictures, 0 to 255."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
WIDTH_PX, HEIGHT_PX = 400, 533


def smooth_noise(rng: np.random.Generator, rows: int, columns: int) -> Picture:
    """Cloudy noise: float32 (HEIGHT_PX, WIDTH_PX), roughly -1 to 1, with about rows x columns bumps."""
    coarse = np.clip(rng.normal(0, 0.45, (rows, columns)), -1, 1).astype(np.float32)
    return cv2.resize(coarse, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)


def background(name: str, seed: int) -> Picture:
    """One of `BACKGROUNDS`, drawn anew for each seed."""
    return BACKGROUNDS[name](np.random.default_rng([seed, 23]))


def _flat(rgb: tuple[float, float, float] | NDArray[np.float64]) -> Picture:
    return np.full((HEIGHT_PX, WIDTH_PX, 3), rgb, dtype=np.float32)


def _studio(rng: np.random.Generator) -> Picture:
    fall = np.linspace(0, rng.uniform(4, 14), HEIGHT_PX, dtype=np.float32)[:, None, None]
    return _flat(rng.uniform(243, 254) * np.ones(3)) - fall


def _paper(rng: np.random.Generator) -> Picture:
    tones = [(226, 214, 200), (206, 218, 226), (232, 206, 204), (212, 222, 204), (150, 156, 164)]
    rgb = np.array(tones[rng.integers(len(tones))]) + rng.uniform(-10, 10, 3)
    return _flat(rgb) + 5 * smooth_noise(rng, 6, 5)[..., None]


def _wood(rng: np.random.Generator) -> Picture:
    base = np.array(
        [(190, 146, 98), (140, 98, 64), (206, 178, 140), (112, 90, 74)][rng.integers(4)]
    )
    picture = _flat(base)
    width = int(rng.integers(48, 90))
    grain = cv2.resize(
        rng.normal(0, 1, (14, WIDTH_PX)).astype(np.float32),
        (WIDTH_PX, HEIGHT_PX),
        interpolation=cv2.INTER_CUBIC,
    )
    picture += 7 * cv2.GaussianBlur(grain, (0, 0), 0.8)[..., None]
    start = -int(rng.integers(width))
    for left in range(start, WIDTH_PX, width):
        area = picture[:, max(left, 0) : left + width]
        area *= rng.uniform(0.88, 1.1)
        joint = int(rng.integers(HEIGHT_PX))
        area[joint : joint + 2] *= 0.6
        area[:, :2] *= 0.6
    return (
        np.rot90(cv2.resize(picture, (HEIGHT_PX, WIDTH_PX))).copy()
        if rng.random() < 0.4
        else picture
    )


def _tiles(rng: np.random.Generator) -> Picture:
    base = np.array([(206, 204, 198), (176, 170, 160), (222, 220, 216)][rng.integers(3)], float)
    picture = _flat(base) + 8 * smooth_noise(rng, 14, 10)[..., None]
    side, x, y = int(rng.integers(120, 190)), int(rng.integers(120)), int(rng.integers(120))
    for line in range(x, WIDTH_PX, side):
        picture[:, line : line + 3] *= 0.75
    for line in range(y, HEIGHT_PX, side):
        picture[line : line + 3] *= 0.75
    return picture


def _sheet(rng: np.random.Generator) -> Picture:
    tones = [
        (224, 222, 226),
        (196, 66, 44),
        (120, 36, 84),
        (196, 180, 150),
        (90, 106, 140),
        (70, 104, 84),
    ]
    rgb = np.array(tones[rng.integers(len(tones))], float)
    relief = cv2.GaussianBlur(smooth_noise(rng, 7, 6) + 0.5 * smooth_noise(rng, 20, 5), (0, 0), 6)
    slope = cv2.Sobel(relief, cv2.CV_32F, 1, 1, ksize=5)
    slope /= np.abs(slope).max() + 1e-6
    return _flat(rgb) * (1 + 0.22 * slope + 0.06 * relief)[..., None]


def _carpet(rng: np.random.Generator) -> Picture:
    rgb = np.array([(188, 176, 158), (128, 122, 120), (170, 182, 180)][rng.integers(3)], float)
    tufts = cv2.GaussianBlur(
        rng.normal(0, 1, (HEIGHT_PX, WIDTH_PX)).astype(np.float32), (0, 0), 1.6
    )
    return _flat(rgb) + 90 * tufts[..., None] + 6 * smooth_noise(rng, 8, 6)[..., None]


def _wall(rng: np.random.Generator) -> Picture:
    rgb = np.array(
        [(228, 224, 216), (206, 208, 206), (214, 200, 182), (186, 196, 204)][rng.integers(4)], float
    )
    side = np.linspace(1.04, rng.uniform(0.78, 0.95), WIDTH_PX, dtype=np.float32)[None, :, None]
    picture = _flat(rgb) * side + 3 * smooth_noise(rng, 40, 30)[..., None]
    if rng.random() < 0.5:
        floor_y = int(rng.integers(470, 515))
        picture[floor_y:] *= 0.72
        picture[floor_y : floor_y + 5] = 240
    return picture


BACKGROUNDS: dict[str, Callable[[np.random.Generator], Picture]] = {
    "studio": _studio,
    "paper": _paper,
    "wood": _wood,
    "tiles": _tiles,
    "sheet": _sheet,
    "carpet": _carpet,
    "wall": _wall,
}
