"""A prepared photo as bytes that a store keeps: what a pair of photos is verified by, later and elsewhere."""

import cv2
import numpy as np

from dedup_job.errors import DedupError
from dedup_job.kernels.images import Pixels

PICTURE_VERSION = 1
# About 6 KB at 128 pixels. Full chroma: a colourway is a difference of colour.
_QUALITY = 92
_HOW = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip


def pack_picture(prepared: Pixels) -> bytes:
    """JPEG of a prepared photo.

    Args:
        prepared: uint8 (size, size, 3) RGB, from `kernels.images.prepare`.
    """
    _, data = cv2.imencode(".jpg", prepared[:, :, ::-1], _HOW)
    packed: bytes = data.tobytes()
    return packed


def unpack_picture(data: bytes) -> Pixels:
    """The prepared photo again, but for what JPEG loses: uint8 (size, size, 3) RGB.

    Raises:
        DedupError: the store's bytes are no picture.
    """
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # of no bytes at all, or of a size beyond OpenCV's bounds
        bgr = None
    if bgr is None:
        raise DedupError(
            f"a stored picture of {len(data)} bytes cannot be read; delete this model's folder in "
            "image_embeddings, the next run embeds its photos again"
        )
    return np.ascontiguousarray(bgr[:, :, ::-1])
