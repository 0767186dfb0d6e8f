"""Small photos for tests, drawn here: no test needs a file from outside."""

import cv2
import numpy as np


def draw_photo(seed: int, width: int = 120, height: int = 160) -> np.ndarray:
    """uint8 (height, width, 3) RGB: smooth colours that differ by seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(rgb: np.ndarray, extension: str = ".jpg", quality: int = 95) -> bytes:
    """Encode an RGB picture."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == ".jpg" else []
    ok, data = cv2.imencode(extension, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)
    assert ok
    return data.tobytes()


def jpeg(seed: int, width: int = 120, height: int = 160, quality: int = 95) -> bytes:
    """A drawn photo as JPEG bytes."""
    return encode(draw_photo(seed, width, height), quality=quality)


def no_photo_yet(seed: int) -> bytes:
    """The graphic a shop shows for want of a photo, saved anew: other bytes for each seed."""
    rng = np.random.default_rng(seed)
    rgb = np.full((240, 240, 3), 240, np.uint8)
    cv2.rectangle(rgb, (70, 60), (170, 140), (150, 150, 150), 6)
    cv2.circle(rgb, (120, 100), 22, (150, 150, 150), 6)
    cv2.putText(rgb, "coming soon", (45, 190), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (90, 90, 90), 2)
    side = int(rng.integers(180, 320))
    saved = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    saved[tuple(rng.integers(side, size=2))] ^= 1  # the same size and quality may come twice
    return encode(saved, quality=int(rng.integers(50, 97)))
