"""The embedding store: what counts, whatever lies beside it."""

import json

import pytest

from dedup_job.errors import DedupError
from dedup_job.io.embedding_store import INDEX, EmbeddingStore, embedding_stores
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import IMAGE_EMBEDDINGS
from tests.unit.warehouses import MODEL, add_embeddings, sha, stored_embeddings, vector


def stage(warehouse, *photos):
    rows = [{"content_sha256": sha(p), "embedding": vector(p)} for p in photos]
    return write_rows(rows, IMAGE_EMBEDDINGS, warehouse.child("_staging", "x"))


def contents(*photos):
    return {sha(photo) for photo in photos}


def test_an_empty_store_has_no_files(warehouse):
    assert EmbeddingStore(warehouse, MODEL).stored().files == ()
    assert list(embedding_stores(warehouse)) == []


def test_nights_add_up_and_files_carry_the_run_id(warehouse):
    add_embeddings(warehouse, ["a", "b"], "night1")
    store = add_embeddings(warehouse, ["c"], "night2")
    assert stored_embeddings(warehouse).keys() == contents("a", "b", "c")
    assert [file.name for file in store.stored().files] == [
        "night1-00000.parquet",
        "night2-00000.parquet",
    ]
    assert all(file.n_rows > 0 and file.sha256 for file in store.stored().files)
    assert [one.model_id for one in embedding_stores(warehouse)] == [MODEL]


def test_models_do_not_mix(warehouse):
    add_embeddings(warehouse, ["a"], "night1", model="one")
    add_embeddings(warehouse, ["b"], "night2", model="two")
    assert stored_embeddings(warehouse, "one").keys() == contents("a")
    assert sorted(one.model_id for one in embedding_stores(warehouse)) == ["one", "two"]


def test_nothing_new_changes_nothing(warehouse):
    store = add_embeddings(warehouse, ["a"], "night1")
    before = store.folder.read_bytes(INDEX)
    staged = stage(warehouse, "b")
    store.append(type(staged)(staged.table, staged.folder, ()), "night2")
    assert store.folder.read_bytes(INDEX) == before


@pytest.mark.parametrize("earlier", [[], ["a"]])
def test_a_crash_before_the_index_leaves_a_stray_that_nobody_reads(warehouse, monkeypatch, earlier):
    store = EmbeddingStore(warehouse, MODEL)
    if earlier:
        add_embeddings(warehouse, earlier, "night1")
    replace = EmbeddingStore.replace
    monkeypatch.setattr(
        EmbeddingStore, "replace", lambda self, files: replace(self, files) if not files else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        store.append(stage(warehouse, "b"), "night2")
    monkeypatch.undo()
    assert stored_embeddings(warehouse).keys() == contents(*earlier)
    assert store.strays() == ["night2-00000.parquet"]
    add_embeddings(warehouse, ["c"], "night3")
    assert stored_embeddings(warehouse).keys() == contents(*earlier, "c")
    store.delete_strays()
    assert store.strays() == []
    assert stored_embeddings(warehouse).keys() == contents(*earlier, "c")


def test_a_store_from_before_there_was_an_index_is_taken_whole(warehouse):
    store = EmbeddingStore(warehouse, MODEL)
    for photo in ("a", "b"):
        row = {"content_sha256": sha(photo), "embedding": vector(photo)}
        write_rows([row], IMAGE_EMBEDDINGS, store.folder)
    assert stored_embeddings(warehouse).keys() == contents("a", "b")
    add_embeddings(warehouse, ["c"], "night3")
    assert stored_embeddings(warehouse).keys() == contents("a", "b", "c")
    assert store.strays() == []


def test_a_store_that_is_deleted_half_way_holds_nothing(warehouse, monkeypatch):
    store = add_embeddings(warehouse, ["a"], "night1")
    monkeypatch.setattr(Folder, "delete", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.delete()
    monkeypatch.undo()
    assert store.stored().files == ()
    store.delete()
    assert list(embedding_stores(warehouse)) == []


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (b"{", "damaged; delete this model's folder"),
        (b"[]", "damaged"),
        (b'{"format": 1}', "damaged"),
        (b'{"format": 1, "files": [{"name": "x"}]}', "damaged"),
        (json.dumps({"format": 9, "files": []}).encode(), "has format 9, .* upgrade"),
    ],
)
def test_an_index_that_cannot_be_read_is_explained(tmp_path, index, expected):
    store = EmbeddingStore(Folder(str(tmp_path)), MODEL)
    store.folder.replace_bytes(INDEX, index)
    with pytest.raises(DedupError, match=expected):
        store.stored()
