"""Vectors for benchmarks: real embeddings, resampled to any number, with near-duplicates planted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dedup_job.errors import ImageRejected
from dedup_job.kernels.images import prepare
from dedup_job.kernels.model import Vectors, load_embedder

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
# How far a resampled vector lies from the real one, as a share of its length: cosines of .80 to .92
# between two of one photo, as between photos of like garments.
_NOISE = (0.3, 0.5)
PLANTED_SHARE = 0.2
_BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class Planted:
    """`vectors`: float32 (n, d) unit rows; the last of them are near-duplicates of the first."""

    vectors: Vectors
    n_planted: int


def embed_folder(photos: Path, bundle: Path, cache: Path) -> Vectors:
    """Embeddings of all photos below a folder, kept in `cache`: float32 (n, d)."""
    if cache.exists():
        return np.load(cache)
    embedder = load_embedder(bundle)
    size_px, blur = embedder.manifest.input_px, embedder.manifest.blur_sigma_px
    rows = []
    for path in sorted(p for p in photos.rglob("*") if p.suffix.lower() in _SUFFIXES):
        try:
            rows.append(prepare(path.read_bytes(), size_px, blur).pixels)
        except ImageRejected:
            continue
    if not rows:
        raise SystemExit(f"no photos below {photos}; give --photos DIR")
    vectors = embedder.embed(np.stack(rows))
    np.save(cache, vectors)
    return vectors


def resample(base: Vectors, n: int, threshold: float, seed: int = 0) -> Planted:
    """`n` vectors around real ones; a fifth of them has a twin `threshold` to `threshold` + .03 away.

    Args:
        base: float32 (m, d), real embeddings, unit rows.
        n: how many.
        threshold: cosine; twins lie between it and .03 above it, at most .9995.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    n_planted = round(PLANTED_SHARE * n)
    vectors = np.empty((n, base.shape[1]), np.float32)
    for start in range(0, n - n_planted, _BLOCK_ROWS):
        part = slice(start, min(start + _BLOCK_ROWS, n - n_planted))
        near = base[rng.integers(0, len(base), part.stop - part.start)]
        share = rng.uniform(*_NOISE, (len(near), 1)) / np.sqrt(base.shape[1])
        vectors[part] = _unit(near + share * rng.standard_normal(near.shape, np.float32))
    twins = np.arange(n - n_planted, n)
    for start in range(0, n_planted, _BLOCK_ROWS):
        rows = twins[start : start + _BLOCK_ROWS]
        first = vectors[rows - (n - n_planted)]
        cosine = rng.uniform(threshold, min(threshold + 0.03, 0.9995), (len(rows), 1))
        aside = rng.standard_normal(first.shape, np.float32)
        aside = _unit(aside - (aside * first).sum(axis=1, keepdims=True) * first)
        vectors[rows] = _unit(cosine * first + np.sqrt(1 - cosine**2) * aside)
    return Planted(vectors, n_planted)


def _unit(rows: np.ndarray) -> Vectors:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
