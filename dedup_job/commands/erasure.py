"""What is left of a table's rows when SKUs are forgotten: which rows it touches, and what they become."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.io.tables import StoredTable, read_batches
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    IMAGE_EMBEDDINGS,
    LOOK_ALIKE_IDS,
    PAIR_DECISIONS,
    PLACEHOLDER_IMAGES,
    REJECTED_IMAGES,
    REVIEW_SAMPLE,
    SCORED_PAIRS,
    SEARCHED_CONTENTS,
)

Row = dict[str, Any]
# Where SKUs stand, and contents. Tables that are not named here hold neither.
_SKU_COLUMNS = {
    DUPLICATE_GROUPS.name: ["sku_id", "canonical_sku_id"],
    DUPLICATE_PAIRS.name: ["sku_id_a", "sku_id_b"],
    GROUP_CHANGES.name: ["added_sku_ids", "removed_sku_ids"],
    REJECTED_IMAGES.name: ["sku_id"],
    LOOK_ALIKE_IDS.name: ["sku_id"],
    PAIR_DECISIONS.name: ["sku_id_a", "sku_id_b"],
    REVIEW_SAMPLE.name: ["sku_id", "canonical_sku_id"],
    CATALOG_IMAGES.name: ["sku_id"],
}
_CONTENT_COLUMNS = {
    SCORED_PAIRS.name: ["sha_a", "sha_b"],
    SEARCHED_CONTENTS.name: ["content_sha256"],
    IMAGE_EMBEDDINGS.name: ["content_sha256"],
}


@dataclass(frozen=True)
class Forgotten:
    """What must go.

    Attributes:
        sku_ids: the SKUs.
        contents: `content_sha256` of photos that no other SKU shows.
        image_uris: addresses of photos that no other SKU names.
        examples: of the other contents these SKUs show, a photo of another SKU.
        groups: of one run, group -> SKU -> row, for every group that must change: its new rows.
    """

    sku_ids: frozenset[str]
    contents: frozenset[str] = frozenset()
    image_uris: frozenset[str] = frozenset()
    examples: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Row]] = field(default_factory=dict)


def columns_to_look_at(table_name: str) -> list[str]:
    """Columns that tell whether a row is touched; none: no row ever is."""
    if table_name == PLACEHOLDER_IMAGES.name:
        return ["image_uri"]
    return _SKU_COLUMNS.get(table_name) or _CONTENT_COLUMNS.get(table_name) or []


def is_touched(rows: pa.Table, table_name: str, forgotten: Forgotten) -> np.ndarray:
    """Which rows name what must go: bool (n,). `rows` has `columns_to_look_at`."""
    wanted: Collection[str] = forgotten.sku_ids
    if table_name == PLACEHOLDER_IMAGES.name:
        wanted = forgotten.image_uris
    elif table_name in _CONTENT_COLUMNS:
        wanted = forgotten.contents
    touched = np.zeros(rows.num_rows, bool)
    for name in columns_to_look_at(table_name):
        touched |= _names_any(rows[name].combine_chunks(), wanted)
    return touched


def named_skus(rows: pa.Table, table_name: str, sku_ids: frozenset[str]) -> set[str]:
    """Which of the SKUs the rows name."""
    found: set[str] = set()
    for name in _SKU_COLUMNS.get(table_name, []):
        found.update(
            sku_ids.intersection(pc.unique(_flat(rows[name].combine_chunks())).to_pylist())
        )
    return found


def erase(rows: pa.Table, table_name: str, forgotten: Forgotten) -> pa.Table:
    """The rows without what must go. `rows` has all columns."""
    if table_name == DUPLICATE_GROUPS.name:
        touched = _names_any(rows["group_id"].combine_chunks(), forgotten.groups.keys())
    else:
        touched = is_touched(rows, table_name, forgotten)
    if not touched.any():
        return rows
    if table_name not in _EDITED:
        return rows.filter(pa.array(~touched))
    edit = _EDITED[table_name]
    edited = [
        edit(row, forgotten) if hit else row
        for row, hit in zip(rows.to_pylist(), touched.tolist(), strict=True)
    ]
    return pa.Table.from_pylist([row for row in edited if row is not None], schema=rows.schema)


def repair_groups(
    groups: StoredTable, pairs: StoredTable | None, sku_ids: frozenset[str]
) -> dict[str, dict[str, Row]]:
    """New rows of every group of a run that holds one of the SKUs: group -> SKU -> row.

    Args:
        groups: DUPLICATE_GROUPS of the run; the rows of the groups concerned are held in memory.
        pairs: DUPLICATE_PAIRS of the run.
        sku_ids: the SKUs.
    """
    concerned: set[str] = set()
    only = Forgotten(sku_ids)
    for rows in read_batches(groups, ["group_id", *columns_to_look_at(DUPLICATE_GROUPS.name)]):
        touched = is_touched(rows, DUPLICATE_GROUPS.name, only)
        concerned.update(rows["group_id"].filter(pa.array(touched)).to_pylist())
    if not concerned:
        return {}
    members: dict[str, list[Row]] = {group: [] for group in concerned}
    for row in _rows_of(groups, groups.table.column_names, concerned):
        members[row["group_id"]].append(row)
    known: dict[str, dict[tuple[str, str], Row]] = {group: {} for group in concerned}
    columns = ["group_id", "sku_id_a", "sku_id_b", "cosine", "match_type"]
    for row in _rows_of(pairs, columns, concerned) if pairs else ():
        known[row["group_id"]][row["sku_id_a"], row["sku_id_b"]] = row
    return {
        group: {row["sku_id"]: row for row in repair_group(rows, known[group], sku_ids)}
        for group, rows in members.items()
    }


def repair_group(
    rows: list[Row], pairs: Mapping[tuple[str, str], Row], sku_ids: frozenset[str]
) -> list[Row]:
    """The rows of a group without some members; none, if fewer than two are left.

    If the survivor goes, the member with the smallest id follows it. `min_pair_cosine` stays: of
    the pairs that are left it is a lower bound, and stands in where a pair with the new survivor is
    not in the report.

    Args:
        rows: all rows of the group.
        pairs: the group's rows of `duplicate_pairs` by their two SKUs, the smaller first.
        sku_ids: who goes.
    """
    left = [row for row in rows if row["sku_id"] not in sku_ids]
    if len(left) < 2:
        return []
    survivor = left[0]["canonical_sku_id"]
    is_orphaned = survivor in sku_ids
    if is_orphaned:
        survivor = min(row["sku_id"] for row in left)
    ids = [row["sku_id"] for row in left]
    exact = {sku for a, b in pairs if _is_exact(pairs[a, b]) and {a, b} <= {*ids} for sku in (a, b)}
    repaired = []
    for row in left:
        sku = row["sku_id"]
        new = {
            **row,
            "canonical_sku_id": survivor,
            "is_canonical": sku == survivor,
            "group_size": len(left),
            "match_type": "near"
            if row["match_type"] == "exact" and sku not in exact
            else row["match_type"],
        }
        if is_orphaned:
            pair = pairs.get((min(sku, survivor), max(sku, survivor)))
            new["cosine_to_canonical"] = pair["cosine"] if pair else row["min_pair_cosine"]
            if sku == survivor:
                new["cosine_to_canonical"] = 1.0
        repaired.append(new)
    return repaired


def _is_exact(pair: Row) -> bool:
    return bool(pair["match_type"] == "exact")


def _edit_group(row: Row, forgotten: Forgotten) -> Row | None:
    return forgotten.groups[row["group_id"]].get(row["sku_id"])


def _edit_change(row: Row, forgotten: Forgotten) -> Row | None:
    """None if the SKUs were all that had changed."""
    left = {
        name: [sku for sku in row[name] if sku not in forgotten.sku_ids]
        for name in _SKU_COLUMNS[GROUP_CHANGES.name]
    }
    return {**row, **left} if any(left.values()) else None


def _edit_placeholder(row: Row, forgotten: Forgotten) -> Row | None:
    """Another photo becomes the example; None if there is no other."""
    example = forgotten.examples.get(row["content_sha256"])
    return {**row, "image_uri": example} if example else None


_EDITED = {
    DUPLICATE_GROUPS.name: _edit_group,
    GROUP_CHANGES.name: _edit_change,
    PLACEHOLDER_IMAGES.name: _edit_placeholder,
}


def _rows_of(stored: StoredTable, columns: list[str], groups: Collection[str]) -> list[Row]:
    found: list[Row] = []
    for rows in read_batches(stored, columns):
        hit = _names_any(rows["group_id"].combine_chunks(), groups)
        found += rows.filter(pa.array(hit)).to_pylist()
    return found


def _names_any(column: pa.Array, wanted: Collection[str]) -> np.ndarray:
    """Which values are wanted, or of an array column which arrays hold one that is."""
    hit = pc.is_in(_flat(column), value_set=pa.array(sorted(wanted), pa.string()))
    hits = hit.to_numpy(zero_copy_only=False)
    if not pa.types.is_list(column.type):
        return np.asarray(hits, bool)
    named = np.zeros(len(column), bool)
    named[pc.list_parent_indices(column).to_numpy()[hits]] = True
    return named


def _flat(column: pa.Array) -> pa.Array:
    return pc.list_flatten(column) if pa.types.is_list(column.type) else column
