"""`forget`: no trace of a SKU is left, all else stays, and a crash half way is repaired by another try."""

import hashlib
import json
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dedup_job.commands.compact import compact
from dedup_job.commands.erasure import repair_group
from dedup_job.commands.forget import forget, forget_skus
from dedup_job.commands.review import review
from dedup_job.errors import ConfigError, DedupError, WarehouseBusy
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.lease import acquire_lease
from dedup_job.io.manifests import find_table, list_runs, newest_published, read_manifest
from dedup_job.io.publish import place_partition, publish_state, store_run_tables
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_rows, write_rows
from dedup_job.io.thumbnails import store_thumbnail, thumbnails_there
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    PHOTO_DIGITS,
    PLACEHOLDER_IMAGES,
    REJECTED_IMAGES,
    RUNS,
    SCORED_PAIRS,
    SEARCHED_CONTENTS,
)
from tests.unit.warehouses import (
    MODEL,
    add_embeddings,
    image,
    publish,
    row_of,
    sha,
    stored_embeddings,
    vector,
)

# X1 survives in a group of three, is half of a pair, and shares one of its two photos with Y1.
SKU = "X1-secret"
NIGHTS = ("2026-11-22", "2026-11-23")


@pytest.fixture(params=["local", "s3"])
def warehouse(request, tmp_path):
    if request.param == "local":
        folder = Folder(str(tmp_path / "warehouse"))
    else:
        server = request.getfixturevalue("s3_server")
        server.create_bucket("forget")
        folder = open_warehouse(f"s3://forget/{tmp_path.name}")
    return fill(folder)


@pytest.fixture
def local(tmp_path):
    return fill(Folder(str(tmp_path / "warehouse")))


def member(group, sku, canonical, size, cosine, match_type="near", **values):
    return row_of(
        DUPLICATE_GROUPS,
        group_id=group,
        sku_id=sku,
        canonical_sku_id=canonical,
        is_canonical=sku == canonical,
        group_size=size,
        cosine_to_canonical=cosine,
        min_pair_cosine=0.25,
        match_type=match_type,
        **values,
    )


def pair(a, b, group, cosine, match_type="near"):
    return row_of(
        DUPLICATE_PAIRS,
        sku_id_a=a,
        sku_id_b=b,
        image_uri_a=f"photos/{a}.jpg",
        image_uri_b=f"photos/{b}.jpg",
        group_id=group,
        parted_by=None,
        cosine=cosine,
        match_type=match_type,
    )


def change(kind, group, added=(), removed=()):
    return row_of(
        GROUP_CHANGES, change=kind, group_id=group, added_sku_ids=added, removed_sku_ids=removed
    )


def placeholder(photo, uri):
    return row_of(PLACEHOLDER_IMAGES, content_sha256=sha(photo), image_uri=uri)


REPORTS = {
    DUPLICATE_GROUPS: [
        member("g1", "A", SKU, 4, 0.75),
        member("g1", "B", SKU, 4, 0.5),
        member("g1", "C", SKU, 4, 0.875, "exact"),
        member("g1", SKU, SKU, 4, 1.0, "exact"),
        member("g2", "D", "D", 2, 1.0),
        member("g2", SKU + "2", "D", 2, 0.5),
        member("g3", "E", "E", 2, 1.0),
        member("g3", "F", "E", 2, 0.5),
    ],
    DUPLICATE_PAIRS: [
        pair("A", "B", "g1", 0.625),
        pair("A", SKU, "g1", 0.75),
        pair("C", SKU, "g1", 1.0, "exact"),
        pair("D", SKU + "2", "g2", 0.5),
        pair("E", "F", "g3", 0.5),
    ],
    GROUP_CHANGES: [
        change("grown", "g1", added=["B", SKU]),
        change("created", "g3", added=["E", "F"]),
        change("shrunk", "g4", removed=[SKU]),
    ],
    REJECTED_IMAGES: [
        row_of(REJECTED_IMAGES, sku_id=SKU, detail="its own"),
        row_of(REJECTED_IMAGES, sku_id="G", detail="another's"),
        row_of(REJECTED_IMAGES, sku_id=None, detail="nobody's"),
    ],
    PLACEHOLDER_IMAGES: [
        placeholder("shared", f"photos/{SKU}-shared.jpg"),
        placeholder(f"{SKU}-own", f"photos/{SKU}-own.jpg"),
        placeholder("logo", "photos/logo.jpg"),
    ],
    RUNS: [row_of(RUNS)],
}


def fill(warehouse):
    """Two published nights and a shadow run, embeddings of two models, work of a dead run."""
    for model in (MODEL, "shadow"):
        add_embeddings(warehouse, [f"{SKU}-own", "shared"], "n1", model)
        add_embeddings(warehouse, ["photo A", "photo B"], "n2", model)
    for night in NIGHTS:
        publish_night(warehouse, f"run of {night}", night)
    publish_night(warehouse, "shadow run", NIGHTS[1], status="shadow", model="shadow")
    staged = write_rows([image(SKU, "x")], CATALOG_IMAGES, warehouse.child("_staging", "dead", "t"))
    assert staged.n_rows == 1
    return warehouse


def publish_night(warehouse, run_id, run_date, status="published", **values):
    place = warehouse.child("_work", run_id)
    staged = {t.name: write_rows(rows, t, place.child(t.name)) for t, rows in REPORTS.items()}
    tables = store_run_tables(staged, warehouse, run_id)
    if status == "published":
        for name, stored in tables.items():
            place_partition(stored, warehouse.child(name, f"run_date={run_date}"))
        day = date.fromisoformat(run_date)
        images = [
            image(SKU, f"{SKU}-own", day),
            image(SKU, "shared", day, image_uri=f"photos/{SKU}-shared.jpg"),
            image("Y1", "shared", day, image_uri="photos/Y1.jpg"),
            image("A", "photo A", day),
            image("B", "photo B", day),
        ]
        contents = [row_of(SEARCHED_CONTENTS, content_sha256=r["content_sha256"]) for r in images]
        pairs = [("photo A", "photo B"), ("photo A", f"{SKU}-own"), (f"{SKU}-own", "shared")]
        scored = [row_of(SCORED_PAIRS, sha_a=sha(a), sha_b=sha(b)) for a, b in pairs]
        state = {CATALOG_IMAGES: images, SEARCHED_CONTENTS: contents, SCORED_PAIRS: scored}
        staged = {t.name: write_rows(rows, t, place.child(t.name)) for t, rows in state.items()}
        tables |= publish_state(staged, warehouse, run_id)
    gates = [{"name": "largest_group", "message": f"group g1 ({SKU}) has 4 SKUs"}]
    publish(warehouse, run_id, tables, run_date, status, gates=gates, **values)
    place.delete()


def all_files(folder):
    for name in folder.file_names():
        yield folder, name
    for name in folder.folder_names():
        yield from all_files(folder.child(name))


def traces(warehouse, text=SKU):
    """Files below the warehouse in which a text, or the hash of the SKU's own photo, stands."""
    wanted = (text, sha(f"{SKU}-own"))
    found = []
    for folder, name in all_files(warehouse):
        if name.endswith(".parquet"):
            with folder.open_read(name) as stream:
                content = repr(pq.ParquetFile(stream).read().to_pylist())
        else:
            content = folder.read_bytes(name).decode()
        if any(one in content for one in wanted):
            found.append(folder.path(name).removeprefix(warehouse.uri))
    return found


def contents_of(warehouse):
    """Every file but those of the lease."""
    files = all_files(warehouse)
    return {f.path(n): f.read_bytes(n) for f, n in files if not f.uri.endswith("lease")}


def report(warehouse, run_id, table):
    rows = read_rows(find_table(warehouse, read_manifest(warehouse, run_id), table.name))
    return rows.to_pylist()


def assert_whole(warehouse):
    """Every file that a manifest names is there, with the rows, bytes and hash it says."""
    for manifest in [*list_runs(warehouse), newest_published(warehouse)]:
        for name in manifest.tables:
            stored = find_table(warehouse, manifest, name)
            for file in stored.files:
                with stored.folder.open_read(file.name) as stream:
                    data = stream.read()
                assert hashlib.sha256(data).hexdigest() == file.sha256
                assert len(data) == file.n_bytes
            assert read_rows(stored).num_rows == stored.n_rows


SKUS = [SKU, f"{SKU}2"]


def test_no_trace_is_left_and_manifests_are_true(warehouse):
    assert len(traces(warehouse)) > 20
    done = forget(warehouse, SKUS)
    assert traces(warehouse) == []
    assert_whole(warehouse)
    assert done.found == set(SKUS)
    assert "nothing named" not in done.summary()
    assert done.rows[CATALOG_IMAGES.name] >= 2
    assert newest_published(warehouse).run_id == f"run of {NIGHTS[1]}"


def test_the_gallery_forgets_too(warehouse):
    for photo in (f"{SKU}-own", "photo A"):
        store_thumbnail(warehouse, sha(photo)[:PHOTO_DIGITS], b"a picture")
    page = Path(review(warehouse.uri)).name
    gallery = warehouse.child("gallery")
    assert SKU in gallery.read_bytes(page).decode()
    forget(warehouse, SKUS)
    shown = gallery.read_bytes(page).decode()
    assert SKU not in shown and '"sku":"A"' in shown
    assert thumbnails_there(warehouse) == {sha("photo A")[:PHOTO_DIGITS]}


def test_what_is_left_of_the_reports(warehouse):
    forget(warehouse, SKUS)
    for run_id in (*(f"run of {night}" for night in NIGHTS), "shadow run"):
        groups = {
            (r["group_id"], r["sku_id"]): r for r in report(warehouse, run_id, DUPLICATE_GROUPS)
        }
        assert list(groups) == [("g1", "A"), ("g1", "B"), ("g1", "C"), ("g3", "E"), ("g3", "F")]
        first = [groups["g1", sku] for sku in "ABC"]
        assert [r["canonical_sku_id"] for r in first] == ["A", "A", "A"]
        assert [r["is_canonical"] for r in first] == [True, False, False]
        assert [r["group_size"] for r in first] == [3, 3, 3]
        # B's pair with A is in the report; C's is not
        assert [r["cosine_to_canonical"] for r in first] == [1.0, 0.625, 0.25]
        assert [r["match_type"] for r in first] == ["near", "near", "near"]
        pairs = report(warehouse, run_id, DUPLICATE_PAIRS)
        assert [(r["sku_id_a"], r["sku_id_b"]) for r in pairs] == [("A", "B"), ("E", "F")]
        changes = report(warehouse, run_id, GROUP_CHANGES)
        assert [(r["group_id"], r["added_sku_ids"]) for r in changes] == [
            ("g1", ["B"]),
            ("g3", ["E", "F"]),
        ]
        rejects = report(warehouse, run_id, REJECTED_IMAGES)
        assert [r["sku_id"] for r in rejects] == ["G", None]
        shown = {r["image_uri"] for r in report(warehouse, run_id, PLACEHOLDER_IMAGES)}
        assert shown == {"photos/Y1.jpg", "photos/logo.jpg"}
        assert len(report(warehouse, run_id, RUNS)) == 1


def test_partitions_hold_what_the_manifests_name(warehouse):
    forget(warehouse, SKUS)
    for night in NIGHTS:
        for table in REPORTS:
            folder = warehouse.child(table.name, f"run_date={night}")
            (name,) = folder.file_names()
            with folder.open_read(name) as stream:
                rows = pq.ParquetFile(stream).read().to_pylist()
            assert rows == report(warehouse, f"run of {night}", table)


def test_photos_that_others_show_stay_with_their_pairs(warehouse):
    forget(warehouse, SKUS)
    left = {sha(p): vector(p) for p in ("shared", "photo A", "photo B")}
    for model in (MODEL, "shadow"):
        assert stored_embeddings(warehouse, model) == left
        assert EmbeddingStore(warehouse, model).strays() == []
    newest = newest_published(warehouse).run_id
    contents = {r["content_sha256"] for r in report(warehouse, newest, SEARCHED_CONTENTS)}
    assert contents == left.keys()
    (scored,) = report(warehouse, newest, SCORED_PAIRS)
    assert {scored["sha_a"], scored["sha_b"]} == {sha("photo A"), sha("photo B")}
    skus = [r["sku_id"] for r in report(warehouse, newest, CATALOG_IMAGES)]
    assert skus == ["Y1", "A", "B"]


def test_an_unknown_sku_is_told_and_changes_nothing(local, capsys):
    for name in local.child("_staging").folder_names():
        local.child("_staging", name).delete()
    before = contents_of(local)
    forget_skus(local.uri, ["unknown", "SECRET"])
    out = capsys.readouterr().out
    assert "nothing named unknown" in out and "nothing named SECRET" in out
    assert "comes back" not in out
    assert contents_of(local) == before


def test_the_summary_warns_and_counts(local, capsys):
    forget_skus(local.uri, [SKU, "unknown"])
    out = capsys.readouterr().out
    assert "nothing named unknown" in out
    assert f"forgot {SKU}" in out and "comes back with the next run" in out
    assert "rejected_images     3, 2 in run_date= partitions" in out


def test_a_second_time_there_is_nothing(local):
    forget(local, SKUS)
    again = forget(local, SKUS)
    assert (again.found, sum(again.rows.values()), sum(again.copies.values())) == (set(), 0, 0)


_STEPS = [
    (Folder, "replace_bytes"),
    (Folder, "move_in"),
    (Folder, "place"),
    (Folder, "delete_file"),
]


def test_a_crash_at_any_step_leaves_whole_reports_and_the_next_try_ends_it(tmp_path, monkeypatch):
    """Every call that changes a file is made to be the last one, in turn."""
    n_calls, crashed = 0, True
    while crashed:
        local = fill(Folder(str(tmp_path / str(n_calls))))
        crashed = _forget_and_crash(local, monkeypatch, n_calls)
        assert_whole(local)
        forget(local, SKUS)
        assert traces(local) == []
        assert_whole(local)
        assert stored_embeddings(local).keys() == {sha(p) for p in ("shared", "photo A", "photo B")}
        n_calls += 3  # each kind of step is met many times: runs, models, tables
    assert n_calls > 50


def _forget_and_crash(local, monkeypatch, n_calls):
    left = [n_calls]

    def counted(original):
        def step(self, *arguments):
            if "lease" not in self.uri:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
            return original(self, *arguments)

        return step

    with monkeypatch.context() as patch:
        for owner, name in _STEPS:
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            forget(local, SKUS)
        except KeyboardInterrupt:
            return True
    return False


def test_a_run_of_the_first_release_names_its_partitions(local):
    """Its manifest must tell the hashes of the files as they are after."""
    folder = local.child("rejected_images", "run_date=2026-01-01")
    staged = write_rows(REPORTS[REJECTED_IMAGES], REJECTED_IMAGES, folder)
    publish(local, "old", {"rejected_images": staged}, "2026-01-01", format=1)
    forget(local, SKUS)
    assert traces(local) == []
    assert_whole(local)
    assert [r["sku_id"] for r in report(local, "old", REJECTED_IMAGES)] == ["G", None]


def test_a_dead_run_leaves_no_trace_either(local):
    """It published partitions and files, and died before its manifest."""
    staged = {
        DUPLICATE_GROUPS.name: write_rows(
            REPORTS[DUPLICATE_GROUPS], DUPLICATE_GROUPS, local.child("x")
        )
    }
    tables = store_run_tables(staged, local, "dead")
    place_partition(
        tables[DUPLICATE_GROUPS.name], local.child("duplicate_groups", "run_date=2026-11-24")
    )
    local.child("duplicate_groups", "run_date=2026-11-24").replace_bytes(".part-0.x", SKU.encode())
    forget(local, SKUS)
    assert traces(local) == []
    (name,) = local.child("duplicate_groups", "run_date=2026-11-24").file_names()
    assert name == "part-00000.parquet"


def test_a_compacted_store_stays_sorted(local):
    compact(local, today=date(2026, 11, 23))
    assert forget(local, SKUS).rows["image_embeddings"] > 0
    assert not compact(local, today=date(2026, 11, 23)).is_changed
    assert traces(local) == []


def test_a_busy_warehouse_a_damaged_manifest_and_an_empty_id_erase_nothing(local):
    n_traces = len(traces(local))
    with acquire_lease(local, "tonight", 60.0), pytest.raises(WarehouseBusy):
        forget(local, [SKU])
    with pytest.raises(ConfigError, match="empty"):
        forget(local, [""])
    local.child("_runs").replace_bytes("bad.json", b"{")
    with pytest.raises(DedupError, match=r"bad\.json is damaged.*nothing was erased"):
        forget(local, [SKU])
    local.child("_runs").replace_bytes(
        "bad.json", json.dumps({"format": 99, "tables": {}}).encode()
    )
    with pytest.raises(DedupError, match="newer version"):
        forget(local, [SKU])
    assert len(traces(local)) == n_traces


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ({"B"}, [("A", 1.0, "exact"), ("C", 0.5, "exact")]),
        ({"A"}, [("B", 1.0, "near"), ("C", 0.25, "near")]),
        ({"A", "B"}, []),
        ({"A", "B", "C"}, []),
    ],
)
def test_a_group_without_a_member(gone, expected):
    rows = [
        member("g", "A", "A", 3, 1.0, "exact"),
        member("g", "B", "A", 3, 0.75),
        member("g", "C", "A", 3, 0.5, "exact"),
    ]
    pairs = {
        ("A", "C"): {"cosine": 0.5, "match_type": "exact"},
        ("A", "B"): {"cosine": 0.75, "match_type": "near"},
    }
    left = repair_group(rows, pairs, frozenset(gone))
    assert [(r["sku_id"], r["cosine_to_canonical"], r["match_type"]) for r in left] == expected
    assert all(r["group_size"] == len(left) for r in left)
    assert [r["sku_id"] for r in left if r["is_canonical"]] == [
        r["canonical_sku_id"] for r in left
    ][:1]
