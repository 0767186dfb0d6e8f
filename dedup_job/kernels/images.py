"""Photo bytes to pixels: the only decoder of this project, shared by training and the nightly job.

Pillow reads the header (format allow-list, dimensions, mode, EXIF orientation) before any pixel is
decoded. JPEG, which is nearly every catalog photo, is then decoded by OpenCV, at reduced scale when
the photo is much larger than the model's input; the rarer formats are decoded by Pillow, whose
handling of palettes, alpha and animation is the best maintained. Every photo comes out one way:
oriented, alpha on white, 8-bit RGB, centred on a white square, blurred.
"""

import io
import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dedup_job.errors import ImageRejected, RejectReason, one_line

Pixels = NDArray[np.uint8]

# Part of a model's identity. Golden pixels in tests force it to rise when any output pixel changes.
PREPROCESSING_VERSION = 1
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_MODES_16_BIT = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
_EXIF_ORIENTATION = 0x0112
_REDUCED_JPEG = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
_WHITE = (255, 255, 255)
# Start of frame: marker, length, bits per sample (ITU-T T.81, B.2.2).
_TWELVE_BIT_JPEG = re.compile(rb"\xff[\xc0-\xc3]\x00.\x0c", re.DOTALL)

# Pillow warns from its own guard on, which ImageLimits sets (see _read_header).
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Photos above this many pixels are decoded one at a time in a process: a task that fetches with 16
# threads must not hold 16 of them.
_LARGE_PIXELS = 8_000_000
_one_large_photo = threading.Lock()
_STRIP_PIXELS = 1_000_000


@dataclass(frozen=True)
class ImageLimits:
    """What is refused by its header alone. Pixels are counted before any are decoded."""

    max_pixels: int = 50_000_000
    max_side_px: int = 20_000
    min_side_px: int = 16
    max_aspect: float = 20.0


@dataclass(frozen=True)
class Prepared:
    """A photo ready for the model.

    `pixels`: uint8 (size, size, 3) RGB; `width` and `height`: of the original in pixels, as
    displayed (after EXIF orientation).
    """

    pixels: Pixels
    width: int
    height: int


@dataclass(frozen=True)
class _Header:
    format: str
    mode: str
    width: int
    height: int
    orientation: int


def prepare(
    data: bytes, size_px: int, blur_sigma_px: float, limits: ImageLimits = ImageLimits()
) -> Prepared:
    """Decode one photo exactly as the model expects it.

    Args:
        data: the file's bytes, of any format in `FORMATS`, whatever its name was.
        size_px: side of the square the model takes, 16 to 1024.
        blur_sigma_px: Gaussian standard deviation in pixels of the *output* square; 0 = no blur.
        limits: header limits.

    Raises:
        ImageRejected: with one of the reasons EMPTY_FILE to BAD_ASPECT.
        MemoryError: this process may not have the memory that the pixels take.
    """
    rgb, header = _decode(data, limits, enough_px=2 * size_px)
    width, height = _displayed_size(header)
    return Prepared(fit(rgb, size_px, blur_sigma_px), width, height)


def measure(data: bytes, limits: ImageLimits = ImageLimits()) -> tuple[int, int]:
    """Width and height in pixels, as displayed, from the header alone: no pixel is decoded.

    Raises:
        ImageRejected: as `prepare`, for what the header tells; never for damage that comes later.
    """
    return _displayed_size(_read_header(data, limits))


def decode(
    data: bytes, limits: ImageLimits = ImageLimits(), enough_px: int | None = None
) -> Pixels:
    """Decode to uint8 (height, width, 3) RGB, oriented, alpha on white.

    Args:
        data: the file's bytes.
        limits: header limits.
        enough_px: when given, a large JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as its
            longer side stays at or above this.

    Raises:
        ImageRejected: as `prepare`.
    """
    return _decode(data, limits, enough_px)[0]


def fit(rgb: Pixels, size_px: int, blur_sigma_px: float) -> Pixels:
    """Scale the longer side to `size_px`, centre on a white square, blur.

    The aspect ratio is kept: a photo that a shop padded to a white square then costs the model
    nothing to recognise. Training applies this same function to its augmented photos.

    Args:
        rgb: uint8 (height, width, 3).
        size_px: side of the output.
        blur_sigma_px: as in `prepare`.

    Returns:
        uint8 (size_px, size_px, 3), contiguous.
    """
    height, width = rgb.shape[:2]
    scale = size_px / max(height, width)
    new_width = max(1, round(width * scale))
    new_height = max(1, round(height * scale))
    shrinks = scale < 1
    small = cv2.resize(
        rgb, (new_width, new_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    top, left = (size_px - new_height) // 2, (size_px - new_width) // 2
    square = cv2.copyMakeBorder(
        small,
        top,
        size_px - new_height - top,
        left,
        size_px - new_width - left,
        cv2.BORDER_CONSTANT,
        value=_WHITE,
    )
    if blur_sigma_px > 0:
        square = cv2.GaussianBlur(square, (0, 0), blur_sigma_px)
    return np.ascontiguousarray(square)


def _decode(data: bytes, limits: ImageLimits, enough_px: int | None) -> tuple[Pixels, _Header]:
    header = _read_header(data, limits)
    is_large = header.width * header.height > _LARGE_PIXELS
    with _one_large_photo if is_large else nullcontext():
        if header.format == "JPEG":
            rgb = _decode_jpeg(data, header, enough_px)
        else:
            rgb = _decode_with_pillow(data, header)
        return _orient(rgb, header.orientation), header


def _read_header(data: bytes, limits: ImageLimits) -> _Header:
    """Read format, mode, size and orientation, and apply the limits; decodes no pixel."""
    if not data:
        raise ImageRejected(RejectReason.EMPTY_FILE, "0 bytes")
    # A GIF's frame may be larger than its screen, and is allocated as the file is opened: only
    # Pillow's guard stands before that. It raises at twice its value.
    Image.MAX_IMAGE_PIXELS = max(1, limits.max_pixels // 2)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_limits(image, limits)
            return _Header(
                image.format or "",
                image.mode,
                image.width,
                image.height,
                _read_orientation(image),
            )
    except ImageRejected:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Image.DecompressionBombError:
        raise ImageRejected(
            RejectReason.TOO_MANY_PIXELS, f"limit {limits.max_pixels} (images.max_pixels)"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise many types on hostile headers
        text = one_line(error)
        # BMP depths and bit fields; an unknown length of header is damage.
        is_known = text.startswith("Unsupported") and "header type" not in text
        reason = RejectReason.UNSUPPORTED_MODE if is_known else RejectReason.CORRUPT
        raise ImageRejected(reason, f"header: {text}") from None


def _read_orientation(image: Image.Image) -> int:
    try:
        # Not image.getexif(): for a PNG without EXIF it decodes the whole picture to look further.
        value = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF is common and says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_limits(header: Image.Image, limits: ImageLimits) -> None:
    shape = f"{header.width}x{header.height}"
    if header.width * header.height > limits.max_pixels:
        raise ImageRejected(
            RejectReason.TOO_MANY_PIXELS, f"{shape}, limit {limits.max_pixels} (images.max_pixels)"
        )
    if max(header.width, header.height) > limits.max_side_px:
        raise ImageRejected(
            RejectReason.TOO_MANY_PIXELS,
            f"{shape}, limit {limits.max_side_px} (images.max_side_px)",
        )
    shorter, longer = sorted((header.width, header.height))
    if shorter < limits.min_side_px:
        raise ImageRejected(
            RejectReason.TOO_SMALL, f"{shape}, limit {limits.min_side_px} (images.min_side_px)"
        )
    if longer > limits.max_aspect * shorter:
        raise ImageRejected(
            RejectReason.BAD_ASPECT, f"{shape}, limit {limits.max_aspect:g} (images.max_aspect)"
        )
    if header.mode not in _MODES | _MODES_16_BIT:
        raise ImageRejected(RejectReason.UNSUPPORTED_MODE, f"{header.format} mode {header.mode}")


def _decode_jpeg(data: bytes, header: _Header, enough_px: int | None) -> Pixels:
    longer = max(header.width, header.height)
    flag = cv2.IMREAD_COLOR
    for divisor, reduced in _REDUCED_JPEG.items():
        if enough_px is not None and longer >= divisor * enough_px:
            flag = reduced
            break
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(one_line(error)) from None
        raise ImageRejected(RejectReason.CORRUPT, f"JPEG: {one_line(error)}") from None
    if bgr is None:
        if b"\xff\xd9" not in data[-4096:]:
            raise ImageRejected(RejectReason.TRUNCATED, f"JPEG ends after {len(data)} bytes")
        raise ImageRejected(RejectReason.CORRUPT, "JPEG data cannot be decoded")
    # An upload whose rest was never written ends in zeros; libjpeg makes grey of them.
    if data.rfind(b"\xff\xd9") < 0:
        raise ImageRejected(RejectReason.TRUNCATED, "JPEG without an end marker")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _decode_with_pillow(data: bytes, header: _Header) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()  # of an animation: the first frame
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # as in _read_header
        text = one_line(error)
        cut = "truncated" in text.lower() or "eof" in text.lower()
        reason = RejectReason.TRUNCATED if cut else RejectReason.CORRUPT
        raise ImageRejected(reason, f"{header.format}: {text}") from None


def _to_rgb(image: Image.Image) -> Pixels:
    """Convert strip by strip: of the whole photo each step would make a copy, up to five of them."""
    n_rows = max(1, _STRIP_PIXELS // image.width)
    if image.height <= n_rows:
        return _strip_to_rgb(image)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, n_rows):
        bottom = min(top + n_rows, image.height)
        rgb[top:bottom] = _strip_to_rgb(image.crop((0, top, image.width, bottom)))
    return rgb


def _strip_to_rgb(image: Image.Image) -> Pixels:
    if image.mode in _MODES_16_BIT:
        # Pillow's own conversion clips at 255 and turns 16-bit grey nearly white.
        grey = np.asarray(image).astype(np.float32) / 257.0
        levels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        transparent = image.info.get("transparency")  # one 16-bit level (PNG tRNS)
        if isinstance(transparent, int):
            levels[np.asarray(image) == transparent] = 255
        return np.repeat(levels[:, :, None], 3, axis=2)
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (*_WHITE, 255))
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _orient(rgb: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation (TIFF 6.0 tag 274, values 1 to 8)."""
    if orientation in (5, 6, 7, 8):
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (2, 6, 7, 3):
        rgb = rgb[:, ::-1]
    if orientation in (4, 3, 8, 7):
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)


def _displayed_size(header: _Header) -> tuple[int, int]:
    if header.orientation >= 5:
        return header.height, header.width
    return header.width, header.height


def _unidentified(data: bytes) -> ImageRejected:
    head = data[:64].lstrip().lower()
    kinds = {
        b"<!doctype html": "HTML",
        b"<html": "HTML",
        b"<?xml": "XML",
        b"<svg": "SVG",
        b"%pdf": "PDF",
        b"%!ps": "PostScript",
        b"{": "JSON",
        b"pk\x03\x04": "zip",
        b"\x1f\x8b": "gzip",
    }
    pictures = {
        b"II*\x00": "TIFF",
        b"MM\x00*": "TIFF",
        b"8BPS": "PSD",
        b"\x00\x00\x01\x00": "ICO",
        b"\xff\x0a": "JPEG XL",
        b"\x00\x00\x00\x0cJXL ": "JPEG XL",
        b"\xff\x4f\xff\x51": "JPEG 2000",
        b"P5\n": "PGM",
        b"P6\n": "PPM",
        b"qoif": "QOI",
        b"DDS ": "DDS",
        b"v/1\x01": "OpenEXR",
    }
    if data.startswith(b"\xff\xd8\xff") and _TWELVE_BIT_JPEG.search(data, 0, 65_536):
        return ImageRejected(RejectReason.UNSUPPORTED_MODE, "JPEG of 12 bits a channel")
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF87a", b"GIF89a", b"BM")) or (
        data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    ):
        return ImageRejected(RejectReason.CORRUPT, "the header cannot be read")
    for magic, name in pictures.items():
        if data.startswith(magic):
            return ImageRejected(RejectReason.UNSUPPORTED_FORMAT, f"{name} picture")
    if data[4:8] == b"ftyp" or data[4:8] == b"jP  ":
        return ImageRejected(RejectReason.UNSUPPORTED_FORMAT, "AVIF, HEIC, JPEG 2000 or video")
    for magic, name in kinds.items():
        if head.startswith(magic):
            return ImageRejected(RejectReason.NOT_IMAGE, f"{name} content")
    return ImageRejected(RejectReason.NOT_IMAGE, f"unknown content, {len(data)} bytes")
