"""The ids of tonight's groups: inherited from the last published run, or born (docs/adr/0011)."""

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.kernels.inheritance import Overlaps, find_heirs

Array = npt.NDArray[Any]
PREVIOUS_COLUMNS = ["group_id", "sku_id", "group_first_seen", "member_since"]
_HASH_DIGITS = 16  # 64 bits: ten million groups born in one night, one collision in 370,000 nights
_NONE = -1


@dataclass(frozen=True)
class _Before:
    """The last published run, as tonight's members see it.

    `ids` and `first_seen` (days since 1970) are those of its groups; `group` is the old group of each
    member of tonight, `_NONE` where it was in none, and `since` the day it came there.
    """

    ids: pa.Array
    first_seen: Array
    group: Array
    since: Array


def name_groups(
    sku_ids: pa.Array, first: Array, previous: pa.Table | None, run_date: date
) -> pa.Table:
    """Give every group its id, and say since when it and its members are there.

    Args:
        sku_ids: large_string (m,), the members of all groups, each once, in ascending order.
        first: int (m,), the row of the smallest member of each one's group.
        previous: PREVIOUS_COLUMNS of the last published run before this one, as DUPLICATE_GROUPS;
            None on the first night of all.
        run_date: the date on which groups are born.

    Returns:
        sku_id, group_id, group_first_seen, member_since; in the order of `sku_ids`.
    """
    leaders, group = np.unique(first, return_inverse=True)
    first_skus, tonight = sku_ids.take(pa.array(leaders)), _days(run_date)
    if previous is None:
        previous = _table_of_none()
    before = _look_back(sku_ids, previous)
    heir_of = _inherit(first_skus, group, before)
    inherits = heir_of != _NONE
    taken = set(before.ids.filter(pa.array(before.first_seen >= tonight)).to_pylist())
    born = _born_ids(first_skus.filter(pa.array(~inherits)), run_date, taken)
    group_ids = pa.concat_arrays([before.ids.take(pa.array(heir_of[inherits])), born])
    place = np.empty(len(leaders), np.int64)
    place[np.r_[np.flatnonzero(inherits), np.flatnonzero(~inherits)]] = np.arange(len(leaders))
    first_seen = np.full(len(leaders), tonight, np.int32)
    first_seen[inherits] = before.first_seen[heir_of[inherits]]
    stayed = (before.group == heir_of[group]) & (before.group != _NONE)
    return pa.table(
        {
            "sku_id": sku_ids,
            "group_id": group_ids.take(pa.array(place[group])),
            "group_first_seen": _dates(first_seen[group]),
            "member_since": _dates(np.where(stayed, before.since, tonight)),
        }
    )


def born_id(first_sku_id: str, run_date: date) -> str:
    """Id of a group born on a date: from the date and the smallest SKU at birth."""
    digest = hashlib.sha256(first_sku_id.encode()).hexdigest()[:_HASH_DIGITS]
    return f"g{run_date:%Y%m%d}-{digest}"


def _look_back(sku_ids: pa.Array, previous: pa.Table) -> _Before:
    row = pc.index_in(previous["sku_id"].cast(sku_ids.type), value_set=sku_ids)
    still_here = pc.is_valid(row)
    rows = row.filter(still_here).combine_chunks().to_numpy()
    encoded = previous["group_id"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    born, since = (
        previous[name].cast(pa.int32()).to_numpy() for name in ("group_first_seen", "member_since")
    )
    first_seen = np.empty(len(encoded.dictionary), np.int32)
    first_seen[codes] = born
    kept = still_here.to_numpy()
    old_group, member_since = np.full((2, len(sku_ids)), _NONE, np.int32)
    old_group[rows], member_since[rows] = codes[kept], since[kept]
    return _Before(encoded.dictionary, first_seen, old_group, member_since)


def _inherit(first_skus: pa.Array, group: Array, before: _Before) -> Array:
    """The old group that each of tonight's groups carries on, `_NONE` where it is born."""
    heir_of = np.full(len(first_skus), _NONE, np.int64)
    met = before.group != _NONE
    claims, n_shared = np.unique(
        before.group[met] * np.int64(len(first_skus)) + group[met], return_counts=True
    )
    old, new = np.divmod(claims, max(1, len(first_skus)))
    # Most groups meet one group and are met by one. Only rivals are compared.
    is_contested = (np.bincount(old)[old] > 1) | (np.bincount(new)[new] > 1)
    heir_of[new[~is_contested]] = old[~is_contested]
    old, new, n_shared = old[is_contested], new[is_contested], n_shared[is_contested]
    overlaps = Overlaps(_in_order_of_ids(old, before.ids), before.first_seen[old], new, n_shared)
    heirs = find_heirs(overlaps)
    heir_of[new[heirs]] = old[heirs]
    return heir_of


def _in_order_of_ids(groups: Array, ids: pa.Array) -> Array:
    """Other numbers for these groups, from 0, in the order of their ids."""
    used, places = np.unique(groups, return_inverse=True)
    ranks = np.empty(len(used), np.int64)
    ranks[pc.sort_indices(ids.take(pa.array(used))).to_numpy()] = np.arange(len(used))
    return ranks[places]


def _born_ids(first_skus: pa.Array, run_date: date, taken: set[str]) -> pa.Array:
    """Ids of groups that are born tonight.

    `taken` is empty on an ordinary night. A shadow run compares with a published run of its own date:
    there a new group and an heir could both be named after one SKU. No published id ends in x.
    """
    ids = (born_id(sku_id, run_date) for sku_id in first_skus.to_pylist())
    fresh = [id_ + "x" if id_ in taken else id_ for id_ in ids]
    return pa.array(fresh, pa.large_string())


def _table_of_none() -> pa.Table:
    types = [pa.large_string(), pa.large_string(), pa.date32(), pa.date32()]
    return pa.schema(list(zip(PREVIOUS_COLUMNS, types, strict=True))).empty_table()


def _days(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _dates(days: Array) -> pa.Array:
    return pa.array(days.astype(np.int32)).cast(pa.date32())
