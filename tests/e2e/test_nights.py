"""The second night and all that follow: what is reused, what stays, what is said to have changed."""

import os
import time
from pathlib import Path

import pytest

from dedup_job.errors import ConfigError, GateError
from dedup_job.io.manifests import read_manifest
from dedup_job.io.storage import open_warehouse
from tests.e2e.jobs import read_report, run_job
from tests.e2e.shop import Shop

pytestmark = pytest.mark.spark
EXACT = {"candidates__search": "exact", "match__min_cosine": 0.9}


def night(shop_or_catalog, warehouse, day, **settings):
    catalog = shop_or_catalog.write() if isinstance(shop_or_catalog, Shop) else shop_or_catalog
    settled()
    return run_job(catalog, warehouse, **{"run_date": f"2026-01-{day:02d}"} | EXACT | settings)


def settled():
    """Let the moment pass in which a file counts as just written, and is read again to be sure."""
    time.sleep(0.1)


def pairs_of(warehouse):
    columns = ("sku_id_a", "sku_id_b", "cosine", "match_type", "parted_by", "n_matching_photos")
    return {tuple(row[c] for c in columns) for row in read_report(warehouse, "duplicate_pairs")}


def groups_of(warehouse):
    """Survivor, member and cosines; ids aside."""
    columns = ("canonical_sku_id", "sku_id", "cosine_to_canonical", "min_pair_cosine", "match_type")
    return {tuple(row[c] for c in columns) for row in read_report(warehouse, "duplicate_groups")}


def members_by_id(warehouse):
    members = {}
    for row in read_report(warehouse, "duplicate_groups"):
        members.setdefault(row["group_id"], set()).add(row["sku_id"])
    return members


def replay(members, changes):
    """Apply `group_changes` to the groups of the night before."""
    members = {group: set(skus) for group, skus in members.items()}
    for row in changes:
        group = members.setdefault(row["group_id"], set())
        assert set(row["removed_sku_ids"]) <= group
        assert not set(row["added_sku_ids"]) & group
        group -= set(row["removed_sku_ids"])
        group |= set(row["added_sku_ids"])
    return {group: skus for group, skus in members.items() if skus}


def filled(folder, n_products=24, seed=0):
    shop = Shop(folder, seed)
    for number in range(n_products):
        shop.add(version="v1" if number % 3 == 0 else "")
    return shop


def test_an_unchanged_night_fetches_and_embeds_nothing_and_changes_nothing(spark, tmp_path):
    shop, out = filled(tmp_path / "shop"), tmp_path / "out"
    first = night(shop, out, 1)
    assert first.photos.embedded == first.rows.embedded > 0
    before = pairs_of(out), read_report(out, "duplicate_groups")
    second = night(shop, out, 2)
    assert (second.photos.fetched, second.photos.embedded, second.rows.embedded) == (0, 0, 0)
    # A version needs no question; a file is asked for its size and time.
    assert (second.photos.remembered, second.photos.not_modified) == (8, 16)
    assert second.rows.reused == first.rows.embedded
    assert pairs_of(out) == before[0] != set()
    keep = ("group_id", "sku_id", "group_first_seen", "member_since")
    assert [[row[c] for c in keep] for row in read_report(out, "duplicate_groups")] == [
        [row[c] for c in keep] for row in before[1]
    ]
    assert read_report(out, "group_changes") == []
    assert {row["is_new"] for row in read_report(out, "duplicate_pairs")} == {False}


@pytest.mark.parametrize(("seed", "n_nights"), [(1, 2), pytest.param(2, 6, marks=pytest.mark.slow)])
def test_random_histories_end_where_a_first_run_would(spark, tmp_path, seed, n_nights):
    shop, out = filled(tmp_path / "shop", 20, seed), tmp_path / "out"
    night(shop, out, 1)
    for day in range(2, n_nights + 1):
        before = members_by_id(out)
        shop.change_at_random(6)
        # Also when the threshold moves, within what is kept and beyond.
        cosine = {2: 0.895, 3: 0.85, 4: 0.9, 5: 0.93, 6: 0.9}[day]
        result = night(shop, out, day, match__min_cosine=cosine)
        assert result.photos.embedded < result.rows.catalog / 2
        fresh = tmp_path / f"fresh-{day}"
        night(shop, fresh, day, match__min_cosine=cosine)
        assert pairs_of(out) == pairs_of(fresh)
        assert groups_of(out) == groups_of(fresh)
        assert replay(before, read_report(out, "group_changes")) == members_by_id(out)


@pytest.mark.slow
def test_exactly_what_changed_is_embedded(spark, tmp_path):
    shop, out = filled(tmp_path / "shop"), tmp_path / "out"
    night(shop, out, 1)
    shop.swap_photo("sku-0001")  # versioned
    shop.swap_photo("sku-0002")  # told by its file
    shop.rename("sku-0003")
    shop.delete("sku-0004")
    shop.add()
    result = night(shop, out, 2)
    assert result.photos.fetched == 4
    assert result.photos.embedded == result.rows.embedded == 3  # the renamed photo is recognised
    assert result.rows.catalog == 24
    # What left is known for 30 days: back again, it costs nothing.
    shop.rows["sku-0004"] = ("p0004.jpg", "v1")
    assert night(shop, out, 20).photos.embedded == 0


@pytest.mark.slow
def test_a_file_of_equal_size_and_time_is_trusted_and_a_new_version_is_not(spark, tmp_path):
    shop, out = filled(tmp_path / "shop", 6), tmp_path / "out"
    night(shop, out, 1)
    name, _ = shop.rows["sku-0001"]
    path = shop.folder / name
    times = path.stat()
    path.write_bytes(path.read_bytes()[::-1])  # as long as before, and no photo
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert night(shop, out, 2).photos.fetched == 0
    shop.rows["sku-0001"] = (name, "v2")
    result = night(shop, out, 3)
    assert (result.photos.fetched, result.rows.rejected) == (1, 1)


@pytest.mark.slow
def test_a_backfill_does_not_disturb_later_nights(spark, tmp_path):
    shop, out = filled(tmp_path / "shop", 12), tmp_path / "out"
    night(shop, out, 2)
    late = members_by_id(out)
    early = Shop(tmp_path / "shop", seed=9)
    early.rows = {sku: shop.rows[sku] for sku in sorted(shop.rows)[:8]}
    backfill = night(early, out, 1)
    assert backfill.photos.fetched == 0
    assert read_manifest(open_warehouse(str(out))).run_date == "2026-01-02"
    assert (out / "duplicate_groups" / "run_date=2026-01-01").is_dir()
    third = night(shop, out, 3)
    assert third.base_run_id == read_manifest(open_warehouse(str(out)), third.base_run_id).run_id
    assert read_report(out, "group_changes") == []
    assert members_by_id(out) == late


@pytest.mark.slow
def test_a_delta_adds_and_replaces_and_leaves_the_others_alone(spark, tmp_path):
    shop, out = filled(tmp_path / "shop", 16), tmp_path / "out"
    night(shop, out, 1)
    before = members_by_id(out)
    new = shop.add(design=3)
    shop.swap_photo("sku-0002", design=5)
    delta = shop.write([new, "sku-0002"])
    result = night(delta, out, 2, catalog__mode="delta")
    assert (result.rows.catalog, result.photos.embedded) == (17, 2)
    assert replay(before, read_report(out, "group_changes")) == members_by_id(out)
    after = pairs_of(out), groups_of(out)
    night(shop, tmp_path / "fresh", 2)
    assert after == (pairs_of(tmp_path / "fresh"), groups_of(tmp_path / "fresh"))


@pytest.mark.slow
def test_a_delta_is_judged_by_its_own_rows_and_keeps_the_limits(spark, tmp_path):
    shop, out = filled(tmp_path / "shop", 12), tmp_path / "out"
    night(shop, out, 1)
    shop.rows["sku-0002"] = ("gone.jpg", "")
    delta = shop.write(["sku-0002"])
    with pytest.raises(GateError, match="no_photo: none of the 1 catalog rows"):
        night(delta, out, 2, catalog__mode="delta")
    with pytest.raises(ConfigError, match=r"cannot change images\.min_side_px"):
        night(delta, out, 2, catalog__mode="delta", images__min_side_px=40)


def test_a_delta_without_a_snapshot_is_refused(spark, tmp_path):
    shop = filled(tmp_path / "shop", 3)
    with pytest.raises(ConfigError, match="--catalog-mode snapshot"):
        night(shop, tmp_path / "out", 1, catalog__mode="delta")


@pytest.mark.slow
def test_a_shadow_run_publishes_nothing_and_says_what_would_change(spark, tmp_path):
    shop, out = filled(tmp_path / "shop", 16), tmp_path / "out"
    first = night(shop, out, 1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("run_date=*/*")}
    shadow = night(shop, out, 2, match__min_cosine=0.97, shadow=True)
    assert shadow.status == "shadow"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("run_date=*/*")} == before
    folder = open_warehouse(str(out))
    assert read_manifest(folder).run_id == first.run_id
    manifest = read_manifest(folder, shadow.run_id)
    assert (manifest.status, manifest.base_run_id) == ("shadow", first.run_id)
    assert sum(shadow.changes.values()) > 0


@pytest.mark.slow
def test_the_first_night_of_all_creates_every_group(spark, tmp_path):
    shop, out = filled(tmp_path / "shop", 16), tmp_path / "out"
    result = night(shop, out, 1)
    assert result.base_run_id is None
    changes = read_report(out, "group_changes")
    assert {row["change"] for row in changes} == {"created"}
    assert replay({}, changes) == members_by_id(out)


@pytest.mark.slow
def test_a_night_without_duplicates_publishes_an_empty_partition(spark, tmp_path):
    shop, out = Shop(tmp_path / "shop"), tmp_path / "out"
    for design in range(4):
        shop.add(f"a{design}", design)
    shop.add("b0", 0)
    night(shop, out, 1)
    assert members_by_id(out)
    shop.delete("b0")
    night(shop, out, 1, match__min_cosine=1.0)  # the same date: nothing stale may stay
    assert members_by_id(out) == {}
    files = list((out / "duplicate_groups" / "run_date=2026-01-01").iterdir())
    assert [Path(file).suffix for file in files] == [".parquet"]
