"""Pictures that are all but the same: repeated uploads, not look-alikes or colourways."""

from dataclasses import dataclass

import cv2
import numpy as np

from dedup_job.kernels.images import Pixels

_SIDE_PX = 16
_N_VALUES = 3 * _SIDE_PX**2
# RMS difference of the thumbnails below 1 % of white, as a sum of squares of 8-bit values.
_APART = 0.01**2 * 255**2 * _N_VALUES
_BLOCK = 512


@dataclass(frozen=True)
class NearPairs:
    """Pairs of near-identical pictures, by row.

    Attributes:
        first: int (m,) rows.
        second: int (m,) rows, each larger than its `first`.
        apart: float32 (m,), squared difference of the thumbnails; 0 = equal.
    """

    first: np.ndarray
    second: np.ndarray
    apart: np.ndarray


def near_identical(pixels: list[Pixels], block: int = _BLOCK) -> NearPairs:
    """All pairs whose 16x16 colour thumbnails differ by less than 1 % (RMS).

    Args:
        pixels: uint8 (height, width, 3) each.
        block: rows compared at once; memory is n times this, and the result the same.

    Returns:
        The pairs, by rising `first`, then `second`.
    """
    # Around zero every sum of products is an integer below 2**24: float32 has it exactly, in any order.
    thumbs = np.array([_thumbnail(rgb) for rgb in pixels], np.float32).reshape(-1, _N_VALUES) - 128
    squares = (thumbs**2).sum(axis=1)
    found = []
    for begin in range(0, len(thumbs), block):
        rows = slice(begin, begin + block)
        product = thumbs[rows] @ thumbs[begin:].T
        # Two differences, not a sum of squares: of near pictures they are small, and so exact too.
        apart = (squares[rows, None] - product) + (squares[None, begin:] - product)
        first, second = np.nonzero(apart < _APART)
        later = second > first
        first, second = first[later], second[later]
        found.append((first + begin, second + begin, apart[first, second]))
    if not found:
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    return NearPairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _thumbnail(rgb: Pixels) -> Pixels:
    small: Pixels = cv2.resize(rgb, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA).ravel()
    return small
