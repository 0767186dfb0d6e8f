"""What happens to a photo on its way into a second listing: the edits that make near-duplicates."""

from collections.abc import Callable

import cv2
import numpy as np

from dedup_job.sample.photo import Pixels

Edit = Callable[[Pixels, np.random.Generator], Pixels]


def apply_edits(pixels: Pixels, names: tuple[str, ...], seed: int) -> Pixels:
    """Apply named edits in order: uint8 (h, w, 3) in, uint8 of perhaps another size out."""
    rng = np.random.default_rng([seed, 53])
    for name in names:
        pixels = EDITS[name](pixels, rng)
    return pixels


def _recompress(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 60))]
    data = cv2.imencode(".jpg", pixels, quality)[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _rescale(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    factor = rng.uniform(0.45, 0.8)
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _crop(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    top, bottom = (rng.uniform(0.01, 0.07, 2) * height).astype(int)
    left, right = (rng.uniform(0.01, 0.07, 2) * width).astype(int)
    return np.ascontiguousarray(pixels[top : height - bottom, left : width - right])


def _pad_square(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    white = np.full((side, side, 3), 255, np.uint8)
    white[top : top + height, left : left + width] = pixels
    return white


def _badge(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    width = pixels.shape[1]
    radius = int(width * rng.uniform(0.10, 0.14))
    at = (radius + 8 if rng.random() < 0.5 else width - radius - 8, radius + 8)
    rgb = [(214, 30, 40), (20, 120, 60), (30, 30, 30), (238, 130, 20)][rng.integers(4)]
    marked = cv2.circle(pixels.copy(), at, radius, rgb, -1, cv2.LINE_AA)
    text = ("-20%", "-50%", "NEW", "SALE")[rng.integers(4)]
    scale = radius / 44
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 2)
    start = (at[0] - text_width // 2, at[1] + text_height // 2)
    white = (255, 255, 255)
    return cv2.putText(marked, text, start, cv2.FONT_HERSHEY_DUPLEX, scale, white, 2, cv2.LINE_AA)


def _watermark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    layer = pixels.copy()
    text = ("SHOPFRONT", "RELISTED", "outlet24")[rng.integers(3)]
    white = (255, 255, 255)
    for row in (0.3, 0.62, 0.93):
        at = (int(width * rng.uniform(0.02, 0.3)), int(height * row))
        cv2.putText(layer, text, at, cv2.FONT_HERSHEY_DUPLEX, 1.3, white, 3, cv2.LINE_AA)
    return cv2.addWeighted(layer, 0.38, pixels, 0.62, 0)


def _light(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    gain, gamma = rng.uniform(0.82, 1.12), rng.uniform(0.8, 1.25)
    table = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table)


def _white_balance(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    warmth = rng.choice([-1, 1]) * rng.uniform(0.03, 0.08)
    balance = np.array([1 + warmth, 1, 1 - warmth])
    return np.clip(pixels * balance + 0.5, 0, 255).astype(np.uint8)


def _mirror(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


def _rotate(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    degrees = rng.choice([-1, 1]) * rng.uniform(1.5, 5)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.04)
    return cv2.warpAffine(
        pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


EDITS: dict[str, Edit] = {
    "mirror": _mirror,
    "rotate": _rotate,
    "crop": _crop,
    "rescale": _rescale,
    "light": _light,
    "white_balance": _white_balance,
    "recompress": _recompress,
    "pad_square": _pad_square,
    "watermark": _watermark,
    "badge": _badge,
}
