"""Catalog edits: what shops do to a photo without changing the product it shows.

Every edit is `(rgb, rng) -> rgb` on uint8 (height, width, 3). `HELD_OUT` edits never enter training:
the evaluation reports them apart, as a measure of edits nobody thought of. Hue stays stable in every
edit: a colour that moves far is another product (`look_alikes.py`), not an edit.
"""

import string
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from dedup_job.kernels.images import Pixels

Edit = Callable[[Pixels, np.random.Generator], Pixels]


def recompress(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """JPEG at quality 12 to 75."""
    return _jpeg(rgb, int(rng.integers(12, 76)))


def downscale(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """A smaller copy: longer side 48 to 150 pixels."""
    return _resize(rgb, float(rng.uniform(48, 150)) / max(rgb.shape[:2]), rng)


def crop(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Keep 72 to 97 % of each side."""
    height, width = rgb.shape[:2]
    new_h, new_w = int(height * rng.uniform(0.72, 0.97)), int(width * rng.uniform(0.72, 0.97))
    top, left = int(rng.integers(height - new_h + 1)), int(rng.integers(width - new_w + 1))
    return rgb[top : top + new_h, left : left + new_w]


def pad(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Pad to a square or by a margin; white, grey, black, a colour, or the blurred photo."""
    height, width = rgb.shape[:2]
    if rng.random() < 0.6:
        side = round(max(height, width) * rng.uniform(1.0, 1.35))
        target_h, target_w = side, side
    else:
        target_h = round(height * rng.uniform(1.0, 1.5))
        target_w = round(width * rng.uniform(1.0, 1.5))
    y = int((target_h - height) * (0.5 if rng.random() < 0.7 else rng.random()))
    x = int((target_w - width) * (0.5 if rng.random() < 0.7 else rng.random()))
    if rng.random() < 0.12:
        canvas = cv2.blur(cv2.resize(rgb, (target_w, target_h)), (31, 31))
    else:
        canvas = np.full((target_h, target_w, 3), plain_colour(rng), np.uint8)
    canvas[y : y + height, x : x + width] = rgb
    return canvas


def watermark(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Half-transparent text: one line, tiled, or a ring with letters."""
    height, width = rgb.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    style = rng.integers(0, 4)
    if style == 0:
        _put_text(layer, rng, (0.5, rng.uniform(0.2, 0.9)), width * rng.uniform(0.4, 0.95))
    elif style == 1:
        for y in np.arange(0.1, 1.0, rng.uniform(0.18, 0.4)):
            for x in (0.2, 0.75):
                _put_text(layer, rng, (x, y), width * 0.4)
    elif style == 2:
        centre = (int(width * rng.uniform(0.3, 0.7)), int(height * rng.uniform(0.3, 0.7)))
        cv2.circle(layer, centre, int(width * rng.uniform(0.1, 0.3)), 255, int(rng.integers(2, 6)))
        _put_text(layer, rng, (centre[0] / width, centre[1] / height), width * 0.25)
    else:
        _put_text(layer, rng, (rng.uniform(0.2, 0.8), rng.choice([0.05, 0.95])), width * 0.35)
    if rng.random() < 0.4:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-45, 45), 1)
        layer = cv2.warpAffine(layer, turn, (width, height))
    colour = [255, 255, 255] if rng.random() < 0.6 else plain_colour(rng)
    return _blend(
        rgb, np.asarray(colour, np.float32), layer * np.float32(rng.uniform(0.2, 0.65) / 255)
    )


def badge(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """An opaque discount badge along an edge, as often over the garment's rim as beside it; now and then two."""
    out = rgb.copy()
    for _ in range(1 if rng.random() < 0.85 else 2):
        _stick_badge(out, rng)
    return out


def _stick_badge(out: Pixels, rng: np.random.Generator) -> None:
    height, width = out.shape[:2]
    size = int(min(height, width) * rng.uniform(0.13, 0.36))
    # Along one of the edges, up to a quarter of the photo away from it: the middle is where prints are.
    along, depth = rng.random(), rng.uniform(0.0, 0.25)
    depth = depth if rng.random() < 0.5 else 1.0 - depth
    x, y = (along, depth) if rng.random() < 0.65 else (depth, along)
    x = int(np.clip(width * x, size // 2, width - size // 2))
    y = int(np.clip(height * y, size // 2, height - size // 2))
    colour = vivid_colour(rng)
    if rng.random() < 0.4:
        r, g, b = (int(c) for c in rng.integers(0, 256, 3))
        colour = (r, g, b)
    shape = rng.integers(0, 5)
    if shape <= 1:
        cv2.circle(out, (x, y), size // 2, colour, -1, cv2.LINE_AA)
    elif shape == 2:
        cv2.rectangle(
            out, (x - size // 2, y - size // 4), (x + size // 2, y + size // 4), colour, -1
        )
    elif shape == 3:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radius = np.where(np.arange(24) % 2, size * 0.5, size * 0.38)
        star = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
        cv2.fillPoly(out, [star.astype(np.int32)], colour, cv2.LINE_AA)
    else:
        side = int(size * 1.5)
        corner = np.array([[0, 0], [side, 0], [0, side]])
        if rng.random() < 0.5:
            corner = np.array([[width, 0], [width - side, 0], [width, side]])
        cv2.fillPoly(out, [corner.astype(np.int32)], colour, cv2.LINE_AA)
        x, y = (side // 3, side // 3) if corner[0][0] == 0 else (width - side // 3, side // 3)
    off = f"-{rng.integers(5, 90)}%"
    text = (
        off if rng.random() < 0.6 else str(rng.choice(["SALE", "NEW", "30%", "HOT", "ECO", "2+1"]))
    )
    ink = (255, 255, 255) if rng.random() < 0.8 else (0, 0, 0)
    _draw_centred(
        out, text, (x, y), size * rng.uniform(0.55, 0.85), ink, thick=int(rng.integers(1, 4))
    )


def banner(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """A strip with text along the top or bottom, over the photo or added to it."""
    height, width = rgb.shape[:2]
    strip_h = max(8, int(height * rng.uniform(0.07, 0.17)))
    strip = np.full((strip_h, width, 3), vivid_colour(rng), np.uint8)
    _draw_centred(
        strip,
        _words(rng),
        (width // 2, strip_h // 2),
        width * rng.uniform(0.4, 0.9),
        (255, 255, 255),
    )
    top = rng.random() < 0.4
    if rng.random() < 0.3:
        return np.vstack([strip, rgb] if top else [rgb, strip])
    out = rgb.copy()
    where = slice(0, strip_h) if top else slice(height - strip_h, height)
    opacity = rng.uniform(0.6, 1.0)
    out[where] = (out[where] * (1 - opacity) + strip * opacity).astype(np.uint8)
    return out


def frame(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """A border drawn over the photo's edge, sometimes double."""
    out = rgb.copy()
    height, width = rgb.shape[:2]
    thick = max(2, int(min(height, width) * rng.uniform(0.01, 0.06)))
    inset = int(rng.integers(0, 6))
    colour = plain_colour(rng) if rng.random() < 0.5 else vivid_colour(rng)
    cv2.rectangle(out, (inset, inset), (width - 1 - inset, height - 1 - inset), colour, thick)
    return out


def light(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Brightness times .75 to 1.28, contrast .78 to 1.25 about the mean."""
    x = rgb.astype(np.float32)
    mean = x.mean()
    return _to_uint8(((x - mean) * rng.uniform(0.78, 1.25) + mean) * rng.uniform(0.75, 1.28))


def white_balance(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Warmer or cooler: channel gains within about 12 %."""
    warm = rng.uniform(-0.1, 0.1)
    gains = np.array([1 + warm, 1 + rng.uniform(-0.03, 0.03), 1 - warm], np.float32)
    return _to_uint8(rgb * gains)


def gamma(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Gamma .72 to 1.4."""
    table = 255 * (np.arange(256) / 255.0) ** np.exp(rng.uniform(np.log(0.72), np.log(1.4)))
    return cv2.LUT(rgb, np.rint(table).astype(np.uint8))


def saturation(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Saturation times .6 to 1.4; never grey."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    return _to_uint8(grey + (rgb - grey) * rng.uniform(0.6, 1.4))


def blur(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Gaussian, sigma .4 to 1.4 % of 128 pixels; sometimes motion blur."""
    unit = max(rgb.shape[:2]) / 128
    if rng.random() < 0.25:
        length = max(3, int(unit * rng.uniform(2, 5)))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), rng.uniform(0, 180), 1)
        kernel = cv2.warpAffine(kernel, turn, (length, length))
        return cv2.filter2D(rgb, -1, kernel / max(float(kernel.sum()), 1e-6))
    return cv2.GaussianBlur(rgb, (0, 0), unit * rng.uniform(0.4, 1.4))


def sharpen(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Unsharp mask."""
    soft = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.8, 2.5))
    amount = rng.uniform(0.4, 1.6)
    return cv2.addWeighted(rgb, 1 + amount, soft, -amount, 0)


def noise(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Gaussian, standard deviation 4 to 20; or a little salt and pepper."""
    if rng.random() < 0.2:
        out = rgb.copy()
        hit = rng.random(rgb.shape[:2]) < rng.uniform(0.002, 0.02)
        out[hit] = rng.choice([0, 255], size=(int(hit.sum()), 1))
        return out
    sigma = rng.uniform(4, 20)
    shape = rgb.shape if rng.random() < 0.6 else (*rgb.shape[:2], 1)
    return _to_uint8(rgb + rng.standard_normal(shape, dtype=np.float32) * sigma)


def rotate(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Up to 15 degrees; corners white, a colour, repeated, or cropped away."""
    height, width = rgb.shape[:2]
    angle = rng.uniform(1.5, 15) * rng.choice([-1, 1])
    scale = rng.choice([1.0, 1.0 + abs(angle) / 60])
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    return _warp(rgb, turn, rng)


def mirror(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Left-right flip."""
    return np.ascontiguousarray(rgb[:, ::-1])


def aspect(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Stretch one side by up to 1.3."""
    height, width = rgb.shape[:2]
    factor = np.exp(rng.uniform(-0.26, 0.26))
    return cv2.resize(rgb, (max(16, round(width * factor)), height), interpolation=cv2.INTER_AREA)


def perspective(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Move each corner by up to 10 % of the side."""
    height, width = rgb.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + rng.uniform(-0.1, 0.1, (4, 2)).astype(np.float32) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    mode, colour = _edge(rng)
    return cv2.warpPerspective(rgb, matrix, (width, height), borderMode=mode, borderValue=colour)


def shift(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Translate by up to 12 %, the gap filled."""
    height, width = rgb.shape[:2]
    move = np.array(
        [[1, 0, width * rng.uniform(-0.12, 0.12)], [0, 1, height * rng.uniform(-0.12, 0.12)]]
    )
    return _warp(rgb, move, rng)


def zoom_out(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """The photo small on a plain canvas."""
    height, width = rgb.shape[:2]
    side = round(max(height, width) * rng.uniform(1.2, 1.7))
    canvas = np.full((side, side, 3), plain_colour(rng), np.uint8)
    y, x = (side - height) // 2, (side - width) // 2
    canvas[y : y + height, x : x + width] = rgb
    return canvas


def occlude(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """A plain sticker away from the centre, or a logo blob."""
    out = rgb.copy()
    height, width = rgb.shape[:2]
    h, w = int(height * rng.uniform(0.06, 0.18)), int(width * rng.uniform(0.08, 0.25))
    y = int(rng.choice([0.0, 1.0]) * (height - h))
    x = int(rng.random() * (width - w))
    out[y : y + h, x : x + w] = plain_colour(rng)
    _draw_centred(out, _words(rng), (x + w // 2, y + h // 2), w * 0.9, vivid_colour(rng))
    return out


def shadow(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """A soft linear gradient of light across the photo."""
    height, width = rgb.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = (xs / width - 0.5) * np.cos(angle) + (ys / height - 0.5) * np.sin(angle)
    return _to_uint8(rgb * (1 + ramp * rng.uniform(0.2, 0.6)).astype(np.float32)[:, :, None])


def vignette(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Darker corners."""
    height, width = rgb.shape[:2]
    ys, xs = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    fall = 1 - rng.uniform(0.2, 0.5) * (xs**2 + ys**2) / 2
    return _to_uint8(rgb * fall.astype(np.float32)[:, :, None])


def posterize(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Few levels a channel, as a GIF palette gives."""
    step = int(rng.integers(16, 48))
    return (rgb // step * step + step // 2).clip(0, 255).astype(np.uint8)


def collage(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """A detail of the photo inset in a corner, as shops show a fabric."""
    out = rgb.copy()
    height, width = rgb.shape[:2]
    h, w = int(height * 0.28), int(width * 0.28)
    detail = rgb[height // 3 : height // 3 + h, width // 3 : width // 3 + w]
    y, x = (0 if rng.random() < 0.5 else height - h), (0 if rng.random() < 0.5 else width - w)
    out[y : y + h, x : x + w] = detail
    cv2.rectangle(out, (x, y), (x + w - 1, y + h - 1), (255, 255, 255), 2)
    return out


EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        recompress, downscale, crop, pad, watermark, badge, banner, frame, light, white_balance,
        gamma, saturation, blur, sharpen, noise, rotate, mirror, aspect, perspective, shift,
        zoom_out, occlude, shadow, vignette, posterize, collage,
    )
}  # fmt: skip
HELD_OUT = frozenset({"vignette", "posterize", "collage"})
TRAINED = tuple(name for name in EDITS if name not in HELD_OUT)
# Shares of the draws in training: the common edits of catalogs come more often.
_WEIGHTS = {"crop": 2.0, "pad": 1.6, "watermark": 1.8, "badge": 2.6, "mirror": 1.5, "rotate": 1.4,
            "downscale": 1.3, "light": 1.4, "white_balance": 1.4}  # fmt: skip


def compose(
    rgb: Pixels, rng: np.random.Generator, n: int, names: tuple[str, ...] = TRAINED
) -> tuple[Pixels, tuple[str, ...]]:
    """Apply `n` different edits in random order.

    Args:
        rgb: uint8 (height, width, 3).
        rng: source of every choice.
        n: how many edits; 0 returns the photo as it is.
        names: keys of `EDITS` to draw from.

    Returns:
        The edited photo and the names of the edits, in order.
    """
    weights = np.array([_WEIGHTS.get(name, 1.0) for name in names])
    chosen = rng.choice(
        len(names), size=min(n, len(names)), replace=False, p=weights / weights.sum()
    )
    kinds = tuple(names[i] for i in chosen)
    for kind in kinds:
        rgb = EDITS[kind](rgb, rng)
    return rgb, kinds


def cut_out(rgb: Pixels, mask: Pixels, rng: np.random.Generator) -> Pixels:
    """Put the garment on a plain or softly graded background.

    Args:
        rgb: uint8 (height, width, 3).
        mask: uint8 (height, width), 255 on the garment.
        rng: source of every choice.
    """
    soft = cv2.GaussianBlur(mask, (0, 0), 1.5).astype(np.float32)[:, :, None] / 255
    if rng.random() < 0.65:
        ground = np.full(3, rng.integers(235, 256), np.float32)
    else:
        ground = np.asarray(plain_colour(rng), np.float32)
    return _to_uint8(rgb * soft + ground * (1 - soft))


def plain_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A background colour: mostly white, else grey, black, or a pale tint."""
    kind = rng.random()
    if kind < 0.55:
        return (255, 255, 255)
    if kind < 0.75:
        grey = int(rng.integers(170, 256))
        return (grey, grey, grey)
    if kind < 0.85:
        return (0, 0, 0)
    r, g, b = (int(v) for v in rng.integers(150, 256, 3))
    return (r, g, b)


def vivid_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A saturated colour, or black."""
    if rng.random() < 0.15:
        return (10, 10, 10)
    hsv = np.array(
        [[[rng.integers(0, 180), rng.integers(150, 256), rng.integers(130, 256)]]], np.uint8
    )
    r, g, b = (int(v) for v in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0])
    return (r, g, b)


def _jpeg(rgb: Pixels, quality: int) -> Pixels:
    _, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    bgr: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(bgr[:, :, ::-1])


def _resize(rgb: Pixels, scale: float, rng: np.random.Generator) -> Pixels:
    size = (max(16, round(rgb.shape[1] * scale)), max(16, round(rgb.shape[0] * scale)))
    how = [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST]
    return cv2.resize(rgb, size, interpolation=int(rng.choice(how, p=[0.5, 0.25, 0.2, 0.05])))


def _edge(rng: np.random.Generator) -> tuple[int, tuple[int, int, int]]:
    if rng.random() < 0.3:
        return cv2.BORDER_REPLICATE, (0, 0, 0)
    return cv2.BORDER_CONSTANT, plain_colour(rng)


def _warp(rgb: Pixels, matrix: np.ndarray, rng: np.random.Generator) -> Pixels:
    mode, colour = _edge(rng)
    size = (rgb.shape[1], rgb.shape[0])
    return cv2.warpAffine(rgb, matrix, size, borderMode=mode, borderValue=colour)


def _blend(rgb: Pixels, colour: np.ndarray, alpha: np.ndarray) -> Pixels:
    return _to_uint8(rgb * (1 - alpha[:, :, None]) + colour * alpha[:, :, None])


def _to_uint8(x: np.ndarray) -> Pixels:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _words(rng: np.random.Generator) -> str:
    letters = np.array(list(string.ascii_uppercase + string.digits + " "))
    return "".join(rng.choice(letters, size=int(rng.integers(3, 11))))


_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, cv2.FONT_ITALIC,
)  # fmt: skip


def _put_text(
    layer: np.ndarray, rng: np.random.Generator, at: tuple[float, float], width: float
) -> None:
    centre = (int(at[0] * layer.shape[1]), int(at[1] * layer.shape[0]))
    font = int(rng.choice(_FONTS))
    _draw_centred(layer, _words(rng), centre, width, 255, font, int(rng.integers(1, 4)))


def _draw_centred(canvas, text, centre, width, colour, font=cv2.FONT_HERSHEY_DUPLEX, thick=1):
    (base_w, base_h), _ = cv2.getTextSize(text, font, 1.0, thick)
    scale = max(0.2, float(width) / max(base_w, 1))
    x, y = int(centre[0] - base_w * scale / 2), int(centre[1] + base_h * scale / 2)
    cv2.putText(canvas, text, (x, y), font, scale, colour, thick, cv2.LINE_AA)
