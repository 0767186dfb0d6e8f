"""A search index against brute force, whatever its cells and buckets."""

import numpy as np
import pyarrow as pa
import pytest

from dedup_job.errors import DedupError
from dedup_job.io import search_index
from dedup_job.io.search_index import SearchIndex, build_index, index_name
from dedup_job.io.storage import Folder

DIM, N = 16, 1_500
NAME = index_name("r1")


@pytest.fixture(scope="module")
def vectors():
    """Unit rows, each with another one close to it."""
    rng = np.random.default_rng(4)
    half = rng.normal(size=(N // 2, DIM))
    near = half + 0.05 * rng.normal(size=half.shape)
    rows = np.concatenate([half, near]).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def parts(vectors, size=400):
    for start in range(0, len(vectors), size):
        numbers = range(start, min(start + size, len(vectors)))
        yield pa.table(
            {
                "content_sha256": [f"{i:064x}" for i in numbers],
                "sku_ids": [[f"SKU {i}", "shared"] for i in numbers],
                "image_uris": [[f"{i}.jpg", "s.jpg"] for i in numbers],
                "group_ids": [["g", ""] for _ in numbers],
                "embedding": pa.array(list(vectors[list(numbers)]), pa.list_(pa.float32())),
                # The first has none.
                "picture": pa.array([b"picture %d" % i if i else None for i in numbers]),
            }
        )


@pytest.fixture(params=[(4_096, 500_000), (64, 500)])
def folder(request, vectors, tmp_path, monkeypatch):
    max_rows, per_bucket = request.param
    monkeypatch.setattr(search_index, "_MAX_CELL_ROWS", max_rows)
    monkeypatch.setattr(search_index, "_ROWS_PER_BUCKET", per_bucket)
    folder = Folder(str(tmp_path / "_search"))
    build_index(folder, "an earlier run", parts(vectors[:10]), 10)
    build_index(folder, "r1", parts(vectors), N)
    assert folder.file_names() == [NAME]
    return folder


def test_neighbours_are_those_of_brute_force(folder, vectors):
    truth = vectors.astype(float) @ vectors.T.astype(float)
    with SearchIndex(folder, NAME) as index:
        for i in range(0, N, 50):
            own, near = index.search(vectors[i], 2, fan_out=12)
            expected = np.argsort(-truth[i])[1]
            assert own.sku_ids == [f"SKU {i}", "shared"] and own.cosine == pytest.approx(
                1, abs=1e-6
            )
            assert near.content_sha256 == f"{expected:064x}"
            assert near.cosine == np.float32(truth[i, expected])
            assert (near.image_uris[0], near.group_ids) == (f"{expected}.jpg", ["g", ""])


def test_all_cells_hold_every_content_once(folder, vectors):
    with SearchIndex(folder, NAME) as index:
        found = index.search(vectors[0], 10 * N, fan_out=10**6)
    assert sorted(hit.content_sha256 for hit in found) == [f"{i:064x}" for i in range(N)]
    cosines = [hit.cosine for hit in found]
    assert cosines == sorted(cosines, reverse=True)


def test_pictures_are_those_of_the_hits_alone(folder, vectors):
    with SearchIndex(folder, NAME) as index:
        found = index.search(vectors[0], 40, fan_out=12)
        pictures = index.pictures(found)
        assert index.pictures([]) == {}
    assert found[0].content_sha256 == f"{0:064x}"
    expected = {
        hit.content_sha256: b"picture %d" % int(hit.content_sha256, 16) for hit in found[1:]
    }
    assert pictures == expected


def test_a_file_that_is_no_index_is_told(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    for name in ("x.parquet", "absent.parquet"):
        with pytest.raises(DedupError, match="dedup-job find --rebuild"):
            SearchIndex(Folder(str(tmp_path)), name)


def test_damage_within_a_cell_is_told(folder, vectors):
    data = bytearray(folder.read_bytes(NAME))
    data[200:4_000] = bytes(3_800)
    folder.replace_bytes(NAME, bytes(data))
    with SearchIndex(folder, NAME) as index, pytest.raises(DedupError, match="--rebuild"):
        index.search(vectors[0], 5, fan_out=10**6)
