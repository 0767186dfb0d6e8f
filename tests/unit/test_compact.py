"""`compact`: the same embeddings in fewer files, less what nothing uses; a crash loses nothing."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup_job.commands.compact import compact, compact_warehouse
from dedup_job.errors import DedupError, WarehouseBusy
from dedup_job.io import content_merge
from dedup_job.io.content_merge import hash_prefixes, is_in_sorted, merge_contents
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.lease import acquire_lease
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_rows, write_batches, write_rows
from dedup_job.io.thumbnails import store_thumbnail, thumbnails_there
from dedup_job.tables import CATALOG_IMAGES, DUPLICATE_GROUPS, IMAGE_EMBEDDINGS
from tests.unit.warehouses import (
    MODEL,
    add_embeddings,
    image,
    publish,
    publish_images,
    row_of,
    sha,
    stored_embeddings,
    vector,
)

TODAY = date(2026, 11, 24)
RUN_DATE = date(2026, 11, 23)


@pytest.fixture
def local(tmp_path):
    return Folder(str(tmp_path / "warehouse"))


def fill(warehouse, n_nights=5, per_night=40, in_catalog=None):
    """Some nights of embeddings; all photos, or those given, are in the catalog."""
    photos = [f"{night}-{i}" for night in range(n_nights) for i in range(per_night)]
    for night in range(n_nights):
        mine = photos[night * per_night : (night + 1) * per_night]
        add_embeddings(warehouse, mine, f"night{night}")
    shown = photos if in_catalog is None else in_catalog
    publish_images(warehouse, [image(f"sku {p}", p) for p in shown])
    return photos


def expect(photos):
    return {sha(photo): vector(photo) for photo in photos}


def test_many_files_become_one_with_the_same_embeddings(warehouse):
    photos = fill(warehouse)
    done = compact(warehouse, today=TODAY)
    assert stored_embeddings(warehouse) == expect(photos)
    assert (done.files_before, done.files_after) == (5, 1)
    assert done.bytes_after < done.bytes_before
    store = EmbeddingStore(warehouse, MODEL)
    assert len(store.folder.file_names()) == 2  # the file and the index
    shas = read_rows(store.stored())["content_sha256"].to_pylist()
    assert shas == sorted(shas)
    assert warehouse.child("_staging").folder_names() == []


def test_a_second_time_there_is_nothing_to_do(warehouse, capsys):
    photos = fill(warehouse)
    compact(warehouse, today=TODAY)
    names = EmbeddingStore(warehouse, MODEL).folder.file_names()
    compact_warehouse(warehouse.uri)
    assert "nothing to do" in capsys.readouterr().out
    assert EmbeddingStore(warehouse, MODEL).folder.file_names() == names
    add_embeddings(warehouse, ["new"], "night9")
    publish_images(warehouse, [image("s", p) for p in [*photos, "new"]], "r9")
    assert compact(warehouse, today=TODAY).files_after == 1
    assert stored_embeddings(warehouse) == expect([*photos, "new"])


@pytest.mark.parametrize("seed", range(8))
def test_a_merge_is_what_a_dictionary_would_be(tmp_path, seed):
    """Random files, some sorted by an earlier merge, with repeats and contents to drop."""
    rng = np.random.default_rng(seed)
    folder = Folder(str(tmp_path))
    names = [f"photo {i}" for i in range(1_500)]
    store, files = folder.child("store"), []
    for i in range(rng.integers(1, 6)):
        chosen = rng.choice(names, rng.integers(1, 600)).tolist()
        rows = [{"content_sha256": sha(n), "embedding": vector(n)} for n in chosen]
        stored = write_rows(rows, IMAGE_EMBEDDINGS, folder.child("loose"))
        if rng.random() < 0.5:
            stored = merge_contents(stored, everything, folder.child("first"), 40_000).stored
        for k, file in enumerate(stored.files):
            store.create()
            store.move_in(stored.folder, file.name, f"{i}-{k}.parquet")
            files.append(replace(file, name=f"{i}-{k}.parquet"))
    before = StoredTable(IMAGE_EMBEDDINGS, store, tuple(files))
    rows = {r["content_sha256"]: r["embedding"] for r in read_rows(before).to_pylist()}
    wanted = {s: e for s, e in rows.items() if seed % 2 or s < "b"}

    def keep(shas):
        return np.array([s in wanted for s in shas.to_pylist()], bool)

    largest = 30_000
    merged = merge_contents(before, keep, folder.child("staging"), largest)
    found = read_rows(merged.stored).to_pylist()
    assert [r["content_sha256"] for r in found] == sorted(wanted)
    assert {r["content_sha256"]: r["embedding"] for r in found} == wanted
    assert merged.n_dropped + merged.n_repeated == before.n_rows - len(wanted)
    assert sum(s in wanted for s in read_rows(before)["content_sha256"].to_pylist()) == (
        before.n_rows - merged.n_dropped
    )


def everything(shas):
    return np.ones(len(shas), bool)


@pytest.mark.parametrize("was_merged", [True, False], ids=["merged before", "as appended"])
def test_files_from_before_there_were_pictures_merge_with_newer_ones(tmp_path, was_merged):
    folder = Folder(str(tmp_path / "store"))
    older = replace(IMAGE_EMBEDDINGS, columns=IMAGE_EMBEDDINGS.columns[:2])
    old = [{"content_sha256": sha(n), "embedding": vector(n)} for n in sorted("abc", key=sha)]
    new = [{"content_sha256": sha("d"), "embedding": vector("d"), "picture": b"jpeg"}]
    files = (
        write_batches(
            pa.Table.from_pylist(old, schema=older.arrow).to_batches(),
            older,
            folder,
            "content_sha256" if was_merged else None,
        ),
        *write_rows(new, IMAGE_EMBEDDINGS, folder).files,
    )
    stored = StoredTable(IMAGE_EMBEDDINGS, folder, files)
    merged = merge_contents(stored, everything, Folder(str(tmp_path / "new")), 40_000)
    expected = sorted(
        [{**row, "picture": None} for row in old] + new, key=lambda row: row["content_sha256"]
    )
    assert read_rows(merged.stored).to_pylist() == expected


def test_files_are_of_even_size_and_memory_holds_one_of_them(local, monkeypatch):
    photos = fill(local, n_nights=4, per_night=2_500)
    held = []
    sort = content_merge._sorted
    monkeypatch.setattr(
        content_merge, "_sorted", lambda rows: held.append(rows.nbytes) or sort(rows)
    )
    target = 150_000
    compact(local, today=TODAY, target_bytes=target)
    sizes = [file.n_bytes for file in EmbeddingStore(local, MODEL).stored().files]
    assert len(sizes) > 5
    assert all(target * 2 / 3 * 0.8 < size < target * 4 / 3 * 1.2 for size in sizes)
    # Hashes are 68 bytes in memory and less in a file; a run ends with the batch that fills it.
    assert max(held) < 3 * target * 4 / 3 + 2_500 * 200
    assert stored_embeddings(local) == expect(photos)
    assert not compact(local, today=TODAY, target_bytes=target).is_changed


def test_contents_that_no_recent_row_names_are_dropped(warehouse):
    add_embeddings(warehouse, ["in", "left lately", "left long ago", "never seen"], "night1")
    images = [
        image("A", "in"),
        image("B", "left lately", RUN_DATE - timedelta(days=30), in_catalog=False),
        image("C", "left long ago", RUN_DATE - timedelta(days=31), in_catalog=False),
    ]
    publish_images(warehouse, images)
    done = compact(warehouse, today=TODAY)
    assert done.contents_dropped == 2
    assert stored_embeddings(warehouse) == expect(["in", "left lately"])


def test_a_warehouse_that_rests_loses_nothing(local):
    photos = fill(local)
    compact(local, today=RUN_DATE + timedelta(days=400))
    assert stored_embeddings(local) == expect(photos)


def test_retired_models_go_and_those_in_use_stay(local):
    for model in ("old", "shadow", MODEL):
        add_embeddings(local, ["a"], f"night of {model}", model)
    publish(local, "r0", {}, run_date="2026-10-01", model="old")
    publish(local, "r1", {}, run_date="2026-11-20", model="shadow", status="shadow")
    publish_images(local, [image("A", "a")], "r2")
    done = compact(local, today=TODAY)
    assert done.models_dropped == ["old"]
    assert local.child("image_embeddings").folder_names() == ["model_id=m", "model_id=shadow"]
    assert "old" in done.summary()


def test_without_a_published_run_files_are_merged_and_nothing_is_dropped(local):
    add_embeddings(local, ["a"], "night1")
    add_embeddings(local, ["b"], "night2")
    publish(local, "r1", {}, status="shadow", run_date="2020-01-01", model="another")
    done = compact(local, today=TODAY)
    assert stored_embeddings(local) == expect(["a", "b"])
    assert (done.files_after, done.models_dropped, done.contents_dropped) == (1, [], 0)


def test_repeated_contents_are_kept_once(local):
    add_embeddings(local, ["a", "b"], "night1")
    add_embeddings(local, ["b", "c"], "night2")
    publish_images(local, [image("S", p) for p in "abc"])
    assert compact(local, today=TODAY).repeats_dropped == 1
    assert stored_embeddings(local) == expect("abc")


def test_strays_are_deleted(local):
    photos = fill(local)
    compact(local, today=TODAY)
    store = EmbeddingStore(local, MODEL)
    write_rows([], IMAGE_EMBEDDINGS, store.folder)
    assert compact(local, today=TODAY).is_changed
    assert store.strays() == []
    assert stored_embeddings(local) == expect(photos)


@pytest.mark.parametrize("n_dropped", [0, 1])
def test_work_that_counts_on_dropped_contents_is_not_continued(local, n_dropped):
    photos = fill(local)
    publish_images(local, [image("S", p) for p in photos[n_dropped:]], "r2")
    local.child("_staging", "dead run").replace_bytes("journal.json", b"{}")
    assert compact(local, today=TODAY).contents_dropped == n_dropped
    assert local.child("_staging").folder_names() == ["dead run"][n_dropped:]


_STEPS = [
    (Folder, "move_in"),
    (EmbeddingStore, "move_in"),
    (EmbeddingStore, "replace"),
    (EmbeddingStore, "delete_strays"),
    (Folder, "delete_file"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "step"), _STEPS, ids=lambda one: str(one))
def test_a_crash_at_any_step_loses_nothing_and_the_next_time_ends_it(
    local, monkeypatch, owner, step, when
):
    photos = fill(local)
    publish_images(local, [image("S", p) for p in photos[1:]], "r2")
    original, calls = getattr(owner, step), []

    def crash(self, *arguments):
        calls.append(step)
        if when == "after":
            original(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, step, crash)
    with pytest.raises(KeyboardInterrupt):
        compact(local, today=TODAY)
    assert calls == [step]
    monkeypatch.undo()
    found = stored_embeddings(local)
    assert expect(photos[1:]).items() <= found.items() or found == expect(photos)
    compact(local, today=TODAY)
    assert stored_embeddings(local) == expect(photos[1:])
    store = EmbeddingStore(local, MODEL)
    assert (len(store.stored().files), store.strays()) == (1, [])


def test_a_warehouse_at_work_is_left_alone(local):
    fill(local)
    with (
        acquire_lease(local, "tonight", 60.0),
        pytest.raises(WarehouseBusy, match="tonight"),
    ):
        compact(local, today=TODAY)
    assert len(EmbeddingStore(local, MODEL).stored().files) == 5


def test_a_wrong_folder_is_told_and_not_made(tmp_path):
    with pytest.raises(DedupError, match="holds no run"):
        compact_warehouse(str(tmp_path / "wrong"))
    assert list(tmp_path.iterdir()) == []


def test_a_sorted_file_says_so_to_other_readers(local):
    fill(local)
    compact(local, today=TODAY)
    (file,) = EmbeddingStore(local, MODEL).stored().files
    path = EmbeddingStore(local, MODEL).folder.path(file.name)
    assert pq.read_metadata(path).row_group(0).sorting_columns == (pq.SortingColumn(0),)


def test_hashes_are_found_by_their_first_bits():
    shas = [sha(i) for i in range(100)]
    known = np.unique(hash_prefixes(pa.chunked_array([shas[::2]])))
    found = is_in_sorted(hash_prefixes(pa.chunked_array([shas])), known)
    assert found.tolist() == [i % 2 == 0 for i in range(100)]
    assert is_in_sorted(np.zeros(3, np.uint64), np.empty(0, np.uint64)).tolist() == [False] * 3


def test_thumbnails_that_the_gallery_does_not_show_are_dropped(tmp_path):
    warehouse = Folder(str(tmp_path / "warehouse"))
    place = warehouse.child("_work")
    rows = {
        DUPLICATE_GROUPS: [
            row_of(
                DUPLICATE_GROUPS,
                group_id="g",
                sku_id=sku,
                canonical_sku_id="A",
                is_canonical=sku == "A",
            )
            for sku in "AB"
        ],
        CATALOG_IMAGES: [image(sku, sku) for sku in "ABC"],
    }
    publish(
        warehouse, "r1", {t.name: write_rows(r, t, place.child(t.name)) for t, r in rows.items()}
    )
    for photo in "ABC":
        store_thumbnail(warehouse, sha(photo)[:16], b"a picture")
    done = compact(warehouse)
    assert done.thumbnails_dropped == 1 and "1 thumbnails" in done.summary()
    assert thumbnails_there(warehouse) == {sha(photo)[:16] for photo in "AB"}
    assert not compact(warehouse).is_changed
