"""Cosines between the products of one group, each of several photos."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BLOCK_CELLS = 8_000_000  # float64 cells of one block of the product: 64 MB


def group_cosines(
    owner: Array, content: Array, vectors: Array, canonical: int
) -> tuple[npt.NDArray[np.float32], np.float32]:
    """Best photo pair of every member with the canonical one, and the lowest of all pairs.

    Args:
        owner: int (p,), the member each photo belongs to: 0 to n-1, ascending, each occurring.
        content: int (p,), equal numbers for equal photo contents.
        vectors: float32 (p, d), unit L2 norm.
        canonical: a member.

    Returns:
        `to_canonical`, float32 (n,): exactly 1 for the canonical member and for an exact copy of one
        of its photos; and the smallest best-photo-pair cosine over all pairs of members (1 for a
        single member). Products are summed in float64 and rounded once, so a cosine is the one
        that the candidate search reported.
    """
    wide = vectors.astype(np.float64)
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    ends = np.r_[starts[1:], len(owner)]
    to_canonical, lowest = np.empty(len(starts)), 1.0
    per_block = max(1, _BLOCK_CELLS * len(starts) // max(1, len(owner) ** 2))
    for first in range(0, len(starts), per_block):
        members = slice(first, min(first + per_block, len(starts)))
        rows = slice(starts[first], ends[members.stop - 1])
        cosine = np.clip(wide[rows] @ wide.T, -1.0, 1.0)
        cosine[content[rows, None] == content] = 1.0
        best = np.maximum.reduceat(cosine, starts[members] - starts[first], axis=0)
        best = np.maximum.reduceat(best, starts, axis=1)
        best[np.arange(len(best)), np.arange(members.start, members.stop)] = 1.0
        to_canonical[members] = best[:, canonical]
        lowest = min(lowest, best.min())
    return to_canonical.astype(np.float32), np.float32(lowest)
