"""Broken and odd photo files, made here."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.photos import draw_photo, encode, jpeg

HANDLED = {"cmyk", "sixteen_bit", "animated"}
REASONS = {
    "missing": "not_found",
    "empty": "empty_file",
    "html": "not_image",
    "truncated": "truncated",
    "one_pixel": "too_small",
    "bomb": "too_many_pixels",
    "gone": "not_found",
    "hanging": "timeout",
}


def _png_bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(20_001)) for _ in range(20_000)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def hostile_files() -> dict[str, bytes]:
    photo = Image.fromarray(draw_photo(1, 300, 400))
    frames = [Image.fromarray(draw_photo(seed, 200, 200)) for seed in (2, 3)]
    grey = np.linspace(0, 65535, 200 * 200).reshape(200, 200).astype(np.uint16)
    return {
        "empty.jpg": b"",
        "html.jpg": b"<!DOCTYPE html><title>404</title>",
        "truncated.jpg": jpeg(4, 300, 400)[:4000],
        "cmyk.jpg": _saved(photo.convert("CMYK"), "JPEG"),
        "sixteen_bit.png": _saved(Image.fromarray(grey), "PNG"),
        "animated.gif": _saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "one_pixel.png": encode(draw_photo(1, 1, 1), ".png"),
        "bomb.png": _png_bomb(),
    }
