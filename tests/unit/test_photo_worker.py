import threading
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.kernels.images import ImageLimits
from dedup_job.kernels.model import Embedder
from dedup_job.stages.photo_worker import EmbedPhotos
from dedup_job.tables import PHOTOS
from tests.photos import jpeg

MANIFEST = SimpleNamespace(input_px=32, blur_sigma_px=0.5, dim=3)


def _mean_colour(photos):
    return photos.reshape(len(photos), -1, 3).mean(axis=1).astype(np.float32)


def _run(files, uris, n_threads=2, prefetch=4, network=_mean_colour, calls=None):
    def fetch(uri):
        if calls is not None:
            calls.append(uri)
        if isinstance(files[uri], Exception):
            raise files[uri]
        return files[uri]

    task = EmbedPhotos(
        open_fetch=lambda: fetch,
        open_embedder=lambda: Embedder(MANIFEST, network),
        limits=ImageLimits(),
        prefetch=prefetch,
        n_threads=n_threads,
    )
    request = pa.RecordBatch.from_pydict(
        {"fetch_key": [f"key of {uri}" for uri in uris], "source_uri": uris}
    )
    table = pa.Table.from_batches(list(task(iter([request]))))
    assert table.schema == PHOTOS.arrow
    return table.to_pylist()


def test_every_request_gives_one_row_in_order():
    files = {f"u{i}": jpeg(i) for i in range(20)}
    rows = _run(files, list(files))
    assert [row["fetch_key"] for row in rows] == [f"key of u{i}" for i in range(20)]
    assert all((row["width"], row["height"]) == (120, 160) for row in rows)
    assert np.allclose([np.linalg.norm(row["embedding"]) for row in rows], 1, atol=1e-6)
    assert len({row["content_sha256"] for row in rows}) == 20


@pytest.mark.parametrize("n_threads", [1, 4])
def test_an_equal_content_is_embedded_once(n_threads):
    embedded = []

    def network(photos):
        embedded.append(len(photos))
        return _mean_colour(photos)

    files = {f"u{i}": jpeg(i % 2) for i in range(12)}
    rows = _run(files, list(files), n_threads=n_threads, network=network)
    assert sum(embedded) == 2
    assert sum(row["embedding"] is not None for row in rows) == 2
    assert all(row["reason"] is None and row["width"] == 120 for row in rows)


def test_a_rejected_photo_costs_one_row_and_keeps_its_reason():
    files = {
        "good": jpeg(1),
        "gone": ImageRejected(RejectReason.NOT_FOUND, "no such file"),
        "html": b"<html>sorry</html>",
        "html again": b"<html>sorry</html>",
        "empty": b"",
    }
    rows = {row["fetch_key"].removeprefix("key of "): row for row in _run(files, list(files))}
    assert rows["good"]["reason"] is None
    assert rows["gone"]["reason"] == "not_found"
    assert rows["html"]["reason"] == rows["html again"]["reason"] == "not_image"
    assert rows["empty"]["reason"] == "empty_file"
    assert rows["gone"]["content_sha256"] is None
    assert all(row["embedding"] is None for key, row in rows.items() if key != "good")


def test_a_photo_without_a_finite_embedding_is_rejected():
    rows = _run({"a": jpeg(1), "b": jpeg(1)}, ["a", "b"], network=lambda p: np.zeros((len(p), 3)))
    assert [row["reason"] for row in rows] == ["bad_embedding", "bad_embedding"]


def test_reading_ahead_is_bounded():
    started, release = [], threading.Event()

    def network(photos):
        # When the first photo is embedded, no more than the prefetch may have been asked for.
        if not release.is_set():
            assert len(started) <= 5
            release.set()
        return _mean_colour(photos)

    files = {f"u{i}": jpeg(i) for i in range(30)}
    _run(files, list(files), prefetch=4, network=network, calls=started)
    assert release.is_set()
    assert len(started) == 30


def test_a_bug_in_fetching_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        _run({"u": ZeroDivisionError()}, ["u"])
