"""Photos as strangers store them: broken, odd, hostile (RELIABILITY 1.4)."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from dedup_job.errors import ImageRejected
from dedup_job.kernels.images import ImageLimits, decode, prepare
from dedup_job.kernels.model import to_unit_rows
from tests.e2e.hostile import hostile_files
from tests.hostile.cases import Case
from tests.photos import draw_photo, encode

RGB = draw_photo(21)
PHOTO = Image.fromarray(RGB)
ALIKE_LEVELS = 6.0  # two photos differ by some 60


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
    distance = np.abs(decode(data, limits).astype(float).mean(axis=(0, 1)) - RGB.mean(axis=(0, 1)))
    shown = "the photo" if distance.max() < ALIKE_LEVELS else "another picture"
    return f"ok: {shown}, {photo.width}x{photo.height}"


def agree(*pictures: bytes) -> str:
    """Whether all of them come out with the same pixels."""
    try:
        decoded = [decode(data).astype(int) for data in pictures]
    except ImageRejected as rejected:
        return f"reject: {rejected.reason}"
    if len({picture.shape for picture in decoded}) > 1:
        return "ok: sizes differ"
    worst = max(float(np.abs(picture - decoded[0]).mean()) for picture in decoded)
    return "ok: the same pixels" if worst < ALIKE_LEVELS else f"ok: differ by {worst:.0f} levels"


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


def interlaced() -> bytes:
    """Adam7, of a picture of one colour: every pass is rows of that colour."""
    colour = tuple(int(c) for c in RGB.mean(axis=(0, 1)))
    width, height = PHOTO.size
    rows = b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        n_columns, n_rows = -(-(width - x0) // dx), -(-(height - y0) // dy)
        rows += (b"\x00" + bytes(colour) * n_columns) * n_rows
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


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


def animated(format: str, **options: object) -> bytes:
    other = Image.fromarray(draw_photo(22))
    return saved(PHOTO, format, save_all=True, append_images=[other], duration=100, **options)


def text_bomb() -> bytes:
    return with_chunk(PNG, b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(100_000_000), 9))


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


def embedding(vector: list[float]) -> str:
    """What `Embedder` makes of a network's answer; the photo worker rejects what is NaN."""
    unit = to_unit_rows(np.array([vector], np.float32))[0]
    return "ok" if np.isfinite(unit).all() else "reject: bad_embedding"


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
    bytes_of("a JPEG with one flipped bit: no decoder can tell", _AS_IT_IS, flipped(JPEG)),
    bytes_of("a PNG with one flipped bit", "reject: corrupt", flipped(PNG)),
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
    bytes_of("Photoshop", "reject: unsupported_format", b"8BPS\x00\x01" + bytes(40)),
    of(
        "MPO: a second picture behind the JPEG",
        "ok: the photo, 120x160",
        lambda: look(saved(PHOTO, "MPO", save_all=True, append_images=[PHOTO], quality=95)),
    ),
)
_SIZES = (
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
    of(
        "CMYK JPEG",
        _AS_IT_IS,
        lambda: look(saved(PHOTO.convert("CMYK"), "JPEG", quality=97)),
    ),
    of("grey JPEG, as RGB", "ok: the same pixels", lambda: agree(
        saved(PHOTO.convert("L"), "JPEG", quality=97),
        saved(PHOTO.convert("L").convert("RGB"), "PNG"),
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
    of("noise under full transparency is white", "ok: the same pixels", lambda: agree(
        alpha_noise(), white()
    )),
    of("grey with alpha", "ok: the same pixels", lambda: agree(
        saved(PHOTO.convert("LA"), "PNG"), saved(PHOTO.convert("L"), "PNG")
    )),
    of("a transparent colour in a PNG (tRNS) is white", "ok: the same pixels", lambda: agree(
        with_chunk(saved(Image.new("RGB", PHOTO.size, (9, 9, 9)), "PNG"), b"tRNS", bytes([0, 9] * 3)),
        white(),
    )),
    of("a transparent palette entry is white", "ok: the same pixels", lambda: agree(
        saved(Image.new("P", PHOTO.size, 0), "PNG", transparency=0), white()
    )),
    of("interlaced PNG", _AS_IT_IS, lambda: look(interlaced())),
    of("progressive JPEG", "ok: the same pixels", lambda: agree(
        saved(PHOTO, "JPEG", quality=95, progressive=True), JPEG
    )),
    of("lossless WebP", "ok: the same pixels", lambda: agree(WEBP, PNG)),
    of("BMP stored from the top", "ok: the same pixels", bottom_up_and_top_down),
)  # fmt: skip
_EXTRAS = (
    of("each of the eight EXIF orientations", "ok: the same pixels", lambda: agree(*turned())),
    of("EXIF orientation 9, which there is not", _AS_IT_IS, lambda: look(exif_orientation_of(9))),
    of("damaged EXIF", _AS_IT_IS, lambda: look(damaged_exif())),
    of("an animated GIF: its first frame", _AS_IT_IS, lambda: look(animated("GIF"))),
    of("an animated WebP: its first frame", _AS_IT_IS, lambda: look(animated("WEBP", lossless=True))),
    of("an animated PNG: its first frame", _AS_IT_IS, lambda: look(animated("PNG"))),
    bytes_of("trailing bytes", _AS_IT_IS, JPEG + b"<script>" + bytes(1000)),
    bytes_of("a zip archive behind the JPEG", _AS_IT_IS, JPEG + b"PK\x03\x04" + bytes(100)),
    bytes_of("a PNG named .jpg", _AS_IT_IS, PNG),
    of("a PNG text chunk of 100 MB in 100 kB", "reject: corrupt", lambda: look(text_bomb())),
    of("a PNG with a colour profile of noise", _AS_IT_IS, lambda: look(
        with_chunk(PNG, b"iCCP", b"x\x00\x00" + zlib.compress(bytes(range(256)) * 40))
    )),
    of("a PNG with a comment of 1 MB", _AS_IT_IS, lambda: look(
        saved(PHOTO, "PNG", pnginfo=comment("x" * 1_000_000))
    )),
)  # fmt: skip
_EMBEDDINGS = (
    of("a photo whose embedding is NaN", "reject: bad_embedding", lambda: embedding([np.nan, 1])),
    of("a photo whose embedding is infinite", "reject: bad_embedding", lambda: embedding([np.inf, 1])),
    of("a photo whose embedding is zero", "reject: bad_embedding", lambda: embedding([0, 0])),
)  # fmt: skip


def comment(text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    return info


CASES = (*_BROKEN, *_NO_PHOTOS, *_OTHER_FORMATS, *_SIZES, *_COLOURS, *_EXTRAS, *_EMBEDDINGS)
