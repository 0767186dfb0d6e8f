"""Photos for benchmarks: any folder's photos, re-encoded until there are enough distinct files."""

from pathlib import Path

import cv2
import numpy as np

from dedup_job.kernels.images import decode


def write_distinct_photos(
    source: Path, target: Path, n_photos: int, size: tuple[int, int] = (400, 533), seed: int = 0
) -> list[Path]:
    """Write `n_photos` byte-distinct JPEG files of `size` (width, height); kept between runs."""
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{i:06d}.jpg" for i in range(n_photos)]
    if all(path.exists() for path in paths[-1:]):
        return paths
    originals = sorted(
        p for p in source.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"}
    )
    if not originals:
        raise SystemExit(f"no photos below {source}; give --photos DIR")
    rng = np.random.default_rng(seed)
    for i, path in enumerate(paths):
        rgb = decode(originals[i % len(originals)].read_bytes())
        shown = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.int16)
        # a faint brightness change makes the files, and the embeddings, distinct
        shown = np.clip(shown + rng.integers(-6, 7), 0, 255).astype(np.uint8)
        quality = int(rng.integers(80, 94))
        cv2.imwrite(
            str(path), cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
    return paths
