"""Photos decoded, made small and their garments found once; later commands read them from a file."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dedup_job.errors import ConfigError, ImageRejected
from dedup_job.kernels.images import Pixels, decode
from model_training.look_alikes import find_garment
from model_training.processes import open_pool

CACHE_SIDE_PX = 224
_CACHE_VERSION = 2


def read_decoded(
    paths: list[Path], data_sha256: str, cache_dir: Path
) -> tuple[list[Pixels], list[Pixels], np.ndarray]:
    """Decode all photos and find their garments, or read what an earlier call found.

    Args:
        paths: the photos.
        data_sha256: names their bytes, in order.
        cache_dir: gets one file a data set.

    Returns:
        Pixels, masks, and whether each mask is good: as in `PhotoSet`.

    Raises:
        ConfigError: a photo cannot be decoded, or the cache can neither be read nor written.
    """
    path = cache_dir / f"photos-v{_CACHE_VERSION}-{CACHE_SIDE_PX}px-{data_sha256[:16]}.npz"
    with _naming_the_option(cache_dir):
        there = path.is_file()
    if not there:
        _write(paths, path)
    with _naming_the_option(cache_dir), np.load(path) as cache:
        flat, flat_masks, shapes, good = (cache[k] for k in ("pixels", "masks", "shapes", "good"))
    pixels, masks, at = [], [], 0
    for height, width in shapes:
        n = int(height) * int(width)
        pixels.append(flat[3 * at : 3 * (at + n)].reshape(height, width, 3))
        masks.append(flat_masks[at : at + n].reshape(height, width))
        at += n
    return pixels, masks, good


def _write(paths: list[Path], path: Path) -> None:
    # Two commands that start together write one file each; the last one stays.
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.npz")
    try:
        with _naming_the_option(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.touch()  # before the photos are decoded, which takes long
        rows = _decode(paths)
        with _naming_the_option(path.parent):
            np.savez(
                partial,
                pixels=np.concatenate([rgb.ravel() for rgb, _, _ in rows]),
                masks=np.concatenate([mask.ravel() for _, mask, _ in rows]),
                shapes=np.array([mask.shape for _, mask, _ in rows]),
                good=np.array([good for _, _, good in rows]),
            )
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong was said already
            partial.unlink()


@contextlib.contextmanager
def _naming_the_option(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--cache-dir {cache_dir} cannot be used: {reason}; name a directory that can be written"
        ) from None


def _decode(paths: list[Path]) -> list[tuple[Pixels, Pixels, bool]]:
    with open_pool(2) as pool:
        answers = list(pool.map(_decode_one, paths, chunksize=32))
    rows = []
    for path, answer in zip(paths, answers, strict=True):
        if isinstance(answer, str):
            raise ConfigError(f"training photo {path}: {answer}")
        rows.append(answer)
    return rows


def _decode_one(path: Path) -> tuple[Pixels, Pixels, bool] | str:
    cv2.setNumThreads(1)
    try:
        rgb = decode(path.read_bytes())
    except (ImageRejected, OSError) as error:
        return str(error)
    scale = CACHE_SIDE_PX / max(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    mask, good = find_garment(rgb)
    return rgb, mask, good
