"""What people decided (`--decisions`), from the file to what grouping may and must do."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.io.decisions import Decision, DecisionFile
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_batches, read_rows, read_table, write_batches
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.memory import Memory
from dedup_job.stages.decided import (
    NOT_COUNTED,
    Bond,
    Pair,
    Photos,
    Row,
    judge,
    places,
    product_photos,
    stand_ins,
    tell_outcomes,
)
from dedup_job.stages.pairs import photos_to_compare, said_pairs, scores_among
from dedup_job.tables import JUDGED_DECISIONS, NAMED_MEMBERS, PRODUCT_PAIRS, arrow_batch

_BOND_COLUMNS = ["sku_id_a", "sku_id_b", "decision", "decided_at", "photos_a", "photos_b"]


def judge_decisions(
    context: RunContext,
    decisions: DecisionFile,
    usable: DataFrame,
    products: StoredTable,
    memory: Memory,
) -> StoredTable:
    """Hold a file of decisions against tonight's catalog: JUDGED_DECISIONS.

    Args:
        context: of the run.
        decisions: the file.
        usable: USABLE_ROWS.
        products: PRODUCTS.
        memory: what the last run saw, and to which photos it bound decisions.
    """
    task = partial(_judge, context, decisions, usable, products, memory)
    return context.step(JUDGED_DECISIONS, task)


def add_said_pairs(
    context: RunContext,
    pairs: StoredTable,
    decided: pa.Table,
    products: DataFrame,
    photo_rows: DataFrame,
    contents: DataFrame,
    verified: DataFrame | None,
) -> StoredTable:
    """PRODUCT_PAIRS with those that people called the same and that did not match.

    Args:
        context: of the run.
        pairs: PRODUCT_PAIRS of those that matched; the new ones are a file beside them.
        decided: from `decided_products`; strangers called the same are few, and their photos'
            embeddings come to the driver.
        products: PRODUCTS.
        photo_rows: PHOTO_ROWS.
        contents: CONTENTS.
        verified: PHOTO_PAIRS with the scores of a verifier; None: scores are cosines.
    """

    def add(_: Folder) -> StoredTable:
        same = decided.filter(pc.equal(decided["decision"], "same")).drop_columns(["decision"])
        missing = sorted(_pairs(same) - _known(pairs, same["sku_id_a"]))
        if not missing:
            return pairs
        sku_ids = pa.table({"sku_id": sorted({sku for pair in missing for sku in pair})})
        photos = photos_to_compare(
            context.spark.createDataFrame(sku_ids), products, photo_rows, contents
        ).toArrow()
        scores = None if verified is None else scores_among(verified, photos)
        rows = list(said_pairs(missing, photos, scores))
        batch = arrow_batch(PRODUCT_PAIRS, rows)
        return replace(
            pairs, files=(*pairs.files, write_batches([batch], PRODUCT_PAIRS, pairs.folder))
        )

    return context.step(PRODUCT_PAIRS, add)


def _pairs(table: pa.Table) -> set[Pair]:
    return set(zip(*table.to_pydict().values(), strict=True))


def _known(pairs: StoredTable, firsts: pa.ChunkedArray) -> set[Pair]:
    """Those of the pairs whose smaller SKU is among `firsts`."""
    known: set[Pair] = set()
    for part in read_batches(pairs, ["sku_id_a", "sku_id_b"]):
        known |= _pairs(part.filter(pc.is_in(part["sku_id_a"], value_set=firsts.combine_chunks())))
    return known


def outcomes(judged: StoredTable, members: StoredTable) -> Iterator[Row]:
    """PAIR_DECISIONS without run_id.

    Args:
        judged: JUDGED_DECISIONS.
        members: NAMED_MEMBERS, made by them.
    """
    rows = read_rows(judged)
    wanted = pa.concat_arrays(
        [rows[name].combine_chunks() for name in ("product_a", "product_b")]
    ).unique()
    group_of: dict[str, str] = {}
    for part in read_batches(members, NAMED_MEMBERS.column_names[:2]):
        named = part.filter(pc.is_in(part["sku_id"], value_set=wanted))
        group_of.update(zip(*named.to_pydict().values(), strict=True))
    return tell_outcomes(rows, group_of)


def _judge(
    context: RunContext,
    decisions: DecisionFile,
    usable: DataFrame,
    products: StoredTable,
    memory: Memory,
    folder: Folder,
) -> StoredTable:
    rows = sorted(_rows(decisions), key=lambda row: row["decision_row"])
    named = {sku for decision in decisions.decisions for sku in decision.pair}
    sku_ids = context.spark.createDataFrame(
        pa.table({"sku_id": pa.array(sorted(named), pa.string())})
    )
    tonight = places(
        stand_ins(product_photos(sku_ids, usable), read_table(context.spark, products)).toArrow()
    )
    judged = judge(rows, tonight, _seen_before(sku_ids, memory), _bonds(memory))
    file = write_batches(judged.to_batches(), JUDGED_DECISIONS, folder)
    return StoredTable(JUDGED_DECISIONS, folder, (file,))


def _rows(decisions: DecisionFile) -> Iterator[Row]:
    """All rows of a file, in no order; those that do not count with their outcome."""
    nothing = dict.fromkeys(JUDGED_DECISIONS.column_names)
    counted: list[tuple[Decision, Row]] = [(decision, {}) for decision in decisions.decisions]
    for repeated in decisions.repeated:
        says = "the opposite" if repeated.is_contradiction else "the same"
        detail = f"row {repeated.winner.row} counts for this pair, and says {says}"
        counted.append((repeated.decision, {"outcome": "superseded", "detail": detail}))
    for decision, outcome in counted:
        said: Row = {
            "decision_row": decision.row,
            "photos_a": _listed(decision.photos_a),
            "photos_b": _listed(decision.photos_b),
        }
        for name in ("sku_id_a", "sku_id_b", "decision", "decided_by", "decided_at", "note"):
            said[name] = getattr(decision, name)
        yield {**nothing, **said, **outcome}
    for rejected in decisions.rejected:
        empty = {"decision_row": rejected.row, "photos_a": [], "photos_b": []}
        yield {**nothing, **empty, "outcome": "rejected", "detail": rejected.reason}


def _listed(photos: Photos | None) -> list[str]:
    return sorted(photos or ())


def _seen_before(sku_ids: DataFrame, memory: Memory) -> dict[str, Photos]:
    images = memory.catalog_images()
    if images is None:
        return {}
    usable = images.where(F.col("in_catalog") & F.col("reason").isNull())
    photos: dict[str, Photos] = {}
    for row in product_photos(sku_ids, usable).toArrow().to_pylist():
        photos[row["sku_id"]] = photos.get(row["sku_id"], frozenset()) | set(row["photos"])
    return photos


def _bonds(memory: Memory) -> dict[Pair, Bond]:
    stored = memory.decided_before()
    bonds: dict[Pair, Bond] = {}
    if stored is None:
        return bonds
    for part in read_batches(stored, [*_BOND_COLUMNS, "outcome"]):
        for row in part.to_pylist():
            if row.pop("outcome") not in NOT_COUNTED:
                photos = (frozenset(row["photos_a"]), frozenset(row["photos_b"]))
                pair = (row["sku_id_a"], row["sku_id_b"])
                bonds[pair] = Bond(row["decision"], row["decided_at"], *photos)
    return bonds
