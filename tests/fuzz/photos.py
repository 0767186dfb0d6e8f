"""The photo decoder: whatever bytes come, pixels of the promised shape or a reject reason."""

import io
import os
import random
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.kernels import images
from dedup_job.kernels.images import ImageLimits
from tests.e2e.hostile import hostile_files
from tests.fuzz.mutate import below, magic_number, mutate, pick
from tests.fuzz.targets import expect
from tests.photos import draw_photo, jpeg

ROOT = Path(__file__).parents[2]
SIZE_PX = 64
BLUR_SIGMA_PX = 1.0
_LONGEST_SEED = 20_000
_REASONS = list(RejectReason)
ALLOWED = set(
    _REASONS[_REASONS.index(RejectReason.EMPTY_FILE) : _REASONS.index(RejectReason.BAD_ASPECT) + 1]
)
# What `measure` tells, `prepare` tells alike: it is decided by the header.
BY_HEADER = ALLOWED - {RejectReason.TRUNCATED, RejectReason.CORRUPT}
ISOLATED = {
    RejectReason(name)
    for name in ("decoder_crash", "decoder_timeout", "too_much_memory")
    if name in _REASONS
}


def open_target(isolated: bool = False, foreign: bool = True) -> "PhotoTarget":
    """The target.

    Args:
        isolated: decode in a child process (`io/decoding.py`).
        foreign: use the files of `shared/data/robust` too, where they are.
    """
    return PhotoTarget(isolated, foreign)


class PhotoTarget:
    """`prepare` and `measure` of `kernels/images.py`."""

    def __init__(self, isolated: bool, foreign: bool) -> None:
        cv2.setNumThreads(0)
        warnings.simplefilter("ignore")  # Pillow comments on what it reads
        self._own = own_seeds()
        self._foreign = foreign_seeds() if foreign else []
        self._prepare, self._measure = _plain_prepare, images.measure
        self._allowed = ALLOWED
        if isolated:
            from dedup_job.io.decoding import open_decoder

            decoder = open_decoder(ImageLimits(), 10.0, 2048, SIZE_PX, BLUR_SIGMA_PX)
            self._prepare, self._measure = decoder.prepare, decoder.measure
            self._allowed = ALLOWED | ISOLATED

    def corpus(self) -> list[bytes]:
        return [*self._own, *self._foreign]

    def make(self, rng: random.Random) -> bytes:
        seed = self._pick_seed(rng)
        kind = rng.random()
        if kind < 0.02:
            return seed
        if kind < 0.45:
            seed = edit_structure(rng, seed)
            if kind < 0.35:
                return seed
        return mutate(rng, seed, self._pick_seed(rng))

    def run(self, case: bytes) -> str:
        measured = self._told(self._measure, case)
        prepared = self._told(self._prepare, case)
        if isinstance(measured, RejectReason):
            expect(prepared == measured, f"measure says {measured}, prepare {prepared}")
        if isinstance(prepared, RejectReason):
            is_alike = prepared not in BY_HEADER or prepared == measured
            expect(is_alike, f"prepare says {prepared}, measure {measured}")
            return prepared
        pixels = prepared.pixels
        expect(measured == (prepared.width, prepared.height), f"measured {measured}")
        expect(pixels.shape == (SIZE_PX, SIZE_PX, 3), f"shape {pixels.shape}")
        expect(pixels.dtype == np.uint8 and pixels.flags.c_contiguous, "not contiguous uint8")
        limits = ImageLimits()
        shorter, longer = sorted(measured)
        expect(longer <= limits.max_side_px, f"side of {longer} px")
        expect(shorter >= limits.min_side_px, f"side of {shorter} px")
        expect(shorter * longer <= limits.max_pixels, f"{shorter * longer} pixels")
        if zlib.crc32(case) % 8 == 0:
            again = self._told(self._prepare, case)
            is_equal = not isinstance(again, RejectReason) and np.array_equal(again.pixels, pixels)
            expect(is_equal, "equal bytes, other pixels")
        return "ok"

    def _pick_seed(self, rng: random.Random) -> bytes:
        is_foreign = rng.random() < 0.4 and self._foreign
        return pick(rng, self._foreign if is_foreign else self._own)

    def _told(self, function, case: bytes):
        """What a function returns, or the reason of its rejection."""
        try:
            return function(case)
        except ImageRejected as rejected:
            expect(rejected.reason in self._allowed, f"reason {rejected.reason}")
            is_line = not any(unicodedata.category(c) in ("Cc", "Cs") for c in rejected.detail)
            expect(is_line and 0 < len(rejected.detail) <= 300, f"detail {rejected.detail!r}")
            return rejected.reason


def _plain_prepare(case: bytes) -> images.Prepared:
    return images.prepare(case, SIZE_PX, BLUR_SIGMA_PX)


# Seeds


@cache
def own_seeds() -> list[bytes]:
    """Small photos of every allowed format and mode, and odd and broken ones."""
    seeds = [*_drawn_jpegs(), *_drawn_pngs(), *_drawn_webps(), *_drawn_gifs(), *_drawn_bmps()]
    seeds += [data for data in hostile_files().values() if data]
    golden = sorted((ROOT / "tests/golden").iterdir())
    seeds += [path.read_bytes() for path in golden if path.suffix in (".jpg", ".png", ".webp")]
    photo = Image.fromarray(draw_photo(9, 32, 32))
    seeds += [_saved(photo, form) for form in ("TIFF", "ICO", "PPM")]  # refused by format
    return [seed for seed in seeds if len(seed) <= _LONGEST_SEED]


@cache
def foreign_seeds() -> list[bytes]:
    """The small files of shared/data/robust; none where they are absent."""
    folder = Path(os.environ.get("DEDUP_FUZZ_CORPUS", ROOT.parent / "shared/data/robust"))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.read_bytes() for path in paths if 0 < path.stat().st_size <= _LONGEST_SEED]


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _drawn_jpegs() -> Iterator[bytes]:
    photo = Image.fromarray(draw_photo(1, 48, 64))
    yield jpeg(2, 40, 56)
    for subsampling in (0, 1, 2):
        yield _saved(photo, "JPEG", subsampling=subsampling)
    yield _saved(photo, "JPEG", progressive=True)
    yield _saved(photo, "JPEG", optimize=True, comment=b"a comment", icc_profile=bytes(200))
    yield _saved(photo, "JPEG", restart_marker_blocks=2)
    yield _saved(photo.convert("L"), "JPEG")
    yield _saved(photo.convert("CMYK"), "JPEG")
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif[0x010E] = "text"
        yield _saved(photo, "JPEG", exif=exif)


def _drawn_pngs() -> Iterator[bytes]:
    photo = Image.fromarray(draw_photo(3, 40, 30))
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    for image in (photo, alpha, *(photo.convert(mode) for mode in ("1", "L", "P"))):
        yield _saved(image, "PNG")
    yield _saved(alpha.convert("LA"), "PNG")
    yield _saved(photo.convert("P"), "PNG", transparency=3)
    yield _saved(photo, "PNG", transparency=(1, 2, 3))
    grey = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    yield _saved(Image.fromarray(grey), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    yield _saved(photo, "PNG", exif=exif, icc_profile=bytes(100), dpi=(72, 72))
    yield _saved(photo, "PNG", save_all=True, append_images=[photo.rotate(180)])
    yield _interlaced_png()


def _interlaced_png() -> bytes:
    """Adam7, which Pillow does not write: 32 x 32 grey, filter 0, zeros."""
    passes = ((4, 4), (4, 4), (8, 4), (8, 8), (16, 8), (16, 16), (32, 16))  # width, height
    rows = b"".join((b"\0" + bytes(width)) * height for width, height in passes)
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, body) for name, body in chunks)


def _drawn_webps() -> Iterator[bytes]:
    photo = Image.fromarray(draw_photo(4, 48, 40))
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    yield _saved(photo, "WEBP", quality=50)
    yield _saved(photo, "WEBP", lossless=True)
    yield _saved(alpha, "WEBP", quality=50)
    yield _saved(photo, "WEBP", save_all=True, append_images=[photo.rotate(180)], duration=50)


def _drawn_gifs() -> Iterator[bytes]:
    photo = Image.fromarray(draw_photo(5, 40, 40)).convert("P")
    yield _saved(photo, "GIF", interlace=0)
    yield _saved(photo, "GIF", interlace=1, transparency=0)
    yield _saved(photo, "GIF", save_all=True, append_images=[photo.rotate(180)], comment=b"c")


def _drawn_bmps() -> Iterator[bytes]:
    photo = Image.fromarray(draw_photo(6, 24, 20))
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield _saved(photo.convert(mode), "BMP")
    # RLE8, which Pillow does not write: 16 x 16 in runs of one colour.
    rows = (bytes([16, 7]) + b"\0\0") * 16 + b"\0\1"
    palette = bytes(range(256)) * 4
    header = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, 1, len(rows), 0, 0, 256, 0)
    offset = 14 + len(header) + len(palette)
    yield struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset) + header + palette + rows


# Edits that know the format, so that damage gets past checksums and into the fields that matter


def edit_structure(rng: random.Random, data: bytes) -> bytes:
    """Damage one field or part of a photo; unknown formats come back as they are."""
    if data.startswith(b"\x89PNG"):
        return _edit_png(rng, data)
    if data.startswith(b"\xff\xd8"):
        return _edit_jpeg(rng, data)
    if data.startswith(b"RIFF"):
        return _edit_riff(rng, data)
    if data.startswith((b"GIF8", b"BM")):
        return _edit_head(rng, data)
    return data


def _png_chunk(name: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + crc


def _edit_png(rng: random.Random, data: bytes) -> bytes:
    chunks = list(_png_chunks(data))
    if not chunks:
        return data
    at = below(rng, len(chunks))
    name, body = chunks[at]
    what = below(rng, 7)
    if what == 0:
        body = mutate(rng, body, body)
    elif what == 1:
        start = below(rng, len(body))
        body = body[:start] + magic_number(rng, 4, "big") + body[start + 4 :]
    elif what == 2:
        name = pick(rng, (b"IDAT", b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"eXIf", b"fcTL", b"acTL"))
    elif what == 3:
        chunks.insert(below(rng, len(chunks)), (name, body))
    elif what == 4:
        del chunks[at]
        at = -1
    elif what == 5:
        body = _edit_deflated(rng, name, body)
    else:
        chunks[0] = (b"IHDR", _odd_png_header(rng, chunks[0][1]))
        at = -1
    if at >= 0:
        chunks[at] = (name, body)
    edited = data[:8] + b"".join(_png_chunk(*chunk) for chunk in chunks)
    if rng.random() < 0.1:  # a length that lies
        edited = edited[:8] + magic_number(rng, 4, "big") + edited[12:]
    return edited


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def _edit_deflated(rng: random.Random, name: bytes, body: bytes) -> bytes:
    """Damage what is inside a compressed chunk, or make it end early or late."""
    if name != b"IDAT":
        return body
    try:
        rows = zlib.decompressobj().decompress(body, 1 << 20)
    except zlib.error:
        return body
    return zlib.compress(mutate(rng, rows, rows), 1)


def _odd_png_header(rng: random.Random, header: bytes) -> bytes:
    if len(header) != 13:
        return header
    width, height, depth, colour, deflate, row_filter, interlace = struct.unpack(">IIBBBBB", header)
    sides = (0, 1, 15, 16, 17, 255, 1000, 20_000, 20_001, 0x7FFFFFFF, 0xFFFFFFFF)
    width, height = (pick(rng, (side, pick(rng, sides))) for side in (width, height))
    depth = pick(rng, (depth, 1, 2, 4, 8, 16, 3, 255))
    colour = pick(rng, (colour, 0, 2, 3, 4, 6, 7))
    interlace = pick(rng, (interlace, interlace ^ 1, 2))
    return struct.pack(">IIBBBBB", width, height, depth, colour, deflate, row_filter, interlace)


def _edit_jpeg(rng: random.Random, data: bytes) -> bytes:
    segments = list(_jpeg_segments(data))
    if not segments:
        return data
    start, end = pick(rng, segments)
    segment = data[start:end]
    what = below(rng, 6)
    if what == 0:
        segment = segment[:2] + magic_number(rng, 2, "big") + segment[4:]
    elif what == 1:
        segment = segment[:4] + mutate(rng, segment[4:], segment[4:])
    elif what == 2:
        segment = segment * 2
    elif what == 3:
        segment = b""
    elif what == 4:
        segment = segment[:1] + bytes([0xC0 + below(rng, 64)]) + segment[2:]
    else:
        return _edit_jpeg_frame(rng, data, segments)
    return data[:start] + segment + data[end:]


def _edit_jpeg_frame(rng: random.Random, data: bytes, segments: list[tuple[int, int]]) -> bytes:
    """Other sides, precision, numbers of components or sampling factors."""
    for start, end in segments:
        if data[start + 1] in (0xC0, 0xC1, 0xC2) and end - start >= 13:
            frame = bytearray(data[start:end])
            at = 4 + below(rng, len(frame) - 4)
            if rng.random() < 0.5:
                sides = (0, 1, 15, 16, 17, 255, 1000, 20_000, 65_535)
                struct.pack_into(">H", frame, pick(rng, (5, 7)), pick(rng, sides))
            else:
                frame[at] = pick(rng, (0, 1, 2, 3, 4, 8, 12, 0x11, 0x22, 0x41, 0x44, 0xFF))
            return data[:start] + bytes(frame) + data[end:]
    return data


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
        yield position, min(end, len(data))
        if data[position + 1] == 0xDA:
            return
        position = end


def _edit_riff(rng: random.Random, data: bytes) -> bytes:
    starts, position = [], 12
    while position + 8 <= len(data):
        starts.append(position)
        position += 8 + (struct.unpack_from("<I", data, position + 4)[0] + 1) // 2 * 2
    if not starts:
        return data
    edited = bytearray(data)
    start = pick(rng, starts)
    what = below(rng, 4)
    if what == 0:
        edited[start + 4 : start + 8] = magic_number(rng, 4, "little")
    elif what == 1:
        edited[start : start + 4] = pick(
            rng, (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANMF", b"EXIF")
        )
    elif what == 2:
        edited[4:8] = magic_number(rng, 4, "little")
    else:
        at = start + 8 + below(rng, 20)
        edited[at : at + 1] = bytes([below(rng, 256)])
    return bytes(edited)


def _edit_head(rng: random.Random, data: bytes) -> bytes:
    """A number in the first bytes, where GIF and BMP keep their sizes and counts."""
    edited = bytearray(data)
    n_bytes = pick(rng, (1, 2, 4))
    at = below(rng, 54)
    small = below(rng, 70_000) & (256**n_bytes - 1)
    new = small.to_bytes(n_bytes, "little")
    edited[at : at + n_bytes] = new if rng.random() < 0.5 else magic_number(rng, n_bytes, "little")
    return bytes(edited)
