"""The one Python pass per photo, inside a Spark task: fetch, hash, decode, blur, embed.

Photo bytes never leave the worker. Fetching and decoding run a bounded number of photos ahead of
inference, so that the network waits on neither disk nor server; within a task an equal content is
decoded and embedded once.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.kernels.images import ImageLimits, Pixels, prepare
from dedup_job.kernels.model import Embedder
from dedup_job.tables import PHOTOS

Fetch = Callable[[str], bytes]
Request = tuple[str, str]  # fetch_key, source_uri
_OUTPUT_ROWS = 256
LOCAL_PHOTOS_PER_HANDOVER = 8
# A task of a small catalog still holds enough photos to pay for its start.
_MIN_PHOTOS_PER_TASK = 250
_TASKS_PER_CORE = 4


@dataclass(slots=True)
class Photo:
    """What became of one fetch. `pixels` is set while the photo awaits its embedding."""

    fetch_key: str
    content_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    n_bytes: int | None = None
    reason: str | None = None
    detail: str | None = None
    pixels: Pixels | None = None
    embedding: Any = None

    def of_same_content(self, fetch_key: str) -> "Photo":
        """The outcome of another photo with these bytes; its embedding is not written twice."""
        return Photo(
            fetch_key,
            self.content_sha256,
            self.width,
            self.height,
            self.n_bytes,
            self.reason,
            self.detail,
        )

    def reject(self, reason: RejectReason, detail: str) -> "Photo":
        """Mark as unusable."""
        self.reason, self.detail = reason, detail
        return self


@dataclass(frozen=True)
class EmbedPhotos:
    """Turns (fetch_key, source_uri) batches into `PHOTOS` batches. Pickled to every task.

    Args:
        open_fetch: called once per task; gives the function URI -> bytes.
        open_embedder: called once per task; must itself cache per process.
        limits: header limits of the decoder.
        prefetch: photos in flight ahead of inference, at most.
        n_threads: threads that fetch and decode.
        per_handover: photos a thread fetches before it hands them over. More saves thread switches
            where a fetch takes no time (local files); 1 keeps slow servers from adding up.
    """

    open_fetch: Callable[[], Fetch]
    open_embedder: Callable[[], Embedder]
    limits: ImageLimits
    prefetch: int
    n_threads: int
    per_handover: int = 1

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run one task."""
        import cv2

        cv2.setNumThreads(0)  # a task owns one core; OpenCV would take them all
        embedder = self.open_embedder()
        reader = _Reader(self.open_fetch(), embedder, self.limits)
        with ThreadPoolExecutor(self.n_threads) as pool:
            requests = _in_groups(_requests(batches), self.per_handover)
            n_ahead = max(1, self.prefetch // self.per_handover)
            photos = _run_ahead(pool, reader.read_all, requests, n_ahead)
            done = (_embed(photo, embedder, reader) for photo in photos)
            while rows := list(islice(done, _OUTPUT_ROWS)):
                yield _to_batch(rows)


class _Reader:
    """Fetches and decodes; remembers the contents of this task (threads share it)."""

    def __init__(self, fetch: Fetch, embedder: Embedder, limits: ImageLimits) -> None:
        self._fetch = fetch
        self._size_px = embedder.manifest.input_px
        self._blur = embedder.manifest.blur_sigma_px
        self._limits = limits
        # content -> what became of it, without pixels and vector. Dictionary reads and writes are
        # atomic; two threads that meet the same new content at once merely decode it twice.
        self.known: dict[str, Photo] = {}

    def read_all(self, requests: list[Request]) -> list[Photo]:
        return [self.read(request) for request in requests]

    def read(self, request: Request) -> Photo:
        fetch_key, uri = request
        try:
            data = self._fetch(uri)
        except ImageRejected as rejected:
            return Photo(fetch_key, reason=rejected.reason, detail=rejected.detail)
        sha256 = hashlib.sha256(data).hexdigest()
        known = self.known.get(sha256)
        if known is not None:
            return known.of_same_content(fetch_key)
        photo = Photo(fetch_key, sha256, n_bytes=len(data))
        try:
            prepared = prepare(data, self._size_px, self._blur, self._limits)
        except ImageRejected as rejected:
            return self.remember(photo.reject(rejected.reason, rejected.detail))
        photo.width, photo.height = prepared.width, prepared.height
        photo.pixels = prepared.pixels
        return photo

    def remember(self, photo: Photo) -> Photo:
        if photo.content_sha256 is not None:
            self.known[photo.content_sha256] = photo.of_same_content("")
        return photo


def count_photo_tasks(n_photos: int, n_cores: int, photos_per_task: int) -> int:
    """Tasks of the photo stage: several per core for balance, bounded in photos per task."""
    at_least = -(-n_photos // photos_per_task)
    at_most = max(1, n_photos // _MIN_PHOTOS_PER_TASK)
    return max(1, at_least, min(_TASKS_PER_CORE * n_cores, at_most))


def _requests(batches: Iterable[pa.RecordBatch]) -> Iterator[Request]:
    for batch in batches:
        yield from zip(
            batch.column("fetch_key").to_pylist(),
            batch.column("source_uri").to_pylist(),
            strict=True,
        )


def _in_groups(requests: Iterator[Request], size: int) -> Iterator[list[Request]]:
    while group := list(islice(requests, size)):
        yield group


def _run_ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[list[Request]], list[Photo]],
    groups: Iterator[list[Request]],
    n_ahead: int,
) -> Iterator[Photo]:
    """Results in order, with at most `n_ahead` groups submitted beyond the one taken."""
    waiting = deque(pool.submit(read, group) for group in islice(groups, n_ahead))
    while waiting:
        photos = waiting.popleft().result()
        waiting.extend(pool.submit(read, group) for group in islice(groups, 1))
        yield from photos


def _embed(photo: Photo, embedder: Embedder, reader: _Reader) -> Photo:
    if photo.pixels is None:
        return photo
    known = reader.known.get(photo.content_sha256 or "")
    if known is not None:
        return known.of_same_content(photo.fetch_key)
    vector = embedder.embed(photo.pixels[None])[0]
    photo.pixels = None
    if np.isfinite(vector).all():
        photo.embedding = vector
    else:
        photo.reject(RejectReason.BAD_EMBEDDING, "the model gave no finite vector for this photo")
    return reader.remember(photo)


def _to_batch(photos: list[Photo]) -> pa.RecordBatch:
    vectors = [photo.embedding for photo in photos]
    columns = {
        name: pa.array([getattr(photo, name) for photo in photos])
        for name in PHOTOS.column_names
        if name != "embedding"
    }
    columns["embedding"] = _list_column(vectors)
    schema = PHOTOS.arrow
    return pa.RecordBatch.from_arrays(
        [columns[field.name].cast(field.type) for field in schema], schema=schema
    )


def _list_column(vectors: list[Any]) -> pa.Array:
    """Vectors and nulls as one list column, without a Python float per component."""
    present = [vector for vector in vectors if vector is not None]
    flat = np.concatenate(present) if present else np.zeros(0, np.float32)
    lengths = [0 if vector is None else len(vector) for vector in vectors]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = pa.array([vector is None for vector in vectors])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.float32()), mask=mask)
