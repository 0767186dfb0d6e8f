import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.kernels import images
from dedup_job.kernels.images import ImageLimits, decode, fit, measure, prepare
from tests.photos import draw_photo, encode, jpeg


def _save(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _reason(data: bytes, **limits: float) -> RejectReason:
    with pytest.raises(ImageRejected) as caught:
        prepare(data, 32, 0.5, ImageLimits(**limits))
    assert "\n" not in caught.value.detail
    return caught.value.reason


def _mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_prepare_gives_a_blurred_square_on_white():
    prepared = prepare(jpeg(3), 64, 0.6)
    assert prepared.pixels.shape == (64, 64, 3)
    assert prepared.pixels.dtype == np.uint8
    assert (prepared.width, prepared.height) == (120, 160)
    assert (prepared.pixels[:, :6] == 255).all()
    assert (prepared.pixels[:, 32] != 255).any()


def test_blur_smooths_and_zero_leaves_alone():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert (fit(noise, 64, 0.0) == noise).all()
    assert fit(noise, 64, 1.0).std() < 0.6 * noise.std()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    upright = draw_photo(5)
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(upright)
    if inverse is not None:
        stored = stored.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _save(stored, "JPEG", quality=98, exif=exif)
    assert _mean_difference(decode(data), upright) < 3
    assert prepare(data, 32, 0.0).height == 160
    assert measure(data) == (120, 160)


def test_alpha_is_laid_on_white_whatever_colour_hides_behind_it():
    rgb = draw_photo(1)
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    alpha[40:120, 30:90] = 255
    hidden_black, hidden_noise = rgb.copy(), rgb.copy()
    hidden_black[alpha == 0] = 0
    hidden_noise[alpha == 0] = np.random.default_rng(0).integers(0, 256, 3)
    pictures = [
        decode(_save(Image.fromarray(np.dstack([p, alpha])), "PNG"))
        for p in (hidden_black, hidden_noise)
    ]
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0][0, 0] == 255).all()
    assert (pictures[0][60, 60] == rgb[60, 60]).all()


def test_sixteen_bit_grey_is_scaled_not_clipped():
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    out = decode(_save(Image.fromarray(grey), "PNG"))
    assert abs(float(out.mean()) - 127.5) < 1
    assert out.min() == 0 and out.max() == 255


def test_cmyk_grey_palette_bilevel_and_gif_are_plain_rgb():
    rgb = draw_photo(2)
    image = Image.fromarray(rgb)
    cmyk = decode(_save(image.convert("CMYK"), "JPEG", quality=98))
    assert _mean_difference(cmyk, rgb) < 4
    grey = decode(_save(image.convert("L"), "JPEG", quality=98))
    assert (grey[..., 0] == grey[..., 2]).all()
    palette = decode(_save(image.quantize(256), "PNG"))
    assert _mean_difference(palette, rgb) < 12
    assert decode(_save(image.convert("1"), "PNG")).shape == rgb.shape
    frames = [image, Image.fromarray(draw_photo(9))]
    gif = _save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert _mean_difference(decode(gif), rgb) < 15


@pytest.mark.parametrize("extension", [".png", ".webp", ".bmp"])
def test_other_formats_agree_with_the_original(extension):
    rgb = draw_photo(4)
    assert _mean_difference(decode(encode(rgb, extension)), rgb) < 4


def test_a_large_jpeg_is_decoded_small_and_looks_the_same():
    data = jpeg(6, width=1600, height=2133)
    small = decode(data, enough_px=256)
    assert max(small.shape) < 600
    full = fit(decode(data), 128, 0.5)
    assert _mean_difference(prepare(data, 128, 0.5).pixels, full) < 1
    assert (prepare(data, 128, 0.5).width, prepare(data, 128, 0.5).height) == (1600, 2133)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png_header(width: int, height: int) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(1000)))


def test_reject_reasons():
    good = jpeg(1)
    assert _reason(b"") == RejectReason.EMPTY_FILE
    assert _reason(good[: len(good) // 2]) == RejectReason.TRUNCATED
    assert _reason(b"<!DOCTYPE html><p>gone") == RejectReason.NOT_IMAGE
    assert _reason(b"<svg xmlns='x'/>") == RejectReason.NOT_IMAGE
    assert _reason(b"%!PS-Adobe-3.0 EPSF-3.0\n") == RejectReason.NOT_IMAGE
    assert _reason(bytes(range(200))) == RejectReason.NOT_IMAGE
    assert _reason(_save(Image.fromarray(draw_photo(1)), "TIFF")) == RejectReason.UNSUPPORTED_FORMAT
    assert _reason(encode(draw_photo(1, 1, 1), ".png")) == RejectReason.TOO_SMALL
    assert _reason(encode(draw_photo(1, 700, 20), ".png")) == RejectReason.BAD_ASPECT
    assert _reason(_png_header(20_000, 20_000)) == RejectReason.TOO_MANY_PIXELS
    assert _reason(_png_header(2_000_000, 1)) == RejectReason.TOO_MANY_PIXELS
    assert _reason(_png_header(60_000, 60_000)) == RejectReason.TOO_MANY_PIXELS
    assert _reason(encode(draw_photo(1), ".png")[:600]) == RejectReason.TRUNCATED
    assert _reason(good[:20]) == RejectReason.CORRUPT
    assert _reason(good, max_pixels=100) == RejectReason.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"", {}),
        (b"<html>sorry</html>", {}),
        (jpeg(1)[:20], {}),
        (encode(draw_photo(1, 1, 1), ".png"), {}),
        (encode(draw_photo(1, 700, 20), ".png"), {}),
        (jpeg(1), {"max_pixels": 100}),
        (_save(Image.fromarray(draw_photo(1)), "TIFF"), {}),
    ],
)
def test_measuring_rejects_by_the_header_as_preparing_does(data, limits):
    refusals = []
    for look in (measure, lambda data, limits: prepare(data, 32, 0.5, limits)):
        with pytest.raises(ImageRejected) as caught:
            look(data, ImageLimits(**limits))
        refusals.append((caught.value.reason, caught.value.detail))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize("data", [jpeg(1), encode(draw_photo(1), ".png")], ids=["JPEG", "PNG"])
def test_measuring_decodes_no_pixel(data):
    half = data[: len(data) // 2]  # the header is whole; decoding it would fail
    assert measure(half) == measure(data) == (120, 160)


def test_a_wrong_name_or_trailing_bytes_do_not_matter():
    data = jpeg(7)
    assert (decode(data + b"trailing" * 100) == decode(data)).all()


def test_a_rejection_survives_pickling():
    import pickle

    back = pickle.loads(pickle.dumps(ImageRejected(RejectReason.TIMEOUT, "30 s")))
    assert (back.reason, back.detail) == (RejectReason.TIMEOUT, "30 s")


def test_no_pixel_is_decoded_before_the_limits_are_checked(monkeypatch):
    from PIL import PngImagePlugin

    loads = []
    load = PngImagePlugin.PngImageFile.load

    def counting_load(self):
        loads.append(self.size)
        return load(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", counting_load)
    data = encode(draw_photo(1, 300, 300), ".png")
    assert _reason(data, max_pixels=50_000) == RejectReason.TOO_MANY_PIXELS
    assert loads == []
    decode(data)
    assert set(loads) == {(300, 300)}


def test_the_fixed_guard_of_pillow_does_not_override_the_setting():
    big = Image.fromarray(np.zeros((9_500, 10_000), np.uint8))
    data = _save(big, "PNG", compress_level=1)
    assert _reason(data) == RejectReason.TOO_MANY_PIXELS
    assert decode(data, ImageLimits(max_pixels=100_000_000)).shape == (9_500, 10_000, 3)


@pytest.mark.parametrize("kind", ["L", "LA", "RGB", "RGBA", "P", "I;16", "1"])
def test_strips_are_what_the_whole_would_be(monkeypatch, kind):
    noise = np.random.default_rng(1).integers(0, 256, (61, 47, 4), dtype=np.uint8)
    if kind == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 250)
    else:
        image = Image.fromarray(noise if kind in ("RGBA", "LA") else noise[..., :3]).convert(kind)
    data = _save(image, "PNG", **({"transparency": 3} if kind in ("P", "L") else {}))
    whole = decode(data)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 200)
    assert np.array_equal(decode(data), whole)
