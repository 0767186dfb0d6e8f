"""Nights after `compact` and `forget`: what is left of the warehouse is as good as new."""

import json

import pyarrow.parquet as pq
import pytest

from dedup_job.commands.compact import compact
from dedup_job.commands.forget import forget
from dedup_job.io.storage import Folder
from tests.e2e.test_nights import filled, groups_of, night, pairs_of

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def names(warehouse, sku):
    """Files below a warehouse in which a SKU stands, those of photos aside."""
    found = []
    for path in (p for p in warehouse.rglob("*") if p.is_file()):
        if path.suffix == ".parquet":
            text = repr(pq.ParquetFile(path).read().to_pylist())
        else:
            text = json.dumps(path.read_bytes().decode("utf-8", "replace"))  # thumbnails too
        found += [path] if sku in text else []
    return found


def test_a_compacted_warehouse_is_reused_whole_and_a_forgotten_sku_is_gone(spark, tmp_path):
    shop, out = filled(tmp_path / "shop"), tmp_path / "out"
    night(shop, out, 1)
    shop.add(design=0)
    night(shop, out, 2)
    done = compact(Folder(str(out)))
    assert (done.files_before, done.files_after, done.contents_dropped) == (2, 1, 0)
    before = pairs_of(out)
    third = night(shop, out, 3)
    assert (third.photos.fetched, third.photos.embedded) == (0, 0)
    assert pairs_of(out) == before

    survivor = min(row[0] for row in groups_of(out))
    assert len(names(out, survivor)) > 10
    assert forget(Folder(str(out)), [survivor]).found == {survivor}
    assert names(out, survivor) == []
    shop.delete(survivor)
    fourth = night(shop, out, 4)
    assert names(out, survivor) == []
    assert (fourth.photos.fetched, fourth.photos.embedded) == (0, 0)
    night(shop, tmp_path / "fresh", 4)
    assert pairs_of(out) == pairs_of(tmp_path / "fresh")
    assert groups_of(out) == groups_of(tmp_path / "fresh")
