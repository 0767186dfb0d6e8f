"""Photos a second on one core, int8 (LiteRT) against float32 (Keras), and what verifying a pair costs.

  python -m benchmarks.runtimes --photos DIR [--bundle DIR] [--n 400]

The two networks take turns, so that a noisy machine slows both. Pin it to a core (taskset -c 0).
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.photos import write_varied_photos
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.images import prepare
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.pictures import pack_picture, unpack_picture
from dedup_job.kernels.verifier import describe
from dedup_job.kernels.verifier_model import load_verifier

_ROUNDS = 5


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("/tmp/catalog-dedup-bench"))
    parser.add_argument("--bundle", default="")
    parser.add_argument("--n", type=int, default=400)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    bundle = locate_bundle(options.bundle)
    manifest = load_embedder(bundle).manifest
    paths = write_varied_photos(options.photos, options.work_dir, options.n)
    photos = np.stack(
        [prepare(p.read_bytes(), manifest.input_px, manifest.blur_sigma_px).pixels for p in paths]
    )
    print(json.dumps({**_embedders(bundle, photos), **_verifier(bundle, photos)}, indent=1))


def _embedders(bundle: Path, photos: np.ndarray) -> dict[str, Any]:
    networks = {name: load_embedder(bundle, name) for name in ("litert", "tensorflow")}
    speeds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_ROUNDS):
        for name, network in networks.items():
            seconds = _seconds(lambda network=network: network.embed(photos))  # type: ignore[misc]
            speeds[name].append(len(photos) / seconds)
    ratio = [a / b for a, b in zip(*speeds.values(), strict=True)]
    return {
        "photos_per_s_int8": float(np.median(speeds["litert"])),
        "photos_per_s_float32": float(np.median(speeds["tensorflow"])),
        "ratio": float(np.median(ratio)),
    }


def _verifier(bundle: Path, photos: np.ndarray) -> dict[str, float]:
    verifier = load_verifier(bundle)
    if verifier is None:
        return {}
    pictures = [pack_picture(photo) for photo in photos]
    described = [describe(unpack_picture(picture)) for picture in pictures]
    describing = _seconds(lambda: [describe(unpack_picture(picture)) for picture in pictures])
    pairs = list(pairwise(described))
    looking = _seconds(lambda: [verifier.answer(a, b) for a, b in pairs])
    copies = _seconds(lambda: [verifier.answer(a, a) for a in described])
    return {
        "picture_bytes": float(np.mean([len(picture) for picture in pictures])),
        "ms_to_describe_a_photo": 1000 * describing / len(photos),
        "ms_a_pair_of_strangers": 1000 * looking / len(pairs),
        "ms_a_pair_that_lies_over_itself": 1000 * copies / len(described),
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
