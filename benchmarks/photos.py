"""Photos for benchmarks: any folder's photos, re-encoded until there are enough distinct files."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from dedup_job.errors import ImageRejected
from dedup_job.kernels.images import decode

_RECIPE = "2"  # raise it when the files below come out differently
_SUFFIXES = {".jpg", ".jpeg", ".png"}


def write_distinct_photos(
    source: Path, work: Path, n_photos: int, size: tuple[int, int] = (400, 533), seed: int = 0
) -> list[Path]:
    """Write `n_photos` byte-distinct JPEG files; kept between runs.

    Args:
        source: folder of photos; files that are no usable photo are passed over.
        work: gets a folder for these photos.
        n_photos: how many.
        size: width and height in pixels.
        seed: of brightness and quality.
    """
    key = hashlib.sha256(f"{source.resolve()} {seed} {_RECIPE}".encode()).hexdigest()[:8]
    target = work / f"{size[0]}x{size[1]}-{n_photos}-{key}"
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{i:06d}.jpg" for i in range(n_photos)]
    if all(path.exists() for path in paths):
        return paths
    originals = _find_photos(source, n_photos)
    rng = np.random.default_rng(seed)
    for i, path in enumerate(paths):
        path.write_bytes(_variant(decode(originals[i % len(originals)].read_bytes()), i, size, rng))
    return paths


def write_varied_photos(
    source: Path, work: Path, n_photos: int, size: tuple[int, int] = (400, 533), seed: int = 0
) -> list[Path]:
    """Write `n_photos` JPEG files that a model takes for different products, mostly; kept between runs.

    Each is a photo's random crop of a quarter to all of its area, mirrored or not, its hues turned.
    Arguments are those of `write_distinct_photos`.
    """
    key = hashlib.sha256(f"varied {source.resolve()} {seed} {_RECIPE}".encode()).hexdigest()[:8]
    target = work / f"varied-{size[0]}x{size[1]}-{key}"
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{i:06d}.jpg" for i in range(n_photos)]
    if paths[-1].exists():  # they are written in order
        return paths
    originals = [
        cv2.resize(decode(path.read_bytes()), (500, 666), interpolation=cv2.INTER_AREA)
        for path in _find_photos(source, n_photos)
    ]
    for i, path in enumerate(paths):
        rng = np.random.default_rng((seed, i))
        path.write_bytes(_variant(_vary(originals[i % len(originals)], rng), i, size, rng))
    return paths


def _vary(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = (int(side * rng.uniform(0.5, 1.0)) for side in rgb.shape[:2])
    top, left = (
        int(rng.integers(a - b + 1)) for a, b in zip(rgb.shape[:2], (height, width), strict=True)
    )
    hsv = cv2.cvtColor(rgb[top : top + height, left : left + width], cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + int(rng.integers(180))) % 180
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return turned[:, ::-1] if rng.random() < 0.5 else turned


def _find_photos(source: Path, n_wanted: int) -> list[Path]:
    found: list[Path] = []
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in _SUFFIXES):
        if len(found) == n_wanted:
            break
        try:
            decode(path.read_bytes())
        except ImageRejected:
            continue
        found.append(path)
    if not found:
        raise SystemExit(f"no photos below {source}; give --photos DIR")
    return found


def _variant(
    rgb: np.ndarray, number: int, size: tuple[int, int], rng: np.random.Generator
) -> bytes:
    """A JPEG of `size` whose brightness, quality and comment make it another file."""
    shown = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.int16)
    shown = np.clip(shown + rng.integers(-6, 7), 0, 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 94))]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), quality)
    data = encoded.tobytes()
    # Brightness and quality repeat sooner or later, a plain photo looks the same under many of
    # them: the number in a JPEG comment (after the start marker) never does.
    comment = f"photo {number}".encode()
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
