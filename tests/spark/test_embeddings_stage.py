"""Placeholders are counted where rows are compared: block by block."""

import pytest

from dedup_job.stages.embeddings import comparable_rows, count_rows_by_origin, find_placeholders
from dedup_job.stages.reports import RunIdentity, report_placeholders
from dedup_job.tables import PHOTO_ROWS, PLACEHOLDER_IMAGES, PLACEHOLDERS, USABLE_ROWS

pytestmark = pytest.mark.spark
MAX_SKUS = 3


def usable_row(position, block, product, sha):
    """A row of USABLE_ROWS; each row is a photo of its own SKU."""
    variant = product.removeprefix("v:") if product.startswith("v:") else None
    row = dict.fromkeys(USABLE_ROWS.column_names)
    return row | {
        "catalog_row": str(position),
        "position": position,
        "sku_id": f"sku {position}",
        "image_uri": f"{position}.jpg",
        "uri_key": f"key {position}",
        "variant_group": variant,
        "product": product,
        "block": block,
        "conflict": "",
        "order_values": [],
        "content_sha256": sha,
        "width": 10,
        "height": 10,
        "n_bytes": 100,
        "n_pixels": 100,
    }


@pytest.fixture(scope="module")
def usable(spark):
    entries = [
        # the same photo, once in each of more tenants than may share it
        *((f"tenant {i}", "s:shared", "one each") for i in range(MAX_SKUS + 2)),
        # a placeholder in two tenants, an ordinary photo in a third; there it stands last
        *(("t1", f"s:{i}", "soon") for i in range(MAX_SKUS + 1)),
        *(("t2", f"s:{i}", "soon") for i in range(MAX_SKUS + 2)),
        ("t3", "s:0", "soon"),
        ("t3", "s:1", "soon"),
        # sizes are one product, in each tenant another one
        *(("t1", "v:1", "sizes") for _ in range(MAX_SKUS + 1)),
        *(("t2", "v:1", "sizes") for _ in range(MAX_SKUS + 1)),
    ]
    rows = [usable_row(i, *entry) for i, entry in enumerate(entries)]
    tuples = [tuple(row[name] for name in USABLE_ROWS.column_names) for row in rows]
    return spark.createDataFrame(tuples, USABLE_ROWS.ddl).repartition(3).cache()


@pytest.fixture(scope="module")
def placeholders(usable):
    return find_placeholders(usable, MAX_SKUS).cache()


def test_products_are_counted_in_their_block(placeholders):
    assert placeholders.columns == PLACEHOLDERS.column_names
    found = {(row.block, row.content_sha256): row.n_skus for row in placeholders.collect()}
    assert found == {("t1", "soon"): MAX_SKUS + 1, ("t2", "soon"): MAX_SKUS + 2}


def test_a_placeholder_of_one_block_is_compared_in_another(usable, placeholders):
    rows = comparable_rows(usable, placeholders)
    assert rows.columns == PHOTO_ROWS.column_names
    shows_soon = {row.block for row in rows.where("content_sha256 = 'soon'").collect()}
    assert shows_soon == {"t3"}
    assert rows.count() == usable.count() - (MAX_SKUS + 1) - (MAX_SKUS + 2)


@pytest.mark.parametrize("embedded", [["one each", "soon", "sizes"], ["soon"], []])
def test_every_row_has_one_origin(spark, usable, placeholders, embedded):
    tonight = spark.createDataFrame([(sha,) for sha in embedded], "content_sha256 string")
    rows = count_rows_by_origin(usable, placeholders, tonight).collect()
    expected = {
        "embedded": len(embedded),
        "reused": 3 - len(embedded),
        "placeholder": 2 * MAX_SKUS + 3,
        "shared_content": usable.count() - 3 - (2 * MAX_SKUS + 3),
    }
    assert {row["origin"]: row["count"] for row in rows} == {k: n for k, n in expected.items() if n}


def test_the_report_has_one_row_per_content(placeholders):
    report = report_placeholders(placeholders, RunIdentity("run", "model"))
    assert report.columns == PLACEHOLDER_IMAGES.column_names
    first = MAX_SKUS + 2  # position of the first row of t1 that shows it
    assert [tuple(row) for row in report.collect()] == [
        ("soon", 2 * MAX_SKUS + 3, f"{first}.jpg", None, "run")
    ]
