"""Drawn garments for the tests of `model_training`."""

from pathlib import Path

import cv2
import numpy as np

from model_training.data import Photo, PhotoSet


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


def write_pairs(folder: Path, n_products: int = 80) -> list[str]:
    """Two photos a product, each unlike the next product's: options that name the table."""
    lines = ["image_a,image_b,label"]
    for i in range(n_products):
        photo = draw_garment(i, (80, 60))
        cv2.imwrite(str(folder / f"{i}a.jpg"), photo[:, :, ::-1])
        cv2.imwrite(str(folder / f"{i}b.jpg"), np.roll(photo, 3, axis=1)[:, :, ::-1])
        lines.append(f"{i}a.jpg,{i}b.jpg,1")
        lines.append(f"{i}a.jpg,{(i + 1) % n_products}a.jpg,0")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return ["--pairs", str(folder / "pairs.csv"), "--image-root", str(folder)]


def held_out_garments(folder: Path, n: int = 12) -> PhotoSet:
    """So many held-out garments, a product each."""
    photos = []
    pixels = [draw_garment(i) for i in range(n)]
    for i, rgb in enumerate(pixels):
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), rgb[:, :, ::-1])
        photos.append(Photo(path, "folder", *[f"p{i}"] * 3, held_out=True))
    masks = [np.full(rgb.shape[:2], 255, np.uint8) for rgb in pixels]
    return PhotoSet(photos, pixels, masks, np.ones(n, bool))
