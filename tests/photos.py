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
