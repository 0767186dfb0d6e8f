import pytest

from dedup_job.stages.look_alike_ids import look_alike_ids

pytestmark = pytest.mark.spark


def test_look_alikes_are_told_and_stay_apart(spark):
    skus = ["AB-1", "AB-1 ", "АB-1", "AB-2", "00123", "123", "ab-1"]
    rows = spark.createDataFrame([(sku,) for sku in [*skus, "AB-1"]], "sku_id string")
    found = {row.sku_id: (row.skeleton, row.n_skus) for row in look_alike_ids(rows).collect()}
    assert found == dict.fromkeys(skus[:3], ("AB-1", 3))


def test_a_catalog_without_any_has_none(spark):
    rows = spark.createDataFrame([("A",), ("B",), ("A",)], "sku_id string")
    assert look_alike_ids(rows).collect() == []
