"""What people decided about pairs, held against tonight's catalog (docs/adr/0022).

A decision names two SKUs, and means the products they belong to. It stands while the photos it was
made on are still theirs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.tables import JUDGED_DECISIONS, PHOTO_DIGITS, arrow_batch

Row = dict[str, Any]
Pair = tuple[str, str]
Photos = frozenset[str]
# Rows that say nothing of their pair: another row does, or they cannot be read.
NOT_COUNTED = ("superseded", "rejected")
_NO_PHOTOS: Photos = frozenset()


@dataclass(frozen=True)
class Place:
    """Where a SKU is: its product, by the SKU that stands for it, and the product's photos."""

    block: str
    representative: str
    photos: Photos


@dataclass(frozen=True)
class Bond:
    """A decision as an earlier night bound it to photos."""

    decision: str
    decided_at: datetime | None
    photos_a: Photos
    photos_b: Photos


def product_photos(sku_ids: DataFrame, rows: DataFrame) -> DataFrame:
    """sku_id, block, product and `photos` (array of PHOTO_DIGITS of each content) of some SKUs.

    Args:
        sku_ids: sku_id, distinct; few enough to be sent to every executor.
        rows: USABLE_ROWS, or CATALOG_IMAGES that are usable: sku_id, block, product, content_sha256.
    """
    rows = rows.select("sku_id", "block", "product", "content_sha256")
    wanted = rows.join(F.broadcast(sku_ids), "sku_id").select("sku_id", "block", "product")
    photo = F.substring("content_sha256", 1, PHOTO_DIGITS)
    return (
        rows.join(
            F.broadcast(wanted.distinct().withColumnRenamed("sku_id", "named")),
            ["block", "product"],
        )
        .groupBy(F.col("named").alias("sku_id"), "block", "product")
        .agg(F.sort_array(F.collect_set(photo)).alias("photos"))
    )


def stand_ins(photos: DataFrame, products: DataFrame) -> DataFrame:
    """`product_photos` with the `representative` of each product, null where none is compared."""
    named = products.select("block", "product", F.col("sku_id").alias("representative"))
    return photos.join(named, ["block", "product"], "left")


def places(found: pa.Table) -> dict[str, list[Place]]:
    """`stand_ins` by SKU; a SKU may be in several blocks."""
    by_sku: dict[str, list[Place]] = {}
    for row in found.to_pylist():
        if row["representative"] is not None:
            place = Place(row["block"], row["representative"], frozenset(row["photos"]))
            by_sku.setdefault(row["sku_id"], []).append(place)
    return by_sku


def judge(
    decisions: Iterable[Row],
    tonight: Mapping[str, list[Place]],
    before: Mapping[str, Photos],
    bonds: Mapping[Pair, Bond],
) -> pa.Table:
    """JUDGED_DECISIONS of all rows of a decisions file.

    A decision is bound to the photos its row names; else to those an earlier night bound it to; else to
    those the last run saw, for that is what was reviewed; else to tonight's.

    Args:
        decisions: rows as JUDGED_DECISIONS has them; `photos_a` and `photos_b` are None where the file
            does not say. Rows that do not count have an outcome already.
        tonight: where SKUs are.
        before: photos of SKUs' products as the last run saw them.
        bonds: decisions of the last run.
    """
    rows = [row if row["outcome"] else _bind(row, tonight, before, bonds) for row in decisions]
    return pa.Table.from_batches([arrow_batch(JUDGED_DECISIONS, _contradict(rows))])


def _bind(
    row: Row,
    tonight: Mapping[str, list[Place]],
    before: Mapping[str, Photos],
    bonds: Mapping[Pair, Bond],
) -> Row:
    a, b = row["sku_id_a"], row["sku_id_b"]
    at_a, at_b = tonight.get(a, []), tonight.get(b, [])
    bond = bonds.get((a, b))
    if bond and (bond.decision, bond.decided_at) != (row["decision"], row["decided_at"]):
        bond = None
    photos_a, photos_b = (
        frozenset(row[name] or (bond and getattr(bond, name)) or before.get(sku) or _all_photos(at))
        for name, sku, at in (("photos_a", a, at_a), ("photos_b", b, at_b))
    )
    judged = {**row, "photos_a": sorted(photos_a), "photos_b": sorted(photos_b)}
    absent = [sku for sku, at in ((a, at_a), (b, at_b)) if not at]
    if absent:
        what = " and ".join(repr(sku) for sku in absent)
        return {**judged, "outcome": "absent", "detail": f"{what}: no usable photo tonight"}
    lost = (photos_a - _all_photos(at_a), photos_b - _all_photos(at_b))
    if any(lost):
        gone = ", ".join(
            f"{len(one)} of {sku!r}" for sku, one in zip((a, b), lost, strict=True) if one
        )
        detail = f"photos it was made on are gone: {gone}; decide again, with a later decided_at"
        return {**judged, "outcome": "reopened", "detail": detail}
    return judged | _products(row["decision"], at_a, at_b)


def _all_photos(places_of_sku: Iterable[Place]) -> Photos:
    return _NO_PHOTOS.union(*(place.photos for place in places_of_sku))


def _products(decision: str, at_a: list[Place], at_b: list[Place]) -> Row:
    """What two SKUs' products make of a decision that stands."""
    shared = sorted({place.block for place in at_a} & {place.block for place in at_b})
    if not shared:
        if decision == "different":
            return {"outcome": "applied"}
        return {"outcome": "contradicted", "detail": "their --block-by values differ"}
    one, other = (
        next(place.representative for place in at if place.block == shared[0])
        for at in (at_a, at_b)
    )
    if one != other:
        return {"outcome": "applied", "product_a": one, "product_b": other}
    if decision == "same":
        return {"outcome": "applied"}
    return {"outcome": "contradicted", "detail": "both are sizes of one product (variant group)"}


def _contradict(rows: list[Row]) -> Iterator[Row]:
    """Where SKUs of two products were called both same and different, `different` counts."""
    apart = {_pair(row): row for row in rows if row["product_a"] and row["decision"] == "different"}
    for row in rows:
        if row["product_a"] and row["decision"] == "same" and _pair(row) in apart:
            winner = apart[_pair(row)]
            row = {**row, "product_a": None, "product_b": None, **_beaten_by(winner)}
        yield row


def _beaten_by(winner: Row) -> Row:
    return {
        "outcome": "contradicted",
        "detail": f"row {winner['decision_row']}: {winner['sku_id_a']!r} and "
        f"{winner['sku_id_b']!r} are different",
    }


def _pair(row: Row) -> Pair:
    smaller, larger = sorted((row["product_a"], row["product_b"]))
    return smaller, larger


def decided_products(judged: pa.Table) -> pa.Table | None:
    """sku_id_a < sku_id_b (of representing SKUs), decision: what counts tonight, each pair once.

    None where nothing does.
    """
    decided = {
        _pair(row): row["decision"] for row in judged.to_pylist() if row["product_a"] is not None
    }
    if not decided:
        return None
    pairs = sorted(decided)
    return pa.table(
        {
            "sku_id_a": pa.array([a for a, _ in pairs], pa.string()),
            "sku_id_b": pa.array([b for _, b in pairs], pa.string()),
            "decision": pa.array([decided[pair] for pair in pairs], pa.string()),
        }
    )


def tell_outcomes(judged: pa.Table, group_of: Mapping[str, str]) -> Iterator[Row]:
    """PAIR_DECISIONS without run_id: what became of every decision.

    Args:
        judged: JUDGED_DECISIONS.
        group_of: representing SKU -> group_id, of those that are in a group.
    """
    rows = judged.to_pylist()
    between: dict[Pair, Row] = {}
    for row in rows:
        if row["product_a"] is not None and row["decision"] == "different":
            between.setdefault(_groups(row["product_a"], row["product_b"], group_of), row)
    for row in rows:
        one, other = row.pop("product_a"), row.pop("product_b")
        group = group_of.get(one)
        together = group is not None and group == group_of.get(other)
        row["group_id"] = group if together else None
        if one is not None and row["decision"] == "same" and not together:
            row |= _beaten_by(between[_groups(one, other, group_of)])
        yield row


def _groups(one: str, other: str, group_of: Mapping[str, str]) -> Pair:
    """The groups of two products; a product in none is named by itself, as no group can be."""
    smaller, larger = sorted(group_of.get(end, f"\0{end}") for end in (one, other))
    return smaller, larger
