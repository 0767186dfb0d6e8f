"""What is known of a photo: which of it holds for tonight's model."""

from datetime import date

import pytest
from pyspark.sql import functions as F

from dedup_job.stages.photo_plan import Trust, plan_photos
from dedup_job.tables import CATALOG_IMAGES, CATALOG_ROWS

pytestmark = pytest.mark.spark
LAST, TONIGHT = date(2026, 1, 1), date(2026, 1, 2)


def filled(spark, table, rows):
    """Rows of a table; columns that are not given are null."""
    names = list(rows[0])
    frame = spark.createDataFrame([tuple(row.values()) for row in rows], _ddl(table, names))
    rest = [F.lit(None).cast(c.type).alias(c.name) for c in table.columns if c.name not in names]
    return frame.select("*", *rest)


def _ddl(table, names):
    types = {column.name: column.type for column in table.columns}
    return ", ".join(f"{name} {types[name]}" for name in names)


def remembered(spark, reasons, embedded):
    """Fetch keys that need no request, of photos that were known with a reason or none."""
    tonight = [{"fetch_key": key, "source_uri": "file:/x", "image_version": "1"} for key in reasons]
    known = [
        {
            "fetch_key": key,
            "image_version": "1",
            "content_sha256": f"sha-{key}",
            "last_seen": LAST,
            "checked_on": LAST,
            "reason": reason,
        }
        for key, reason in reasons.items()
    ]
    plan = plan_photos(
        filled(spark, CATALOG_ROWS, tonight),
        filled(spark, CATALOG_IMAGES, known),
        spark.createDataFrame([(f"sha-{key}",) for key in embedded], "content_sha256 string"),
        Trust(TONIGHT, 0),
    )
    return {row.fetch_key for row in plan.where("is_remembered").collect()}


def test_a_reject_is_remembered_unless_it_was_the_models_own(spark):
    reasons = {"good": None, "lost": None, "corrupt": "corrupt", "no vector": "bad_embedding"}
    assert remembered(spark, reasons, embedded=["good"]) == {"good", "corrupt"}
    # Another model may have given the vector that one model did not.
    assert remembered(spark, reasons, embedded=["no vector"]) == {"corrupt"}
