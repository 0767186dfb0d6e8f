"""What a model looks at, and what parts two photos for it: by changing one place after the other.

Occlusion sensitivity (Zeiler & Fergus, ECCV 2014, section 4.2): it needs the embedder alone, as it runs
in the job, and no knowledge of its layers. Where two photos differ is asked in the same way, by
swapping a place between them: what is hidden keeps its colour, so hiding would not see a colourway.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dedup_job.kernels.images import Pixels

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Map = NDArray[np.float32]
# Of the photo's side: a patch that hides a print or a collar, moved by a third of itself.
_PATCH_SHARE, _STEPS_A_PATCH = 0.1875, 3
_BATCH = 64
_COLD = 0.004  # of a cosine; a print of a cap makes .005, a photo saved anew .0002


@dataclass(frozen=True)
class Comparison:
    """Two photos, as a model sees them. Maps are float32 (size, size), at least 0.

    Attributes:
        cosine: of the two embeddings.
        attention_a: how far photo a's embedding moves when a place is hidden, as 1 - cosine.
        attention_b: the same of b.
        difference: how much more alike the two become when a place of one is put into the other.
    """

    cosine: float
    attention_a: Map
    attention_b: Map
    difference: Map


def compare_places(
    a: Pixels, b: Pixels, embed: Embed, b_over_a: Pixels | None = None
) -> Comparison:
    """Compare two photos place by place.

    Args:
        a: uint8 (size, size, 3).
        b: the same shape.
        embed: uint8 (n, size, size, 3) to float32 (n, d) unit rows.
        b_over_a: b as it lies over a, whose places are swapped with a's; None: b as it is.

    Raises:
        ValueError: the shapes differ or are not square.
    """
    if a.shape != b.shape or a.shape[0] != a.shape[1]:
        raise ValueError(f"two square photos of one size are needed; got {a.shape} and {b.shape}")
    size = a.shape[0]
    patch = max(2, round(_PATCH_SHARE * size))
    starts = _starts(size, patch)
    places = [(top, left) for top in starts for left in starts]
    other = b if b_over_a is None else b_over_a
    whole = embed(np.stack([a, b, other]))
    cosine, swapped = (float(whole[0].astype(np.float64) @ whole[i]) for i in (1, 2))

    def changed(photo: Pixels, other: Pixels) -> NDArray[np.float32]:
        return _embed_changed(photo, other, places, patch, embed)

    def hidden(photo: Pixels) -> Pixels:
        return np.asarray(cv2.GaussianBlur(photo, (0, 0), patch), np.uint8)

    gained = (changed(a, other) @ whole[2] + changed(other, a) @ whole[0]) / 2 - swapped
    return Comparison(
        cosine,
        _spread(1.0 - changed(a, hidden(a)) @ whole[0], places, patch, size),
        _spread(1.0 - changed(b, hidden(b)) @ whole[1], places, patch, size),
        _spread(gained, places, patch, size),
    )


def overlay(photo: Pixels, heat: Map, strength: float = 0.55, *, own_scale: bool = True) -> Pixels:
    """The photo with a map over it: uint8 (size, size, 3), the hottest place red.

    Args:
        photo: uint8 (size, size, 3).
        heat: float32 (size, size), at least 0; scaled by its own highest value, unless that is
            below what repeated photos of one thing differ by: two duplicates stay cold.
        strength: of the colour where it is hottest, 0 to 1.
        own_scale: False takes the map as it is, 0 to 1.
    """
    share = heat / max(float(heat.max()), _COLD) if own_scale else heat
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colour = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1]
    weight = strength * share[:, :, None]
    return np.clip((1 - weight) * grey + weight * colour, 0, 255).astype(np.uint8)


def _starts(size: int, patch: int) -> list[int]:
    step = max(1, patch // _STEPS_A_PATCH)
    return [*range(0, size - patch, step), size - patch]


def _embed_changed(
    photo: Pixels, other: Pixels, places: list[tuple[int, int]], patch: int, embed: Embed
) -> NDArray[np.float32]:
    """Embeddings of the photo with each place taken from another one."""
    found = []
    for first in range(0, len(places), _BATCH):
        some = places[first : first + _BATCH]
        batch = np.repeat(photo[None], len(some), axis=0)
        for changed, (top, left) in zip(batch, some, strict=True):
            rows, columns = slice(top, top + patch), slice(left, left + patch)
            changed[rows, columns] = other[rows, columns]
        found.append(embed(batch))
    return np.concatenate(found)


def _spread(
    values: NDArray[np.floating], places: list[tuple[int, int]], patch: int, size: int
) -> Map:
    """The mean of the values of all patches over each pixel; what is below 0 is 0."""
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for value, (top, left) in zip(values, places, strict=True):
        total[top : top + patch, left : left + patch] += value
        count[top : top + patch, left : left + patch] += 1
    return np.maximum(total / count, 0).astype(np.float32)
