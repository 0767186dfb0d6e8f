"""Which of tonight's groups carries on the name of an earlier one.

Groups are matched one to one by the members they share, the largest overlap first. Sorting all
overlaps by one strict order and taking each whose two sides are still free gives the only *stable*
matching: no old and new group both have a weaker partner than each other (docs/adr/0011).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Overlaps:
    """Pairs of an old and a new group that share members; each such pair occurs once.

    Attributes:
        old: int (n,), numbers of old groups from 0, in the order of their ids.
        first_seen: int (n,), the day on which the old group was born.
        new: int (n,), numbers of new groups from 0, in the order of their smallest members.
        n_shared: int (n,), members that are in both, at least 1.
    """

    old: Array
    first_seen: Array
    new: Array
    n_shared: Array


def find_heirs(overlaps: Overlaps) -> Array:
    """Match old and new groups one to one.

    The larger overlap goes first; then the older group, the smaller old number, the smaller new one.
    The order of `overlaps` does not matter.

    Returns:
        The rows of `overlaps` whose new group inherits the id of the old one.
    """
    old, new = overlaps.old, overlaps.new
    if not len(old):
        return np.empty(0, np.int64)
    precedence = np.lexsort((new, old, overlaps.first_seen, -overlaps.n_shared))
    has_id, passed_on = bytearray(int(new.max()) + 1), bytearray(int(old.max()) + 1)
    heirs = []
    ordered = zip(
        precedence.tolist(), old[precedence].tolist(), new[precedence].tolist(), strict=True
    )
    for row, old_group, new_group in ordered:
        if not has_id[new_group] and not passed_on[old_group]:
            has_id[new_group] = passed_on[old_group] = 1
            heirs.append(row)
    return np.array(heirs, np.int64)
