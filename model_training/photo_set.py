"""Photos to learn from: what each is compared with, and their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dedup_job.kernels.grouping import connected_components
from dedup_job.kernels.images import Pixels

# The one that knows more about a photo comes first.
SOURCES = ("products", "pairs", "folder")


@dataclass(frozen=True)
class Photo:
    """One photo and what it is compared with.

    Attributes:
        path: of the file.
        source: one of SOURCES.
        identity: equal = duplicates.
        product: equal with another identity = neither duplicates nor different.
        family: equal with another product = a real hard negative.
        held_out: for validation and calibration only.

    Names begin with where the photo comes from (`named`): two sources may use one name for two pictures.
    """

    path: Path
    source: str
    identity: str
    product: str
    family: str
    held_out: bool


@dataclass
class PhotoSet:
    """Decoded photos and garment masks in memory.

    Attributes:
        photos: the list; row i of everything else belongs to photo i.
        pixels: uint8 (height, width, 3) each, longer side at most `photo_cache.CACHE_SIDE_PX`.
        masks: uint8 (height, width) each, 255 on the garment.
        mask_good: bool (n,), the mask is good enough to cut the garment out.
        dissimilar: rows of photos said to differ, by row (from binary pairs).
        near: pairs of rows that show one picture in two sources.
    """

    photos: list[Photo]
    pixels: list[Pixels]
    masks: list[Pixels]
    mask_good: np.ndarray
    dissimilar: dict[int, list[int]] = field(default_factory=dict)
    near: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.photos)


def named(origin: str, name: str) -> str:
    """A name that no photo of another origin has."""
    return f"{origin}:{name}"


def origin_of(photo: Photo) -> str:
    """The origin that `named` the photo."""
    return photo.identity.partition(":")[0]


def connected(photos: list[Photo], near: Sequence[tuple[int, int]] = ()) -> np.ndarray:
    """What must lie on one side of the split: all of one product, of one family, and near pairs.

    Returns:
        int64 (n,), the first row of each photo's component.
    """
    left, right = [i for i, _ in near], [j for _, j in near]
    for names in ([p.product for p in photos], [p.family for p in photos]):
        first: dict[str, int] = {}
        left += [first.setdefault(name, i) for i, name in enumerate(names)]
        right += range(len(photos))
    return connected_components(len(photos), np.array(left, int), np.array(right, int))
