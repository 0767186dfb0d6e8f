"""The groups of a night that are drawn for review, and what earlier ones turned out to be."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.io.tables import StoredTable, read_batches
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.memory import Memory
from dedup_job.stages.decided import NOT_COUNTED, Row
from dedup_job.stages.review_sample import (
    ReviewedPrecision,
    draw_groups,
    reviewed_precision,
    still_counted,
)
from dedup_job.tables import REVIEW_SAMPLE


def sample_groups(context: RunContext, memory: Memory, groups: StoredTable) -> list[Row]:
    """REVIEW_SAMPLE: groups of earlier nights that still count, and tonight's.

    Args:
        context: of the run.
        memory: the base run's sample.
        groups: tonight's DUPLICATE_GROUPS; streamed.
    """
    rows = list(_earlier(context, memory))
    columns = ["group_id", "sku_id", "canonical_sku_id"]
    drawn = draw_groups(_group_ids(groups), context.run_date)
    wanted = pa.array(sorted(drawn), pa.string())
    for part in read_batches(groups, columns):
        members = part.filter(pc.is_in(part["group_id"], value_set=wanted))
        rows += [{**row, "drawn_on": context.run_date} for row in members.to_pylist()]
    return [{**row, "run_id": context.run_id} for row in rows]


def judge_sample(context: RunContext, sample: list[Row], decisions: list[Row]) -> ReviewedPrecision:
    """The share of drawn groups that reviews found right.

    Args:
        context: of the run.
        sample: from `sample_groups`; tonight's nobody can have seen.
        decisions: PAIR_DECISIONS.
    """
    said = {
        (row["sku_id_a"], row["sku_id_b"]): row["decision"]
        for row in decisions
        if row["outcome"] not in NOT_COUNTED
    }
    return reviewed_precision((row for row in sample if row["drawn_on"] < context.run_date), said)


def _earlier(context: RunContext, memory: Memory) -> Iterator[Row]:
    stored = memory.drawn_before()
    for part in read_batches(stored, REVIEW_SAMPLE.column_names[:-1]) if stored else ():
        yield from (
            row for row in part.to_pylist() if still_counted(row["drawn_on"], context.run_date)
        )


def _group_ids(groups: StoredTable) -> Iterator[str]:
    for part in read_batches(groups, ["group_id", "is_canonical"]):
        yield from part.filter(part["is_canonical"])["group_id"].to_pylist()
