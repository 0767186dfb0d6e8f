"""Catalog rows that name a SKU and a photo, apart from those that do not.

Every row of the catalog ends in exactly one of the two.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io.uris import fetch_key, redact, resolve, uri_key
from dedup_job.tables import CATALOG_REJECTS, CATALOG_ROWS, Table, arrow_batch
from dedup_job.tables import Column as TableColumn

# An id is copied into every pair and group; one of a megabyte is a file that went wrong.
MAX_SKU_CHARS = 1_000
_ROW_ONLY = {"sku_id", "image_uri", "source_uri", "fetch_key", "uri_key", "product"}
CLASSIFIED_CATALOG = Table(
    "classified_catalog",
    "a row of raw_catalog with its verdict",
    (
        *(
            TableColumn(c.name, c.type, c.meaning, c.nullable or c.name in _ROW_ONLY)
            for c in CATALOG_ROWS.columns
        ),
        TableColumn("reason", "string", "null when the row is usable", nullable=True),
        TableColumn("detail", "string", "null when the row is usable", nullable=True),
    ),
)
_COMPARED = ("variant_group", "block", "conflict")


def classify_catalog(raw: DataFrame, base: str) -> DataFrame:
    """Give every row of RAW_CATALOG its verdict.

    The first that applies:

    1. malformed_row, null_sku, null_uri, uri_refused: by the row alone.
    2. conflicting_row: variant group, block or conflict values differ from those of the SKU's first
       usable row; null differs from a value.
    3. duplicate_row: a usable row with an equal (sku_id, source_uri) stands earlier. A conflicting
       row makes no later row a duplicate, or its SKU would lose the photo.

    Args:
        raw: table RAW_CATALOG.
        base: what relative image URIs are relative to; see `uris.resolve`.

    Returns:
        Table CLASSIFIED_CATALOG. Both `accepted_rows` and `rejected_rows` read it: materialise it to
        judge once.
    """
    judged = raw.mapInArrow(_JudgeRows(base), CLASSIFIED_CATALOG.ddl)
    verdicts = _reject_repeated(_reject_conflicting(judged))
    return verdicts.select(*CLASSIFIED_CATALOG.column_names)


def accepted_rows(classified: DataFrame) -> DataFrame:
    """The rows of CLASSIFIED_CATALOG without a reject reason, as table CATALOG_ROWS."""
    return classified.where(F.col("reason").isNull()).select(*CATALOG_ROWS.column_names)


def rejected_rows(classified: DataFrame) -> DataFrame:
    """The other rows of CLASSIFIED_CATALOG as table CATALOG_REJECTS."""
    return classified.where(F.col("reason").isNotNull()).select(*CATALOG_REJECTS.column_names)


def _reject_conflicting(judged: DataFrame) -> DataFrame:
    by_sku = Window.partitionBy("sku_id", _alone()).orderBy("position")
    first = F.first(F.struct("catalog_row", *_COMPARED)).over(by_sku)
    differing = _differing_columns()
    detail = F.concat(differing, F.lit(" not as in catalog row "), F.col("first.catalog_row"))
    return _reject(
        judged.withColumn("first", first), differing != "", RejectReason.CONFLICTING_ROW, detail
    )


def _reject_repeated(judged: DataFrame) -> DataFrame:
    by_photo = Window.partitionBy("sku_id", "source_uri", _alone()).orderBy("position")
    numbered = judged.withColumn("nth", F.row_number().over(by_photo))
    detail = F.lit("the same SKU and photo stand in an earlier row")
    return _reject(numbered, F.col("nth") > 1, RejectReason.DUPLICATE_ROW, detail)


def _alone() -> Column:
    """A window key that keeps rejected rows out of the windows: each is a window of its own."""
    return F.when(F.col("reason").isNotNull(), F.col("position"))


def _reject(rows: DataFrame, is_wrong: Column, reason: RejectReason, detail: Column) -> DataFrame:
    """Set reason and detail of the rows that are wrong and have no reason yet."""
    is_rejected = F.col("reason").isNull() & is_wrong
    columns = {"reason": F.lit(reason.value), "detail": detail}
    return rows.withColumns(
        {name: F.when(is_rejected, new).otherwise(F.col(name)) for name, new in columns.items()}
    )


def _differing_columns() -> Column:
    names = {"variant_group": "variant group", "block": "block", "conflict": "conflict values"}
    labels = [
        F.when(~F.col(name).eqNullSafe(F.col(f"first.{name}")), F.lit(label))
        for name, label in names.items()
    ]
    return F.concat_ws(", ", *labels)


@dataclass(frozen=True)
class _JudgeRows:
    """Judges rows one by one, in Python: resolves URIs, makes keys, encodes values."""

    base: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [judge_row(row, self.base) for row in batch.to_pylist()]
            yield arrow_batch(CLASSIFIED_CATALOG, rows)


def judge_row(raw: dict[str, Any], base: str) -> dict[str, object]:
    """Judge one row of RAW_CATALOG by itself; returns a row of CLASSIFIED_CATALOG."""
    sku, uri, variant = raw["sku_id"], raw["image_uri"], _unless_blank(raw["variant_group"])
    row: dict[str, object] = dict.fromkeys(CLASSIFIED_CATALOG.column_names)
    row |= {
        "catalog_row": raw["catalog_row"],
        "position": raw["position"],
        "sku_id": sku if sku is None else sku[:MAX_SKU_CHARS],
        "image_uri": None if uri is None else redact(uri),
        "image_version": _unless_blank(raw["image_version"]),
        "variant_group": variant,
        "block": canonical_json(raw["block_values"]),
        "conflict": canonical_json(raw["conflict_values"]),
        "order_values": raw["order_values"],
    }
    try:
        _check_row(raw)
        source = resolve(uri, base)
    except ImageRejected as rejected:
        return row | {"reason": rejected.reason.value, "detail": rejected.detail}
    return row | {
        "source_uri": source,
        "fetch_key": fetch_key(source),
        "uri_key": uri_key(source),
        "product": product_key(sku, variant),
    }


def product_key(sku: str, variant_group: str | None) -> str:
    """What is compared: the variant group where given, else the SKU; the two never collide."""
    return f"s:{sku}" if variant_group is None else f"v:{variant_group}"


def canonical_json(values: list[str | None]) -> str:
    """Encode values so that equal lists, and only they, have equal text; no values are ''."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) if values else ""


def _check_row(raw: dict[str, Any]) -> None:
    if raw["malformed"] is not None:
        raise ImageRejected(RejectReason.MALFORMED_ROW, raw["malformed"])
    if _unless_blank(raw["sku_id"]) is None:
        raise ImageRejected(RejectReason.NULL_SKU, "sku_id is null or blank")
    if len(raw["sku_id"]) > MAX_SKU_CHARS:
        raise ImageRejected(
            RejectReason.MALFORMED_ROW,
            f"sku_id of {len(raw['sku_id'])} characters, limit {MAX_SKU_CHARS}",
        )
    for character in raw["sku_id"]:
        if unicodedata.category(character) == "Cc":
            raise ImageRejected(
                RejectReason.NULL_SKU, f"sku_id holds control character U+{ord(character):04X}"
            )
    if _unless_blank(raw["image_uri"]) is None:
        raise ImageRejected(RejectReason.NULL_URI, "image_uri is null or blank")


def _unless_blank(text: str | None) -> str | None:
    return text if text and text.strip() else None
