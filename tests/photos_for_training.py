"""Drawn garments for the tests of `model_training`."""

import cv2
import numpy as np


def draw_garment(seed: int, shape: tuple[int, int] = (224, 168)) -> np.ndarray:
    """A shirt on a plain ground: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    height, width = shape
    rgb = np.full((height, width, 3), rng.integers(200, 256, 3), np.uint8)
    body = np.array(
        [[0.3, 0.15], [0.7, 0.15], [0.92, 0.42], [0.78, 0.5], [0.74, 0.44],
         [0.74, 0.88], [0.26, 0.88], [0.26, 0.44], [0.22, 0.5], [0.08, 0.42]]
    )  # fmt: skip
    hsv = np.array([[[rng.integers(0, 180), 190, 170]]], np.uint8)
    colour = tuple(int(c) for c in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0])
    cv2.fillPoly(rgb, [np.rint(body * (width, height)).astype(np.int32)], colour)
    for _ in range(int(rng.integers(0, 3))):
        x, y = int(width * rng.uniform(0.3, 0.6)), int(height * rng.uniform(0.25, 0.7))
        trim = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.rectangle(rgb, (x, y), (x + width // 10, y + height // 12), trim, -1)
    noise = rng.normal(0, 4, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)
