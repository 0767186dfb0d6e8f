"""A contact sheet: the photos of one group side by side, for a person to judge at a glance."""

from dataclasses import dataclass

import cv2
import numpy as np

from dedup_job.sample.photo import Pixels

_CELL_WIDTH, _PHOTO_HEIGHT, _TEXT_HEIGHT, _MARGIN = 190, 240, 44, 8
_GREEN, _INK, _QUIET = (22, 128, 62), (30, 30, 30), (120, 120, 120)


@dataclass(frozen=True)
class SheetPhoto:
    """One photo of the sheet. `pixels`: uint8 (h, w, 3) RGB; `lines`: one or two captions."""

    pixels: Pixels
    lines: tuple[str, ...]
    is_survivor: bool = False


def contact_sheet(photos: list[SheetPhoto]) -> Pixels:
    """Set photos in a row, the survivor framed: uint8 (292, 190 per photo, 3) RGB.

    Raises:
        ValueError: there is no photo.
    """
    if not photos:
        raise ValueError("a contact sheet needs at least one photo")
    return np.hstack([_cell(photo) for photo in photos])


def _cell(photo: SheetPhoto) -> Pixels:
    cell = np.full((_PHOTO_HEIGHT + _TEXT_HEIGHT + _MARGIN, _CELL_WIDTH, 3), 255, np.uint8)
    height, width = photo.pixels.shape[:2]
    scale = min((_CELL_WIDTH - 2 * _MARGIN) / width, (_PHOTO_HEIGHT - 2 * _MARGIN) / height)
    small = cv2.resize(photo.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top = (_PHOTO_HEIGHT - small.shape[0]) // 2
    left = (_CELL_WIDTH - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    if photo.is_survivor:
        corner = (left + small.shape[1] + 2, top + small.shape[0] + 2)
        cv2.rectangle(cell, (left - 3, top - 3), corner, _GREEN, 3)
    for row, text in enumerate(photo.lines[:2]):
        rgb = (_GREEN if photo.is_survivor else _INK) if row == 0 else _QUIET
        at = (_MARGIN, _PHOTO_HEIGHT + 16 + 18 * row)
        cv2.putText(cell, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.46, rgb, 1, cv2.LINE_AA)
    return cell
