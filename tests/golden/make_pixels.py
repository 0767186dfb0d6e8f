"""Write golden pixels: `python -m tests.golden.make_pixels`, only when PREPROCESSING_VERSION rises.

Pictures that are there are kept: another encoder would make other files of them.
"""

from pathlib import Path

import numpy as np

from dedup_job.kernels.images import PREPROCESSING_VERSION, prepare
from tests.photos import draw_photo, encode

HERE = Path(__file__).parent
SIZE_PX, BLUR_SIGMA_PX = 48, 0.5


def golden_files() -> dict[str, bytes]:
    """Encoded pictures that every version must prepare alike."""
    from tests.hostile import photos as odd

    *_, turned, _, _ = odd.turned()  # EXIF orientation 6, as most telephones write
    small = odd.PHOTO.resize((60, 80))
    return {
        "portrait.jpg": encode(draw_photo(11, 300, 400)),
        "large.jpg": encode(draw_photo(12, 900, 700), quality=85),
        "picture.png": encode(draw_photo(13, 90, 60), ".png"),
        "picture.webp": encode(draw_photo(14, 64, 64), ".webp"),
        "sixteen_bit_grey.png": odd.sixteen_bit_grey(),
        "cmyk.jpg": odd.saved(odd.PHOTO.convert("CMYK"), "JPEG", quality=90),
        "grey.jpg": odd.saved(odd.PHOTO.convert("L"), "JPEG", quality=90),
        "palette.png": odd.saved(small.quantize(64), "PNG"),
        "hidden_colours.png": odd.with_alpha(100),
        "turned.jpg": turned,
        "animated.gif": odd.animated("GIF"),
        "animated.webp": odd.animated("WEBP"),
        "trailing_bytes.jpg": odd.JPEG + b"<script>" + bytes(64),
        "interlaced.png": odd.interlaced(np.asarray(small)),
    }


def main() -> None:
    pixels = {}
    for name, data in golden_files().items():
        path = HERE / name
        if not path.exists():
            path.write_bytes(data)
        pixels[name] = prepare(path.read_bytes(), SIZE_PX, BLUR_SIGMA_PX).pixels
    np.savez_compressed(HERE / f"pixels-v{PREPROCESSING_VERSION}.npz", **pixels)


if __name__ == "__main__":
    main()
