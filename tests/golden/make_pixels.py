"""Write golden pixels: `python -m tests.golden.make_pixels`, only when PREPROCESSING_VERSION rises."""

from pathlib import Path

import numpy as np

from dedup_job.kernels.images import PREPROCESSING_VERSION, prepare
from tests.photos import draw_photo, encode

HERE = Path(__file__).parent
SIZE_PX, BLUR_SIGMA_PX = 48, 0.5


def golden_files() -> dict[str, bytes]:
    """Encoded pictures that every version must prepare alike; kept as files, never re-encoded."""
    return {
        "portrait.jpg": encode(draw_photo(11, 300, 400)),
        "large.jpg": encode(draw_photo(12, 900, 700), quality=85),
        "picture.png": encode(draw_photo(13, 90, 60), ".png"),
        "picture.webp": encode(draw_photo(14, 64, 64), ".webp"),
    }


def main() -> None:
    pixels = {}
    for name, data in golden_files().items():
        (HERE / name).write_bytes(data)
        pixels[name] = prepare(data, SIZE_PX, BLUR_SIGMA_PX).pixels
    np.savez_compressed(HERE / f"pixels-v{PREPROCESSING_VERSION}.npz", **pixels)


if __name__ == "__main__":
    main()
