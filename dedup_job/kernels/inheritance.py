"""Which of tonight's groups carries on the name of an earlier one.

Groups are matched one to one by the members they share, the largest overlap first. Sorting all
overlaps by one strict order and taking each whose two sides are still free gives the only *stable*
matching: no old and new group both have a weaker partner than each other (docs/adr/0011).
"""

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple


class Overlap(NamedTuple):
    """An old and a new group that share members; each such pair of groups occurs once.

    Attributes:
        old_id: id of the old group.
        old_first_seen: date on which the old group was born.
        new_key: the smallest member of the new group.
        n_shared: members that are in both, at least 1.
    """

    old_id: str
    old_first_seen: date
    new_key: str
    n_shared: int


def find_heirs(overlaps: Iterable[Overlap]) -> dict[str, str]:
    """Match old and new groups one to one.

    The larger overlap goes first; then the older group, the smaller id, the smaller `new_key`
    (strings by code point, as Spark compares them). The order of `overlaps` does not matter.

    Returns:
        `new_key` to `old_id` of every new group that inherits an id.
    """
    heirs: dict[str, str] = {}
    passed_on: set[str] = set()
    for overlap in sorted(overlaps, key=_precedence):
        if overlap.new_key not in heirs and overlap.old_id not in passed_on:
            heirs[overlap.new_key] = overlap.old_id
            passed_on.add(overlap.old_id)
    return heirs


def _precedence(overlap: Overlap) -> tuple[int, date, str, str]:
    return -overlap.n_shared, overlap.old_first_seen, overlap.old_id, overlap.new_key
