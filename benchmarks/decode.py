"""Decoding and fitting one photo: at full size, and at the reduced scale that the job uses.

    python -m benchmarks.decode --photos DIR [--n-photos 300] [--out FILE.json]

One process. The reduced scale is JPEG's own (1/2, 1/4, 1/8), taken while the longer side stays at
twice the model's input or more. The difference is that of the model's input, in grey levels of 255.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.photos import write_distinct_photos
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.bundle import read_manifest
from dedup_job.kernels.images import decode, fit, measure

SIZES = [(400, 533), (2000, 2667)]
_ROUNDS = 3


def milliseconds(act, photos: list[bytes]) -> float:
    """Of one photo: the quickest of a few rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for data in photos:
            act(data)
        best = min(best, time.perf_counter() - started)
    return 1000 * best / len(photos)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos to re-encode")
    parser.add_argument("--n-photos", type=int, default=300)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dedup-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    manifest = read_manifest(locate_bundle(""))
    side, blur = manifest.input_px, manifest.blur_sigma_px
    rows = []
    for size in SIZES:
        paths = write_distinct_photos(arguments.photos, arguments.work, arguments.n_photos, size)
        photos = [path.read_bytes() for path in paths]

        def full(data: bytes):
            return fit(decode(data), side, blur)

        def scaled(data: bytes):
            return fit(decode(data, enough_px=2 * side), side, blur)

        off = [np.abs(full(d).astype(int) - scaled(d).astype(int)).mean() for d in photos]
        row = {
            "photos": f"{size[0]}x{size[1]}",
            "kilobytes": sum(map(len, photos)) / len(photos) / 1000,
            "header_ms": milliseconds(measure, photos),
            "full_ms": milliseconds(full, photos),
            "scaled_ms": milliseconds(scaled, photos),
            "mean_difference": float(np.mean(off)),
        }
        rows.append(row)
        print(
            f"{row['photos']:>9}  {row['kilobytes']:6.0f} kB  header {row['header_ms']:.3f} ms  "
            f"full {row['full_ms']:7.3f} ms  scaled {row['scaled_ms']:7.3f} ms  "
            f"{row['full_ms'] / row['scaled_ms']:5.1f} times  difference {row['mean_difference']:.2f}",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
