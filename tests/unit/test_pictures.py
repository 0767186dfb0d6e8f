"""Prepared photos as bytes of a store, and back."""

import cv2
import numpy as np
import pytest

from dedup_job.errors import DedupError
from dedup_job.kernels.pictures import pack_picture, unpack_picture
from dedup_job.sample.photo import photograph
from dedup_job.sample.plan import plan_listings


@pytest.fixture(scope="module")
def photos():
    listings = [one for one in plan_listings(24, seed=5) if not one.edits][:6]
    drawn = (photograph(one.design, one.shot) for one in listings)
    return [cv2.resize(photo, (128, 128), interpolation=cv2.INTER_AREA) for photo in drawn]


def test_a_picture_is_near_the_photo_and_small(photos):
    for photo in photos:
        packed = pack_picture(photo)
        picture = unpack_picture(packed)
        assert picture.shape == photo.shape and picture.dtype == np.uint8
        assert picture.flags["C_CONTIGUOUS"]
        assert np.abs(picture.astype(int) - photo).mean() < 3
        assert len(packed) < photo.nbytes / 4


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 0, 255), (30, 120, 60), (250, 235, 215), (17, 17, 20)], ids=str
)
def test_colours_are_kept_red_stays_red(colour):
    plain = np.full((128, 128, 3), colour, np.uint8)
    assert np.abs(unpack_picture(pack_picture(plain)).astype(int) - plain).max() <= 3


def test_a_fine_pattern_keeps_its_colours_too():
    """With halved chroma its stripes would run into each other."""
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 60, 60), (60, 60, 200)
    picture = unpack_picture(pack_picture(stripes)).astype(int)
    assert np.abs(picture - stripes).mean() < 6


def test_equal_photos_have_equal_bytes(photos):
    packed = [pack_picture(photo) for photo in photos]
    assert packed == [pack_picture(photo.copy()) for photo in photos]
    assert len(set(packed)) == len(photos)


def _of_sides(px):
    """A picture whose frame says another size than its data have."""
    data = bytearray(pack_picture(np.zeros((16, 16, 3), np.uint8)))
    height = data.index(b"\xff\xc0") + 5
    data[height : height + 4] = 2 * px.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", b"\xff\xd8\xff\xe0" + bytes(40), b"\x89PNG\r\n\x1a\n", _of_sides(65_535)],
    ids=["empty", "text", "cut off", "another format", "huge"],
)
def test_damaged_bytes_give_one_clear_error(data):
    with pytest.raises(DedupError) as error:
        unpack_picture(data)
    text = str(error.value)
    assert f"a stored picture of {len(data)} bytes cannot be read" in text
    # Doctor reads no pictures: the remedy is that of a damaged store.
    assert "delete this model's folder" in text and "embeds its photos again" in text
    assert "doctor" not in text and "\n" not in text
