"""Self-made hard negatives: the same photo, but the garment is another product.

Every generator is `(rgb, mask, rng, other) -> rgb`: `mask` marks the garment, `other` is a crop of
another photo (for prints and fabrics). What it changes must be visible: clearly above what the light
and white-balance edits do, or the two classes would overlap. `HELD_OUT` never enters training.
"""

import contextlib
from collections.abc import Callable

import cv2
import numpy as np

from dedup_job.kernels.images import Pixels

Generator = Callable[[Pixels, Pixels, np.random.Generator, Pixels], Pixels]
# CIE76 colour difference, mean over the garment. Light and white-balance edits stay near 5 to 12.
MIN_COLOUR_DIFFERENCE = 18.0


def recolour(rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Another colourway: the whole garment, or its main colour only, takes a new colour."""
    lab = _to_lab(rgb)
    soft = _soft(mask) if rng.random() < 0.6 else _main_colour_mask(lab, mask, rng)
    return _to_rgb(_blend(lab, _shift_colour(lab, soft, rng), soft))


def hue_turn(rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Turn the hue of the garment by 25 to 180 degrees; grey garments are recoloured instead."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    soft = _soft(mask)
    if float((hsv[:, :, 1] * soft).sum() / max(soft.sum(), 1.0)) < 70:
        return recolour(rgb, mask, rng, other)
    turned = hsv.copy()
    turned[:, :, 0] = (hsv[:, :, 0].astype(int) + int(rng.integers(13, 168))) % 180
    lab = _to_lab(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB))
    return _to_rgb(_blend(_to_lab(rgb), lab, soft))


def pattern(rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Stripes, checks, dots, zigzag, camouflage or a checkerboard woven into the garment, with its shading kept."""
    lab = _to_lab(rgb)
    soft = _soft(mask)
    woven = _draw_pattern(rgb.shape[:2], _width_of(mask), rng)
    return _to_rgb(_blend(lab, _shift_colour(lab, soft, rng), soft * woven * rng.uniform(0.5, 1.0)))


def print_on(rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """An opaque print on the chest: text, shapes or a picture, shaded like the fabric."""
    art, alpha = _draw_print(rng, other)
    size = int(np.clip(_width_of(mask) * rng.uniform(0.16, 0.5), 14, 140))
    art, alpha = cv2.resize(art, (size, size)), cv2.resize(alpha, (size, size))
    y, x = _place_inside(mask, size, rng)
    layer, where = np.zeros_like(rgb), np.zeros(mask.shape, np.float32)
    h, w = min(size, mask.shape[0] - y), min(size, mask.shape[1] - x)
    layer[y : y + h, x : x + w], where[y : y + h, x : x + w] = art[:h, :w], alpha[:h, :w]
    return _lay_on(rgb, layer, where * _soft(mask), mask)


def fabric(rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Another fabric: a piece of another photo, tiled over the garment."""
    tile = int(np.clip(_width_of(mask) * rng.uniform(0.2, 0.7), 16, 160))
    piece = cv2.resize(other, (tile, tile), interpolation=cv2.INTER_AREA)
    piece = np.hstack([piece, piece[:, ::-1]])
    piece = np.vstack([piece, piece[::-1]])
    height, width = mask.shape
    tiled = np.tile(piece, (height // (2 * tile) + 1, width // (2 * tile) + 1, 1))[:height, :width]
    return _lay_on(rgb, np.ascontiguousarray(tiled), _soft(mask), mask)


def trim(rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """One broad band, side stripe or hem in another colour."""
    lab, soft = _to_lab(rgb), _soft(mask)
    top, bottom, left, right = _box(mask)
    band = np.zeros(mask.shape, np.float32)
    if rng.random() < 0.6:
        at = int(top + (bottom - top) * rng.uniform(0.15, 0.8))
        band[at : at + max(5, int((bottom - top) * rng.uniform(0.08, 0.22)))] = 1
    else:
        at = int(left + (right - left) * rng.uniform(0.1, 0.8))
        band[:, at : at + max(5, int((right - left) * rng.uniform(0.08, 0.22)))] = 1
    return _to_rgb(_blend(lab, _shift_colour(lab, soft, rng), soft * band))


def colour_block(rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """The upper, lower, left or right half of the garment in another colour."""
    lab, soft = _to_lab(rgb), _soft(mask)
    top, bottom, left, right = _box(mask)
    half = np.zeros(mask.shape, np.float32)
    cut_y = int(top + (bottom - top) * rng.uniform(0.35, 0.65))
    cut_x = int(left + (right - left) * rng.uniform(0.35, 0.65))
    side = rng.integers(0, 4)
    rows = slice(0, cut_y) if side == 0 else slice(cut_y, None) if side == 1 else slice(None)
    columns = slice(0, cut_x) if side == 2 else slice(cut_x, None) if side == 3 else slice(None)
    half[rows, columns] = 1
    return _to_rgb(_blend(lab, _shift_colour(lab, soft, rng), soft * half))


GENERATORS: dict[str, Generator] = {
    g.__name__: g for g in (recolour, hue_turn, pattern, print_on, fabric, trim, colour_block)
}
HELD_OUT = frozenset({"colour_block"})
# Prints and trims come most often: small, and so the last to be told apart.
_SHARES = {
    "recolour": 0.22,
    "hue_turn": 0.09,
    "pattern": 0.22,
    "print_on": 0.34,
    "fabric": 0.04,
    "trim": 0.09,
}


def make_look_alike(
    rgb: Pixels, mask: Pixels, rng: np.random.Generator, other: Pixels, kind: str | None = None
) -> tuple[Pixels, str]:
    """Turn the garment into another product.

    Args:
        rgb: uint8 (height, width, 3).
        mask: uint8 (height, width), 255 on the garment.
        rng: source of every choice.
        other: uint8 crop of another photo, at least 8 pixels a side.
        kind: key of `GENERATORS`; None draws one of those used in training.

    Returns:
        The new photo and the generator's name. The change is at least visible: a weaker draw is
        repeated, and after five draws the photo is recoloured by an extreme colour.
    """
    for _ in range(5):
        name = kind or str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
        made = GENERATORS[name](rgb, mask, rng, other)
        if visible_change(rgb, made) >= 1.0:
            return made, name
    return _force_change(rgb, mask), kind or "recolour"


def visible_change(before: Pixels, after: Pixels) -> float:
    """How visible a change is, 1 = just enough.

    The share of the photo that moved by more than 15 CIE76 units, against 1.2 %.
    """
    small = [cv2.resize(x, (64, 64), interpolation=cv2.INTER_AREA) for x in (before, after)]
    moved = np.linalg.norm(_to_lab(small[0]) - _to_lab(small[1]), axis=2) > 15
    return float(moved.mean() / 0.012)


def find_garment(rgb: Pixels) -> tuple[Pixels, bool]:
    """Mark the garment by GrabCut from a centre prior.

    Args:
        rgb: uint8 (height, width, 3).

    Returns:
        Mask uint8 (height, width) of 0 and 255, and whether it is good enough to cut the garment
        out. A mask that fails becomes an ellipse in the centre.
    """
    height, width = rgb.shape[:2]
    scale = 112 / max(height, width)
    small = cv2.resize(
        rgb,
        (max(8, round(width * scale)), max(8, round(height * scale))),
        interpolation=cv2.INTER_AREA,
    )
    seed = _centre_prior(small)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    # GrabCut starts from k-means, whose random numbers go on from OpenCV's last call.
    cv2.setRNGSeed(0)
    with contextlib.suppress(cv2.error):  # a photo of one colour has no foreground
        cv2.grabCut(
            small[:, :, ::-1].copy(), seed, None, background, foreground, 4, cv2.GC_INIT_WITH_MASK
        )
    found = np.where((seed == cv2.GC_FGD) | (seed == cv2.GC_PR_FGD), 255, 0).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    found, ok = _largest_part(found)
    if not ok:
        found = np.zeros(small.shape[:2], np.uint8)
        centre = (small.shape[1] // 2, small.shape[0] // 2)
        cv2.ellipse(found, centre, (small.shape[1] // 3, small.shape[0] // 3), 0, 0, 360, 255, -1)
    big = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(big > 127, 255, 0).astype(np.uint8), ok


def _centre_prior(small: Pixels) -> Pixels:
    height, width = small.shape[:2]
    seed = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    seed[int(height * 0.12) : int(height * 0.9), int(width * 0.12) : int(width * 0.88)] = (
        cv2.GC_PR_FGD
    )
    seed[int(height * 0.42) : int(height * 0.6), int(width * 0.42) : int(width * 0.58)] = cv2.GC_FGD
    edge = 3
    seed[:edge], seed[:, :edge], seed[:, -edge:] = cv2.GC_BGD, cv2.GC_BGD, cv2.GC_BGD
    white = (small.min(axis=2) > 246).astype(np.uint8)
    seed[cv2.erode(white, np.ones((3, 3), np.uint8)) > 0] = cv2.GC_BGD
    return seed


def _largest_part(found: Pixels) -> tuple[Pixels, bool]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found)
    if count < 2:
        return found, False
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    keep = np.isin(labels, np.flatnonzero(areas >= 0.2 * areas.max()))
    share = float(keep.mean())
    return np.where(keep, 255, 0).astype(np.uint8), 0.08 <= share <= 0.8


def _shift_colour(lab: np.ndarray, soft: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The photo as if the garment had another colour; float32 (h, w, 3) Lab, shading kept."""
    total = max(float(soft.sum()), 1.0)
    mean = (lab * soft[:, :, None]).sum(axis=(0, 1)) / total
    target = _draw_colour(mean, rng)
    out = lab.copy()
    base, goal = np.clip(mean[0], 4, 96) / 100, np.clip(target[0], 6, 96) / 100
    power = np.clip(np.log(goal) / np.log(base), 0.2, 5.0)
    out[:, :, 0] = 100 * np.clip(lab[:, :, 0] / 100, 1e-3, 1) ** power
    keep = rng.uniform(0.3, 1.0)
    out[:, :, 1:] = (lab[:, :, 1:] - mean[1:]) * keep + target[1:]
    return out


def _draw_colour(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    target = np.array([60.0, 0.0, 0.0])
    for _ in range(20):
        if rng.random() < 0.25:  # blacks, greys and whites are the most common colourways
            target = np.array([rng.uniform(8, 95), rng.uniform(-4, 4), rng.uniform(-6, 6)])
        else:
            target = _to_lab(rng.integers(0, 256, (1, 1, 3)).astype(np.uint8))[0, 0].astype(
                np.float64
            )
        apart = target - mean
        chroma = float(np.hypot(apart[1], apart[2]))
        if np.linalg.norm(apart) >= MIN_COLOUR_DIFFERENCE and (chroma >= 12 or abs(apart[0]) >= 24):
            break
    return target


def _main_colour_mask(lab: np.ndarray, mask: Pixels, rng: np.random.Generator) -> np.ndarray:
    inside = lab[mask > 0]
    if len(inside) < 50:
        return _soft(mask)
    middle = np.median(inside, axis=0)
    near = np.linalg.norm(lab - middle, axis=2) < rng.uniform(22, 38)
    soft: np.ndarray = cv2.GaussianBlur((near & (mask > 0)).astype(np.float32), (0, 0), 1.0)
    return soft


def _draw_pattern(shape: tuple[int, int], garment_px: int, rng: np.random.Generator) -> np.ndarray:
    height, width = shape
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.choice([0, np.pi / 2, np.pi / 4, rng.uniform(0, np.pi)]) + rng.normal(0, 0.05)
    u, v = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    period = max(5.0, garment_px * rng.uniform(0.035, 0.28))
    duty = rng.uniform(0.25, 0.6)
    a, b = (u / period) % 1, (v / period) % 1
    kind = rng.integers(0, 7)
    if kind == 0:
        drawn = a < duty
    elif kind == 1:
        drawn = (0.5 * (a < duty) + 0.5 * (b < duty)).astype(np.float32)
    elif kind == 2:
        drawn = np.hypot(a - 0.5, b - 0.5) < duty * 0.6
    elif kind == 3:
        drawn = ((v / period + np.abs((u / period) % 2 - 1)) % 1) < duty
    elif kind == 4:
        cells = (max(2, int(height / period)), max(2, int(width / period)))
        blobs = cv2.resize(
            rng.random(cells).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        drawn = blobs > 1 - duty
    elif kind == 5:  # checkerboard
        drawn = (a < 0.5) ^ (b < 0.5)
    else:  # dots in rows of which every second is shifted by half a period
        shifted = (a + 0.5 * (np.floor(v / period) % 2)) % 1
        drawn = np.hypot(shifted - 0.5, b - 0.5) < duty * 0.6
    soft: np.ndarray = cv2.GaussianBlur(np.asarray(drawn, np.float32), (0, 0), 0.7)
    return soft


def _draw_print(rng: np.random.Generator, other: Pixels) -> tuple[Pixels, np.ndarray]:
    """A square print: uint8 (96, 96, 3) and its alpha float32 (96, 96)."""
    art = np.full((96, 96, 3), rng.integers(0, 256, 3), np.uint8)
    alpha = np.zeros((96, 96), np.uint8)
    kind = rng.random()
    if kind < 0.35:
        art = cv2.resize(other, (96, 96), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            cv2.circle(alpha, (48, 48), 46, 255, -1)
        else:
            alpha[:] = 255
    elif kind < 0.65:
        for line in range(int(rng.integers(1, 4))):
            text = "".join(chr(65 + int(c)) for c in rng.integers(0, 26, int(rng.integers(2, 7))))
            size = 96 / max(24 * len(text), 60) * 1.2
            cv2.putText(
                alpha,
                text,
                (2, 36 + 27 * line),
                int(rng.integers(0, 5)),
                size,
                255,
                int(rng.integers(2, 6)),
                cv2.LINE_AA,
            )
    else:
        for _ in range(int(rng.integers(1, 5))):
            colour = tuple(int(c) for c in rng.integers(0, 256, 3))
            points = rng.integers(4, 92, (int(rng.integers(3, 8)), 2)).astype(np.int32)
            if rng.random() < 0.5:
                points = cv2.convexHull(points)
            cv2.fillPoly(art, [points], colour)
            cv2.fillPoly(alpha, [points], 255)
    return art, alpha.astype(np.float32) / 255


def _place_inside(mask: Pixels, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top left corner of a square that lies mostly on the garment."""
    top, bottom, left, right = _box(mask)
    cover = cv2.boxFilter(
        mask.astype(np.float32) / 255, -1, (size, size), borderType=cv2.BORDER_CONSTANT
    )
    best, spot = -1.0, (top, left)
    for _ in range(12):
        y = int(
            np.clip(
                rng.normal((top * 0.6 + bottom * 0.4), (bottom - top) * 0.13), 0, mask.shape[0] - 1
            )
        )
        x = int(
            np.clip(rng.normal((left + right) / 2, (right - left) * 0.13), 0, mask.shape[1] - 1)
        )
        if cover[y, x] > best:
            best, spot = float(cover[y, x]), (y, x)
        if best > 0.9:
            break
    return max(0, spot[0] - size // 2), max(0, spot[1] - size // 2)


def _lay_on(rgb: Pixels, layer: Pixels, alpha: np.ndarray, mask: Pixels) -> Pixels:
    """Blend a layer onto the garment, darkened and lightened by the garment's own folds."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), 2.0)
    middle = float(np.median(smooth[mask > 0])) if (mask > 0).any() else 128.0
    shading = np.clip((smooth + 40) / (middle + 40), 0.5, 1.4)[:, :, None]
    laid = np.clip(layer * shading, 0, 255)
    return np.clip(np.rint(rgb + (laid - rgb) * alpha[:, :, None]), 0, 255).astype(np.uint8)


def _force_change(rgb: Pixels, mask: Pixels) -> Pixels:
    lab, soft = _to_lab(rgb), _soft(mask)
    mean = (lab * soft[:, :, None]).sum(axis=(0, 1)) / max(float(soft.sum()), 1.0)
    moved = lab.copy()
    moved[:, :, 0] = np.clip(lab[:, :, 0] + (35 if mean[0] < 50 else -35), 0, 100)
    moved[:, :, 1] = lab[:, :, 1] + (45 if mean[1] < 10 else -45)
    return _to_rgb(_blend(lab, moved, soft))


def _box(mask: Pixels) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return 0, mask.shape[0], 0, mask.shape[1]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _width_of(mask: Pixels) -> int:
    _, _, left, right = _box(mask)
    return right - left


def _soft(mask: Pixels) -> np.ndarray:
    soft: np.ndarray = cv2.GaussianBlur(mask, (0, 0), 1.2).astype(np.float32) / 255
    return soft


def _blend(before: np.ndarray, after: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return before + (after - before) * alpha[:, :, None]


def _to_lab(rgb: Pixels) -> np.ndarray:
    """uint8 RGB to float32 CIE Lab: L 0..100, a and b about -127..127."""
    lab: np.ndarray = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab


def _to_rgb(lab: np.ndarray) -> Pixels:
    rgb = cv2.cvtColor(np.ascontiguousarray(lab, dtype=np.float32), cv2.COLOR_LAB2RGB)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
