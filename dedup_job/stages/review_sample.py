"""Groups drawn at random for review, and what their reviews say of all groups.

Who reviews the least certain groups learns little about the others. So some groups of every night are
drawn by lot, and precision is estimated from them alone.
"""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations
from typing import Any

from scipy import stats

GROUPS_A_NIGHT = 50
NIGHTS_COUNTED = 30
_CONFIDENCE = 0.95
Row = dict[str, Any]


@dataclass(frozen=True)
class ReviewedPrecision:
    """Of the drawn groups that somebody reviewed, the share that is right, with its interval.

    Attributes:
        n_groups: drawn groups that are reviewed: one pair is different, or all with the survivor the same.
        n_right: those of one product.
        low: lower bound of the share, Clopper and Pearson (1934), 95 %; 0 without any group.
        high: upper bound; 1 without any group.
    """

    n_groups: int
    n_right: int
    low: float
    high: float

    @property
    def share(self) -> float | None:
        """None without any reviewed group."""
        return self.n_right / self.n_groups if self.n_groups else None


def draw_groups(group_ids: Iterable[str], run_date: date, n: int = GROUPS_A_NIGHT) -> set[str]:
    """`n` of the groups by lot; the same ones whenever a night is run again."""

    def lot(group_id: str) -> bytes:
        return hashlib.sha256(f"{run_date} {group_id}".encode()).digest()

    return set(heapq.nsmallest(n, group_ids, key=lot))


def still_counted(drawn_on: date, run_date: date) -> bool:
    """Whether groups of an earlier night count tonight."""
    return run_date - timedelta(days=NIGHTS_COUNTED) <= drawn_on < run_date


def reviewed_precision(
    sample: Iterable[Row], decisions: Mapping[tuple[str, str], str]
) -> ReviewedPrecision:
    """What reviews say of the groups that were drawn.

    Args:
        sample: rows of REVIEW_SAMPLE.
        decisions: (smaller SKU, larger SKU) -> same or different, of all rows that count, whatever
            became of them tonight: they were about the group as it was drawn.
    """
    drawn: dict[tuple[date, str], list[Row]] = defaultdict(list)
    for row in sample:
        drawn[row["drawn_on"], row["group_id"]].append(row)
    # A group that was drawn again counts once, but not in place of what it was before.
    distinct = {frozenset(row["sku_id"] for row in rows): rows for rows in drawn.values()}
    verdicts = [
        verdict for rows in distinct.values() if (verdict := _verdict(rows, decisions)) is not None
    ]
    n, right = len(verdicts), sum(verdicts)
    interval = stats.binomtest(right, n).proportion_ci(_CONFIDENCE) if n else None
    low, high = (float(interval.low), float(interval.high)) if interval else (0.0, 1.0)
    return ReviewedPrecision(n, right, low, high)


def _verdict(rows: list[Row], decisions: Mapping[tuple[str, str], str]) -> bool | None:
    """Whether a group is one product; None where that is not decided."""
    skus = sorted(row["sku_id"] for row in rows)
    said = {pair: decisions.get(pair) for pair in combinations(skus, 2)}
    if "different" in said.values():
        return False
    survivor = rows[0]["canonical_sku_id"]
    with_survivor = [word for pair, word in said.items() if survivor in pair]
    return True if all(word == "same" for word in with_survivor) else None
