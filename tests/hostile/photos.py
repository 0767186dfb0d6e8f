"""Photos as strangers store them: broken, odd, hostile (RELIABILITY 1.4)."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
from PIL import Image, PngImagePlugin

from dedup_job.errors import ImageRejected
from dedup_job.kernels.images import ImageLimits, decode, prepare
from dedup_job.kernels.model import Embedder
from dedup_job.kernels.validators import Fetched, Validator
from dedup_job.stages.photo_worker import EmbedPhotos, Request
from dedup_job.tables import PHOTO_REQUESTS
from tests.decoders import InProcessDecoder
from tests.e2e.hostile import hostile_files
from tests.hostile.cases import Case
from tests.photos import draw_photo, encode

RGB = draw_photo(21)
PHOTO = Image.fromarray(RGB)
ALIKE_LEVELS = 8.0  # what compression and palettes leave; two photos differ by some 60


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


JPEG, PNG = saved(PHOTO, "JPEG", quality=95), saved(PHOTO, "PNG")
WEBP, GIF = saved(PHOTO, "WEBP", lossless=True), saved(PHOTO.quantize(128), "GIF")


def look(data: bytes, limits: ImageLimits = ImageLimits()) -> str:
    """What the decoder makes of it: the size as displayed, and whether it shows the photo above."""
    try:
        photo = prepare(data, 64, 0.0, limits)
    except ImageRejected as rejected:
        return f"reject: {rejected.reason}"
    distance = np.abs(photo.pixels.astype(int) - prepare(PNG, 64, 0.0).pixels).mean()
    shown = "the photo" if distance < ALIKE_LEVELS else "another picture"
    return f"ok: {shown}, {photo.width}x{photo.height}"


def agree(*pictures: bytes, within_levels: float = 0.0) -> str:
    """Whether all of them come out with the same pixels, or alike where a lossy format stores them."""
    try:
        decoded = [decode(data).astype(int) for data in pictures]
    except ImageRejected as rejected:
        return f"reject: {rejected.reason}"
    if len({picture.shape for picture in decoded}) > 1:
        return "ok: sizes differ"
    worst = max(float(np.abs(picture - decoded[0]).mean()) for picture in decoded)
    if worst > within_levels:
        return f"ok: differ by {worst:.0f} levels"
    return "ok: alike" if within_levels else "ok: the same pixels"


def chunk(name: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + crc


def png_of(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG that says it is of this size, whatever `rows` holds."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """The chunk after the header (8 bytes of signature, 25 of IHDR)."""
    return png[:33] + chunk(name, body) + png[33:]


def flipped(data: bytes) -> bytes:
    damaged = bytearray(data)
    damaged[len(damaged) // 2] ^= 0x10
    return bytes(damaged)


def with_alpha(hidden: int) -> bytes:
    """The photo's middle on transparency that hides a colour."""
    alpha = np.zeros(RGB.shape[:2], np.uint8)
    alpha[40:120, 30:90] = 255
    rgb = RGB.copy()
    rgb[alpha == 0] = hidden
    return saved(Image.fromarray(np.dstack([rgb, alpha])), "PNG")


def alpha_noise() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, RGB.shape, dtype=np.uint8)
    rgba = np.dstack([noise, np.zeros(RGB.shape[:2], np.uint8)])
    return saved(Image.fromarray(rgba), "PNG")


def white() -> bytes:
    return saved(Image.new("RGB", PHOTO.size, "white"), "PNG")


def sixteen_bit_grey() -> bytes:
    grey = np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257
    return saved(Image.fromarray(grey), "PNG")


def sixteen_bit_colour() -> bytes:
    """Written by hand: Pillow writes no 16-bit RGB."""
    wide = (RGB.astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\x00" + row.tobytes() for row in wide)
    return png_of(*PHOTO.size, depth=16, rows=rows)


def interlaced(rgb: np.ndarray = RGB) -> bytes:
    """Adam7, written by hand: Pillow writes none."""
    rows = b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        rows += b"".join(b"\x00" + row.tobytes() for row in rgb[y0::dy, x0::dx])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 8, 2, 0, 0, 1))
    body = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def ycck() -> bytes:
    """A CMYK JPEG whose colours are stored as luma and chroma: Adobe's transform 2."""
    c, m, y, k = (np.asarray(band).astype(float) for band in PHOTO.convert("CMYK").split())
    luma = 0.299 * c + 0.587 * m + 0.114 * y
    blue = 128 - 0.168736 * c - 0.331264 * m + 0.5 * y
    red = 128 + 0.5 * c - 0.418688 * m - 0.081312 * y
    # Pillow stores 255 minus what it is given.
    stored = np.stack([255 - luma, 255 - blue, 255 - red, k], axis=-1)
    as_cmyk = Image.fromarray(np.clip(np.rint(stored), 0, 255).astype(np.uint8), "CMYK")
    data = bytearray(saved(as_cmyk, "JPEG", quality=97))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def cmyk_without_marker() -> bytes:
    """Without Adobe's segment, which says that the colours are stored inverted."""
    data = saved(PHOTO.convert("CMYK"), "JPEG", quality=97)
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :]


def grey_with_alpha(hidden: int) -> bytes:
    grey = np.asarray(PHOTO.convert("L")).copy()
    alpha = np.zeros_like(grey)
    alpha[40:120, 30:90] = 255
    grey[alpha == 0] = hidden
    return saved(Image.fromarray(np.dstack([grey, alpha])), "PNG")


def turned() -> Iterator[bytes]:
    """The photo stored in each of the eight EXIF orientations."""
    undo = Image.Transpose
    inverse = (
        None, undo.FLIP_LEFT_RIGHT, undo.ROTATE_180, undo.FLIP_TOP_BOTTOM, undo.TRANSPOSE,
        undo.ROTATE_90, undo.TRANSVERSE, undo.ROTATE_270,
    )  # fmt: skip
    for orientation, operation in enumerate(inverse, 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = PHOTO if operation is None else PHOTO.transpose(operation)
        yield saved(stored, "JPEG", quality=97, exif=exif)


def damaged_exif() -> bytes:
    exif = b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + bytes(40)
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]


def exif_orientation_of(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return saved(PHOTO, "JPEG", quality=95, exif=exif)


def large_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    return saved(PHOTO, "JPEG", quality=95, exif=exif)


def turned_in(format: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(PHOTO.transpose(Image.Transpose.ROTATE_90), format, exif=exif, **options)


def animated(format: str, **options: object) -> bytes:
    other = Image.fromarray(draw_photo(22))
    return saved(PHOTO, format, save_all=True, append_images=[other], duration=100, **options)


def chunk_bomb(name: bytes, head: bytes) -> bytes:
    """A PNG with a chunk of 100 MB in 100 kB."""
    return with_chunk(PNG, name, head + zlib.compress(bytes(100_000_000), 9))


def gif_with_frame(width: int, height: int, x: int, y: int) -> bytes:
    """A GIF of 120x160 whose only frame has another size and place."""
    gif = bytearray(saved(PHOTO.resize((width, height)).quantize(64), "GIF"))
    gif[6:10] = struct.pack("<HH", *PHOTO.size)
    at = gif.index(b"\x2c" + struct.pack("<HHHH", 0, 0, width, height))
    gif[at + 1 : at + 5] = struct.pack("<HH", x, y)
    return bytes(gif)


def jpeg_of(width: int, height: int) -> bytes:
    """The JPEG with other dimensions in its frame header."""
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def bmp_with(at: int, value: int) -> bytes:
    data = saved(PHOTO, "BMP")
    return data[:at] + struct.pack("<i", value) + data[at + 4 :]


def bottom_up_and_top_down() -> str:
    plain = saved(PHOTO, "BMP")
    width, height = PHOTO.size
    offset, stride = struct.unpack_from("<I", plain, 10)[0], (3 * width + 3) // 4 * 4
    rows = [plain[offset + i * stride :][:stride] for i in range(height)]
    top_down = plain[:22] + struct.pack("<i", -height) + plain[26:offset] + b"".join(rows[::-1])
    return agree(plain, top_down)


def other_picture_formats(format: str, **options: object) -> Callable[[], str]:
    return lambda: look(saved(PHOTO, format, **options))


def as_files(name: str) -> Callable[[], str]:
    return lambda: look(hostile_files()[name])


def embedding(*vector: float) -> str:
    """What the photo worker makes of a network that answers so."""
    task = EmbedPhotos(
        open_fetch=lambda: lambda uri, known: Fetched(JPEG, Validator(None, len(JPEG), None)),
        open_embedder=lambda: Embedder(
            SimpleNamespace(input_px=32, blur_sigma_px=0.5, dim=len(vector), has_verifier=False),
            lambda photos: np.array([vector], np.float32),
        ),
        open_decoder=InProcessDecoder,
        prefetch=1,
        n_threads=1,
    )
    asked = [Request("key", "a.jpg")._asdict()]
    (batch,) = task(iter([pa.RecordBatch.from_pylist(asked, PHOTO_REQUESTS.arrow)]))
    (row,) = batch.to_pylist()
    if row["reason"] is None:
        return f"ok: norm {np.linalg.norm(row['embedding']):.3f}"
    assert row["embedding"] is None
    return f"reject: {row['reason']}"


def of(what: str, expected: str, run: Callable[[], str]) -> Case:
    return Case(what, expected, lambda _: run())


def bytes_of(what: str, expected: str, data: bytes) -> Case:
    return of(what, expected, lambda: look(data))


_AS_IT_IS = f"ok: the photo, {PHOTO.width}x{PHOTO.height}"
_BROKEN = (
    bytes_of("a file of zero bytes", "reject: empty_file", b""),
    bytes_of("a JPEG cut in its header", "reject: corrupt", JPEG[:100]),
    bytes_of("a JPEG cut in its data", "reject: truncated", JPEG[: len(JPEG) // 2]),
    bytes_of("a JPEG without its end marker", "reject: truncated", JPEG[:-2]),
    bytes_of("a PNG cut in its data", "reject: truncated", PNG[: len(PNG) // 2]),
    bytes_of("a WebP cut in its data", "reject: corrupt", WEBP[: len(WEBP) // 2]),
    bytes_of("a GIF cut in its data", "reject: truncated", GIF[: len(GIF) // 2]),
    bytes_of(
        "a JPEG whose rest was never written (zeros)",
        "reject: truncated",
        JPEG[: len(JPEG) // 2] + bytes(10_000),
    ),
    bytes_of("a JPEG with one flipped bit: no decoder can tell", _AS_IT_IS, flipped(JPEG)),
    bytes_of("a PNG with one flipped bit", "reject: corrupt", flipped(PNG)),
    bytes_of(
        "a JPEG whose rest was never written (zeros), with an end marker: no decoder can tell",
        "ok: another picture, 120x160",
        JPEG[: len(JPEG) // 2] + bytes(10_000) + b"\xff\xd9",
    ),
    of(
        "a progressive JPEG cut in its data",
        "reject: truncated",
        lambda: look(saved(PHOTO, "JPEG", progressive=True)[:2000]),
    ),
    of(
        "a CMYK JPEG cut in its data",
        "reject: truncated",
        lambda: look(cmyk_without_marker()[:5000]),
    ),
    bytes_of(
        "a JPEG whose frame says more rows than it has: grey",
        "ok: another picture, 120x320",
        jpeg_of(120, 320),
    ),
    bytes_of(
        "a JPEG whose frame says 7000x7000, in 5 kB",
        "ok: another picture, 7000x7000",
        jpeg_of(7000, 7000),
    ),
    bytes_of("a WebP that is all header", "reject: corrupt", WEBP[:30]),
    bytes_of("a WebP that says 4 GB", "reject: corrupt", WEBP[:4] + b"\xff\xff\xff\xff" + WEBP[8:]),
    bytes_of("a PNG of 0x0", "reject: corrupt", png_of(0, 0)),
    bytes_of("a PNG of 3 bits a channel", "reject: corrupt", png_of(64, 64, depth=3)),
    bytes_of("a PNG of an unknown colour type", "reject: corrupt", png_of(64, 64, colour=5)),
    bytes_of("a PNG without its end", _AS_IT_IS, PNG[:-12]),
    bytes_of(
        "a PNG of 100 MB of rows beyond its size",
        "ok: another picture, 64x64",
        png_of(64, 64, rows=bytes(100_000_000)),
    ),
    bytes_of(
        "a PNG without the palette it uses",
        "ok: another picture, 64x64",
        png_of(64, 64, colour=3, rows=bytes([0, *[200] * 64] * 64)),
    ),
    of(
        "a GIF whose frame has no pixels",
        "reject: corrupt",
        lambda: look(
            gif_with_frame(40, 40, 0, 0).replace(struct.pack("<HHHH", 0, 0, 40, 40), bytes(8))
        ),
    ),
    of(
        "a GIF whose frame lies far outside",
        "reject: too_many_pixels",
        lambda: look(gif_with_frame(40, 40, 60_000, 60_000)),
    ),
    bytes_of(
        "a GIF of 100,000 comments", _AS_IT_IS, GIF[:-1] + b"\x21\xfe\x01a\x00" * 100_000 + b";"
    ),
    bytes_of("a JPEG whose frame says 1x1", "reject: too_small", jpeg_of(1, 1)),
    bytes_of("a GIF without a frame", "reject: corrupt", b"GIF89a\x40\x00\x40\x00\x00\x00\x00;"),
    bytes_of("a PNG without pixel data", "reject: truncated", png_of(64, 64)),
    bytes_of(
        "a PNG whose data, whole in itself, lacks rows: they are black",
        "ok: another picture, 64x64",
        png_of(64, 64, rows=bytes(193 * 3)),
    ),
    bytes_of("a BMP whose pixels start past its end", "reject: truncated", bmp_with(10, 10**9)),
    bytes_of("a BMP of a header of 2 GB", "reject: corrupt", bmp_with(14, 2**31 - 1)),
)
_NO_PHOTOS = (
    bytes_of("HTML named .jpg", "reject: not_image", b"<!DOCTYPE html><title>404</title>"),
    bytes_of("HTML behind blank lines", "reject: not_image", b"\n\n  <html><body>gone"),
    bytes_of(
        "SVG", "reject: not_image", b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>'
    ),
    bytes_of("XML (an S3 error)", "reject: not_image", b"<?xml version='1.0'?><Error/>"),
    bytes_of("JSON", "reject: not_image", b'{"error": "not found"}'),
    bytes_of("PDF", "reject: not_image", b"%PDF-1.7\n"),
    bytes_of(
        "EPS, which Pillow would hand to Ghostscript",
        "reject: not_image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (r) file\n",
    ),
    bytes_of("a zip archive", "reject: not_image", b"PK\x03\x04" + bytes(60)),
    bytes_of("gzip around a JPEG", "reject: not_image", b"\x1f\x8b\x08" + bytes(60)),
    bytes_of("an ELF program", "reject: not_image", b"\x7fELF\x02\x01\x01" + bytes(60)),
    bytes_of("a text file", "reject: not_image", b"photo to follow"),
    bytes_of("zeros", "reject: not_image", bytes(10_000)),
    bytes_of(
        "a film (AVI), which begins like a WebP",
        "reject: not_image",
        b"RIFF\x00\x01\x00\x00AVI LIST",
    ),
)
_OTHER_FORMATS = (
    of("TIFF", "reject: unsupported_format", other_picture_formats("TIFF")),
    of(
        "TIFF of floats with NaN",
        "reject: unsupported_format",
        lambda: look(saved(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF")),
    ),
    of("AVIF", "reject: unsupported_format", other_picture_formats("AVIF")),
    of("JPEG 2000", "reject: unsupported_format", other_picture_formats("JPEG2000")),
    of("ICO", "reject: unsupported_format", other_picture_formats("ICO", sizes=[(64, 64)])),
    bytes_of("HEIC", "reject: unsupported_format", b"\x00\x00\x00\x18ftypheic" + bytes(40)),
    bytes_of("JPEG XL", "reject: unsupported_format", b"\xff\x0a" + bytes(40)),
    of("PPM", "reject: unsupported_format", other_picture_formats("PPM")),
    bytes_of("Photoshop", "reject: unsupported_format", b"8BPS\x00\x01" + bytes(40)),
    of(
        "MPO: a second picture behind the JPEG",
        "ok: the photo, 120x160",
        lambda: look(saved(PHOTO, "MPO", save_all=True, append_images=[PHOTO], quality=95)),
    ),
)
_SIZES = (
    bytes_of(
        "a GIF of 10x10 whose frame is 65,296x32,767",
        "reject: too_many_pixels",
        b"GIF89a"
        + struct.pack("<HHBBB", 10, 10, 0xF0, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65_296, 32_767, 0)
        + b"\x02\x02\x44\x01\x00;",
    ),
    of("a PNG of 400 megapixels in 1 MB", "reject: too_many_pixels", as_files("bomb.png")),
    bytes_of(
        "a PNG that says 2,000,000,000 pixels", "reject: too_many_pixels", png_of(50_000, 40_000)
    ),
    bytes_of("a PNG of 164 megapixels", "reject: too_many_pixels", png_of(12_800, 12_800)),
    bytes_of("a JPEG that says 65,000x65,000", "reject: too_many_pixels", jpeg_of(65_000, 65_000)),
    bytes_of("65,000x64", "reject: too_many_pixels", png_of(65_000, 64)),
    bytes_of("15,000x64", "reject: bad_aspect", png_of(15_000, 64)),
    bytes_of("1x1", "reject: too_small", encode(draw_photo(1, 1, 1), ".png")),
    bytes_of("a BMP of 2,147,483,647 rows", "reject: too_many_pixels", bmp_with(22, 2**31 - 1)),
)
_COLOURS = (
    of("CMYK JPEG, inverted as Adobe stores it", _AS_IT_IS, lambda: look(
        saved(PHOTO.convert("CMYK"), "JPEG", quality=97)
    )),
    of("CMYK JPEG without Adobe's marker", _AS_IT_IS, lambda: look(cmyk_without_marker())),
    of("YCCK JPEG", _AS_IT_IS, lambda: look(ycck())),
    of("RGB JPEG, without luma and chroma", _AS_IT_IS, lambda: look(
        saved(PHOTO, "JPEG", quality=95, keep_rgb=True)
    )),
    of("grey JPEG, as RGB", "ok: alike", lambda: agree(
        saved(PHOTO.convert("L"), "JPEG", quality=97),
        saved(PHOTO.convert("L").convert("RGB"), "PNG"),
        within_levels=ALIKE_LEVELS,
    )),
    of("16-bit grey, scaled and not clipped to white", "ok: the same pixels", lambda: agree(
        sixteen_bit_grey(), saved(PHOTO.convert("L"), "PNG")
    )),
    of("16-bit colour", "ok: the same pixels", lambda: agree(sixteen_bit_colour(), PNG)),
    of("palette", "ok: the same pixels", lambda: agree(
        saved(PHOTO.quantize(64), "PNG"), saved(PHOTO.quantize(64).convert("RGB"), "PNG")
    )),
    of(
        "bilevel",
        "ok: the same pixels",
        lambda: agree(saved(PHOTO.convert("1"), "PNG"), saved(PHOTO.convert("1").convert("L"), "PNG")),
    ),
    of("alpha that hides black, white or grey", "ok: the same pixels", lambda: agree(
        with_alpha(0), with_alpha(255), with_alpha(100)
    )),
    of("grey with alpha that hides black or white", "ok: the same pixels", lambda: agree(
        grey_with_alpha(0), grey_with_alpha(255)
    )),
    of("16-bit colour with alpha that hides black is white", "ok: the same pixels", lambda: agree(
        png_of(64, 64, depth=16, colour=6, rows=bytes(513 * 64)),
        saved(Image.new("RGB", (64, 64), "white"), "PNG"),
    )),
    of("noise under full transparency is white", "ok: the same pixels", lambda: agree(
        alpha_noise(), white()
    )),
    of("grey with alpha", "ok: the same pixels", lambda: agree(
        saved(PHOTO.convert("LA"), "PNG"), saved(PHOTO.convert("L"), "PNG")
    )),
    of("a transparent level in a 16-bit grey PNG (tRNS) is white", "ok: the same pixels", lambda: agree(
        with_chunk(
            saved(Image.fromarray(np.full(RGB.shape[:2], 1000, np.uint16)), "PNG"),
            b"tRNS", struct.pack(">H", 1000),
        ),
        white(),
    )),
    of("a transparent colour in a PNG (tRNS) is white", "ok: the same pixels", lambda: agree(
        with_chunk(saved(Image.new("RGB", PHOTO.size, (9, 9, 9)), "PNG"), b"tRNS", bytes([0, 9] * 3)),
        white(),
    )),
    of("a transparent palette entry is white", "ok: the same pixels", lambda: agree(
        saved(Image.new("P", PHOTO.size, 0), "PNG", transparency=0), white()
    )),
    of("interlaced PNG", _AS_IT_IS, lambda: look(interlaced())),
    of("progressive JPEG, as baseline", "ok: the same pixels", lambda: agree(
        saved(PHOTO, "JPEG", quality=95, progressive=True), JPEG
    )),
    of("lossless WebP", "ok: the same pixels", lambda: agree(WEBP, PNG)),
    of("BMP stored from the top", "ok: the same pixels", bottom_up_and_top_down),
)  # fmt: skip
_EXTRAS = (
    of("each of the eight EXIF orientations", "ok: alike", lambda: agree(
        *turned(), within_levels=ALIKE_LEVELS
    )),
    of("EXIF orientation in a PNG and in a WebP", "ok: the same pixels", lambda: agree(
        PNG, turned_in("PNG"), turned_in("WEBP", lossless=True)
    )),
    of("EXIF of 60 kB", _AS_IT_IS, lambda: look(large_exif())),
    of("EXIF orientation 9, which there is not", _AS_IT_IS, lambda: look(exif_orientation_of(9))),
    of("damaged EXIF", _AS_IT_IS, lambda: look(damaged_exif())),
    of("an animated GIF: its first frame", _AS_IT_IS, lambda: look(animated("GIF"))),
    of("an animated WebP: its first frame", _AS_IT_IS, lambda: look(animated("WEBP", lossless=True))),
    of("an animated PNG: its first frame", _AS_IT_IS, lambda: look(animated("PNG"))),
    bytes_of("trailing bytes", _AS_IT_IS, JPEG + b"<script>" + bytes(1000)),
    bytes_of("a zip archive behind the JPEG", _AS_IT_IS, JPEG + b"PK\x03\x04" + bytes(100)),
    bytes_of("a PNG named .jpg", _AS_IT_IS, PNG),
    of("a PNG text chunk of 100 MB in 100 kB", "reject: corrupt", lambda: look(
        chunk_bomb(b"zTXt", b"Comment\x00\x00")
    )),
    of("the same as Unicode text (iTXt)", "reject: corrupt", lambda: look(
        chunk_bomb(b"iTXt", b"Comment\x00\x01\x00\x00\x00")
    )),
    of("the same as a colour profile (iCCP)", "reject: corrupt", lambda: look(
        chunk_bomb(b"iCCP", b"profile\x00\x00")
    )),
    of("PNG text chunks of 90 MB together", "reject: corrupt", lambda: look(
        PNG[:33] + chunk(b"tEXt", b"a\x00" + b"x" * 900_000) * 100 + PNG[33:]
    )),
    of("a JPEG with a colour profile of 6 MB", _AS_IT_IS, lambda: look(
        JPEG[:2] + (b"\xff\xe2\xff\xffICC_PROFILE\x00\x01\x01" + bytes(65_519)) * 100 + JPEG[2:]
    )),
    of("a PNG with a colour profile of noise", _AS_IT_IS, lambda: look(
        with_chunk(PNG, b"iCCP", b"x\x00\x00" + zlib.compress(bytes(range(256)) * 40))
    )),
    of("a PNG with a comment of 1 MB", _AS_IT_IS, lambda: look(
        saved(PHOTO, "PNG", pnginfo=comment("x" * 1_000_000))
    )),
)  # fmt: skip
_EMBEDDINGS = tuple(
    of(f"a photo whose embedding is {what}", expected, lambda vector=vector: embedding(*vector))
    for what, expected, vector in (
        ("NaN", "reject: bad_embedding", (np.nan, np.nan, np.nan)),
        ("NaN in one component", "reject: bad_embedding", (np.nan, 1, 0)),
        ("infinite", "reject: bad_embedding", (np.inf, 1, 0)),
        ("zero", "reject: bad_embedding", (0, 0, 0)),
        ("so large that its float32 square overflows", "ok: norm 1.000", (3e30, 4e30, 0)),
    )
)


def comment(text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    return info


CASES = (*_BROKEN, *_NO_PHOTOS, *_OTHER_FORMATS, *_SIZES, *_COLOURS, *_EXTRAS, *_EMBEDDINGS)
