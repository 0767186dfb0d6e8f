import hashlib
import threading
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io.known_contents import load_known_contents, write_known_contents
from dedup_job.io.storage import Folder
from dedup_job.kernels.model import Embedder
from dedup_job.kernels.pictures import unpack_picture
from dedup_job.kernels.validators import Fetched, Validator
from dedup_job.stages.photo_worker import EmbedPhotos, Request
from dedup_job.tables import PHOTO_REQUESTS, PHOTOS
from tests.decoders import InProcessDecoder
from tests.photos import jpeg

NIGHT = datetime(2026, 7, 1, 2, 3, 4, 567890, UTC)
MANIFEST = SimpleNamespace(input_px=32, blur_sigma_px=0.5, dim=3, has_verifier=False)


def _mean_colour(photos):
    return photos.reshape(len(photos), -1, 3).mean(axis=1).astype(np.float32)


def _version_of(data):
    return Validator(f'"{hashlib.sha256(data).hexdigest()}"', len(data), NIGHT)


def _run(
    files,
    uris,
    n_threads=2,
    prefetch=4,
    network=_mean_colour,
    calls=None,
    known=None,
    decoder=InProcessDecoder,
    per_handover=1,
    manifest=MANIFEST,
):
    """One task over `uris`; each is a URI, or a `Request` that knows more of its photo."""

    def fetch(uri, known):
        if calls is not None:
            calls.append((uri, known))
        if isinstance(files[uri], Exception):
            raise files[uri]
        version = _version_of(files[uri])
        unchanged = known is not None and known.etag == version.etag
        return Fetched(None if unchanged else files[uri], version)

    task = EmbedPhotos(
        open_fetch=lambda: fetch,
        open_embedder=lambda: Embedder(manifest, network),
        open_decoder=decoder,
        prefetch=prefetch,
        n_threads=n_threads,
        per_handover=per_handover,
        known=known,
    )
    requests = [r if isinstance(r, Request) else Request(f"key of {r}", r) for r in uris]
    batch = pa.RecordBatch.from_pylist(
        [request._asdict() for request in requests], PHOTO_REQUESTS.arrow
    )
    table = pa.Table.from_batches(list(task(iter([batch]))))
    assert table.schema == PHOTOS.arrow
    return table.to_pylist()


def test_every_request_gives_one_row_in_order():
    files = {f"u{i}": jpeg(i) for i in range(20)}
    rows = _run(files, list(files))
    assert [row["fetch_key"] for row in rows] == [f"key of u{i}" for i in range(20)]
    assert all((row["width"], row["height"]) == (120, 160) for row in rows)
    assert np.allclose([np.linalg.norm(row["embedding"]) for row in rows], 1, atol=1e-6)
    assert len({row["content_sha256"] for row in rows}) == 20


@pytest.mark.parametrize("per_handover", [1, 5, 16])
@pytest.mark.parametrize("n_threads", [1, 4])
def test_an_equal_content_is_embedded_once(n_threads, per_handover):
    embedded = []

    def network(photos):
        embedded.append(len(photos))
        return _mean_colour(photos)

    files = {f"u{i}": jpeg(i % 2) for i in range(12)}
    rows = _run(files, list(files), n_threads=n_threads, network=network, per_handover=per_handover)
    assert sum(embedded) == 2
    assert sum(row["embedding"] is not None for row in rows) == 2
    assert all(row["reason"] is None and row["width"] == 120 for row in rows)


@pytest.mark.parametrize("per_handover", [1, 16])
def test_a_rejected_photo_costs_one_row_and_keeps_its_reason(per_handover):
    files = {
        "good": jpeg(1),
        "gone": ImageRejected(RejectReason.NOT_FOUND, "no such file"),
        "html": b"<html>sorry</html>",
        "html again": b"<html>sorry</html>",
        "empty": b"",
    }
    found = _run(files, list(files), per_handover=per_handover)
    rows = {row["fetch_key"].removeprefix("key of "): row for row in found}
    assert rows["good"]["reason"] is None
    assert rows["gone"]["reason"] == "not_found"
    assert rows["html"]["reason"] == rows["html again"]["reason"] == "not_image"
    assert rows["empty"]["reason"] == "empty_file"
    assert rows["gone"]["content_sha256"] is None
    assert all(row["embedding"] is None for key, row in rows.items() if key != "good")


@pytest.mark.parametrize("has_verifier", [True, False])
def test_a_picture_is_kept_of_what_is_embedded_where_pairs_are_verified(has_verifier):
    files = {"a": jpeg(1), "again": jpeg(1), "b": jpeg(2), "html": b"<html>sorry</html>"}
    seen = []

    def network(photos):
        seen.extend(photos.copy())
        return _mean_colour(photos)

    manifest = SimpleNamespace(**vars(MANIFEST) | {"has_verifier": has_verifier})
    rows = _run(files, list(files), n_threads=1, network=network, manifest=manifest)
    pictures = {row["fetch_key"].removeprefix("key of "): row["picture"] for row in rows}
    if not has_verifier:
        assert set(pictures.values()) == {None}
        return
    # As the embedding: once per content, and of no rejected photo.
    assert (pictures["again"], pictures["html"]) == (None, None)
    for name, pixels in zip("ab", seen, strict=True):
        assert np.abs(unpack_picture(pictures[name]).astype(int) - pixels).mean() < 3


def test_a_photo_without_a_finite_embedding_is_rejected():
    rows = _run({"a": jpeg(1), "b": jpeg(1)}, ["a", "b"], network=lambda p: np.zeros((len(p), 3)))
    assert [row["reason"] for row in rows] == ["bad_embedding", "bad_embedding"]
    assert [row["picture"] for row in rows] == [None, None]


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


# What earlier runs know


def _as_known(row, uri, **changes):
    """The request of a night after `row` was published."""
    kept = {name: row[name] for name in Request._fields if name in row}
    return Request(**{**kept, "source_uri": uri, **changes})


def test_a_request_is_a_row_of_its_table():
    assert list(Request._fields) == PHOTO_REQUESTS.column_names


def test_what_its_store_said_stays_with_each_photo():
    files = {"a": jpeg(1), "copy": jpeg(1), "html": b"<html>sorry</html>"}
    files["gone"] = ImageRejected(RejectReason.NOT_FOUND, "no such file")
    rows = {row["fetch_key"].removeprefix("key of "): row for row in _run(files, list(files))}
    for name in ("a", "copy", "html"):
        said = _version_of(files[name])
        assert (rows[name]["etag"], rows[name]["n_bytes"]) == (said.etag, said.n_bytes)
        assert rows[name]["modified_at"] == NIGHT
    assert (rows["gone"]["etag"], rows["gone"]["modified_at"]) == (None, None)
    assert {row["origin"] for row in rows.values()} == {"fetched"}
    assert {row["checked_on"] for row in rows.values()} == {None}


def test_copies_that_are_decoded_at_once_keep_their_own_validators():
    together = threading.Barrier(2)

    class Together(InProcessDecoder):
        def prepare_all(self, photos):
            together.wait(10)
            return super().prepare_all(photos)

    rows = _run({"a": jpeg(1), "b": jpeg(1)}, ["a", "b"], decoder=Together)
    assert [row["embedding"] is not None for row in rows] == [True, False]
    assert [row["etag"] for row in rows] == [_version_of(jpeg(1)).etag] * 2
    assert [(row["width"], row["height"]) for row in rows] == [(120, 160)] * 2


def test_an_unchanged_photo_is_what_it_was():
    files = {"a": jpeg(1), "html": b"<html>sorry</html>"}
    before = _run(files, list(files))
    asked = []
    requests = [_as_known(row, uri) for row, uri in zip(before, files, strict=True)]
    after = _run(files, requests, calls=asked, network=_no_network)
    for row, was in zip(after, before, strict=True):
        assert row == {**was, "origin": "not_modified", "embedding": None}
    assert asked == [(uri, _version_of(data)) for uri, data in files.items()]


def test_a_changed_photo_is_fetched_and_judged_anew():
    before = _run({"a": jpeg(1)}, ["a"])[0]
    after = _run({"a": jpeg(2)}, [_as_known(before, "a")])[0]
    assert after["content_sha256"] == hashlib.sha256(jpeg(2)).hexdigest()
    assert (after["origin"], after["etag"]) == ("fetched", _version_of(jpeg(2)).etag)
    assert after["embedding"] is not None


@pytest.mark.parametrize(
    "lost", [{"content_sha256": None}, {"etag": None, "modified_at": None}], ids=str
)
def test_a_store_is_not_asked_without_something_to_ask_with(lost):
    before = _run({"a": jpeg(1)}, ["a"])[0]
    asked = []
    row = _run({"a": jpeg(1)}, [_as_known(before, "a", **lost)], calls=asked)[0]
    assert asked == [("a", None)]
    assert (row["origin"], row["embedding"] is not None) == ("fetched", True)


def test_a_content_whose_embedding_is_stored_is_measured_only(tmp_path):
    stored, new = jpeg(1), jpeg(2)
    shas = [hashlib.sha256(stored).hexdigest()]
    write_known_contents(Folder(str(tmp_path)), "known.npy", shas)
    decoded = []

    class Noting(InProcessDecoder):
        def prepare_all(self, photos):
            decoded.extend(photos)
            return super().prepare_all(photos)

    known = partial(load_known_contents, Folder(str(tmp_path)), "known.npy")
    rows = _run(
        {"a": stored, "again": stored, "b": new}, ["a", "again", "b"], known=known, decoder=Noting
    )
    assert decoded == [new]
    assert [row["embedding"] is not None for row in rows] == [False, False, True]
    assert [(row["width"], row["height"]) for row in rows] == [(120, 160)] * 3
    assert [(row["reason"], row["origin"]) for row in rows] == [(None, "fetched")] * 3


def test_a_stored_content_still_meets_the_limits():
    tiny = b"BM" + bytes(40)  # a header that cannot be read, whatever the store holds
    row = _run({"a": tiny}, ["a"], known=lambda: {hashlib.sha256(tiny).hexdigest()})[0]
    assert (row["reason"], row["embedding"]) == ("corrupt", None)


def _no_network(photos):
    raise AssertionError("nothing is embedded")
