"""The one Python pass per photo, inside a Spark task: fetch, hash, decode, blur, embed.

Photo bytes never leave the worker. Fetching and decoding run a bounded number of photos ahead of
inference, so that the network waits on neither disk nor server. What is known costs less: a photo
that its store calls unchanged is not sent, a content whose embedding is stored is not decoded, and
within a task an equal content is decoded and embedded once.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.kernels.images import Pixels, Prepared
from dedup_job.kernels.model import Embedder
from dedup_job.kernels.pictures import pack_picture
from dedup_job.kernels.validators import Fetched, Validator
from dedup_job.tables import PHOTO_REQUESTS, PHOTOS

Fetch = Callable[[str, Validator | None], Fetched]


class Decoder(Protocol):
    """`kernels.images.prepare` and `measure` with their settings filled in; threads share it."""

    def prepare_all(self, photos: Sequence[bytes]) -> Sequence[Prepared | ImageRejected]:
        """Pixels of each photo as the model takes them."""

    def measure(self, data: bytes) -> tuple[int, int]:
        """Width and height from the header alone; raises ImageRejected."""


OpenDecoder = Callable[[int, float], Decoder]  # given the model's input_px and blur_sigma_px
_OUTPUT_ROWS = 256
# Measured with 400x533 photos: from 8 to 16 a few per cent, from 16 to 32 nothing.
LOCAL_PHOTOS_PER_HANDOVER = 16
# A task of a small catalog still holds enough photos to pay for its start.
_MIN_PHOTOS_PER_TASK = 250
_TASKS_PER_CORE = 4


class Request(NamedTuple):
    """A row of PHOTO_REQUESTS, its columns in order: a photo, and how an earlier run knows it."""

    fetch_key: str
    source_uri: str
    content_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    n_bytes: int | None = None
    etag: str | None = None
    modified_at: datetime | None = None
    reason: str | None = None
    detail: str | None = None

    @property
    def known(self) -> Validator | None:
        """What to ask the store with; None: fetch in any case."""
        if self.content_sha256 is None:
            return None
        validator = Validator(self.etag, self.n_bytes, self.modified_at)
        return validator if validator.can_tell else None


class Outcome(NamedTuple):
    """What became of a content, whichever photo brings it."""

    width: int | None
    height: int | None
    reason: str | None
    detail: str | None


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
    etag: str | None = None
    modified_at: datetime | None = None
    origin: str = "fetched"
    checked_on: date | None = None  # in this run
    pixels: Pixels | None = None
    embedding: Any = None
    picture: bytes | None = None  # of a photo with an embedding, where the model has a verifier

    @property
    def outcome(self) -> Outcome:
        """What another photo with these bytes shares; the embedding is not written twice."""
        return Outcome(self.width, self.height, self.reason, self.detail)

    def share(self, outcome: Outcome) -> "Photo":
        """Take over what became of another photo with these bytes."""
        self.width, self.height, self.reason, self.detail = outcome
        self.pixels = None
        return self

    def reject(self, reason: RejectReason, detail: str) -> "Photo":
        """Mark as unusable."""
        self.reason, self.detail = reason, detail
        return self


@dataclass(frozen=True)
class EmbedPhotos:
    """Turns `PHOTO_REQUESTS` batches into `PHOTOS` batches. Pickled to every task.

    Args:
        open_fetch: called once per task; gives the function (URI, what is known of it) -> Fetched.
        open_embedder: called once per task; must itself cache per process.
        open_decoder: called once per task; must itself cache per process.
        prefetch: photos in flight ahead of inference, at most.
        n_threads: threads that fetch and decode.
        per_handover: photos a thread fetches, has decoded and hands over at once. More saves waiting
            in turns where a fetch takes no time (local files); 1 keeps slow servers from adding up.
        known: called once per task, must itself cache per process; gives the `content_sha256` of
            contents whose embedding is stored. None: no content is.
    """

    open_fetch: Callable[[], Fetch]
    open_embedder: Callable[[], Embedder]
    open_decoder: OpenDecoder
    prefetch: int
    n_threads: int
    per_handover: int = 1
    known: Callable[[], Container[str]] | None = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run one task."""
        embedder = self.open_embedder()
        stored: Container[str] = self.known() if self.known else frozenset()
        manifest = embedder.manifest
        decoder = self.open_decoder(manifest.input_px, manifest.blur_sigma_px)
        reader = _Reader(self.open_fetch(), decoder, stored)
        with ThreadPoolExecutor(self.n_threads) as pool:
            requests = _in_groups(_requests(batches), self.per_handover)
            n_ahead = max(1, self.prefetch // self.per_handover)
            groups = _run_ahead(pool, reader.read_all, requests, n_ahead)
            done = chain.from_iterable(_embed(group, embedder, reader) for group in groups)
            while rows := list(islice(done, _OUTPUT_ROWS)):
                yield _to_batch(rows)


class _Reader:
    """Fetches photos and has them decoded; remembers the contents of this task (threads share it)."""

    def __init__(self, fetch: Fetch, decoder: Decoder, stored: Container[str]) -> None:
        self._fetch = fetch
        self._decoder = decoder
        self._stored = stored
        # content -> what became of it. Dictionary reads and writes are atomic; two threads that
        # meet the same new content at once merely decode it twice.
        self.known: dict[str, Outcome] = {}

    def read_all(self, requests: list[Request]) -> list[Photo]:
        """Fetch all, then have decoded at once what is neither known nor the same."""
        photos = []
        new: dict[str | None, tuple[bytes, list[Photo]]] = {}
        for request in requests:
            photo, data = self._fetch_one(request)
            photos.append(photo)
            if data is not None and not self._know(photo, data):
                new.setdefault(photo.content_sha256, (data, []))[1].append(photo)
        if new:
            all_prepared = self._decoder.prepare_all([data for data, _ in new.values()])
            for (_, same), prepared in zip(new.values(), all_prepared, strict=True):
                for photo in same:
                    self._take(photo, prepared)
        return photos

    def _fetch_one(self, request: Request) -> tuple[Photo, bytes | None]:
        """The photo as its store gives it; no bytes where there is nothing to decode."""
        try:
            fetched = self._fetch(request.source_uri, request.known)
        except ImageRejected as rejected:
            return Photo(request.fetch_key, reason=rejected.reason, detail=rejected.detail), None
        if fetched.data is None:
            photo = _not_modified(request)
        else:
            sha256 = hashlib.sha256(fetched.data).hexdigest()
            photo = Photo(request.fetch_key, sha256, n_bytes=len(fetched.data))
        photo.etag = fetched.validator.etag
        photo.modified_at = fetched.validator.modified_at
        return photo, fetched.data

    def _know(self, photo: Photo, data: bytes) -> bool:
        """Whether the photo needs no decoding: this task met its content, or its vector is stored."""
        assert photo.content_sha256 is not None
        known = self.known.get(photo.content_sha256)
        if known is not None:
            photo.share(known)
            return True
        if photo.content_sha256 not in self._stored:
            return False
        try:
            photo.width, photo.height = self._decoder.measure(data)
        except ImageRejected as rejected:
            photo.reject(rejected.reason, rejected.detail)
        self.remember(photo)
        return True

    def _take(self, photo: Photo, prepared: Prepared | ImageRejected) -> None:
        if isinstance(prepared, ImageRejected):
            self.remember(photo.reject(prepared.reason, prepared.detail))
            return
        photo.width, photo.height = prepared.width, prepared.height
        photo.pixels = prepared.pixels

    def remember(self, photo: Photo) -> Photo:
        if photo.content_sha256 is not None:
            self.known[photo.content_sha256] = photo.outcome
        return photo


def _not_modified(request: Request) -> Photo:
    """The photo as the earlier run left it; its embedding is stored, or its content rejected."""
    return Photo(
        request.fetch_key,
        request.content_sha256,
        request.width,
        request.height,
        request.n_bytes,
        request.reason,
        request.detail,
        origin="not_modified",
    )


def count_photo_tasks(n_photos: int, n_cores: int, photos_per_task: int) -> int:
    """Tasks of the photo stage: several per core for balance, bounded in photos per task."""
    at_least = -(-n_photos // photos_per_task)
    at_most = max(1, n_photos // _MIN_PHOTOS_PER_TASK)
    return max(1, at_least, min(_TASKS_PER_CORE * n_cores, at_most))


def _requests(batches: Iterable[pa.RecordBatch]) -> Iterator[Request]:
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in PHOTO_REQUESTS.column_names)
        yield from map(Request._make, zip(*columns, strict=True))


def _in_groups(requests: Iterator[Request], size: int) -> Iterator[list[Request]]:
    while group := list(islice(requests, size)):
        yield group


def _run_ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[list[Request]], list[Photo]],
    groups: Iterator[list[Request]],
    n_ahead: int,
) -> Iterator[list[Photo]]:
    """Results in order, with at most `n_ahead` groups submitted beyond the one taken."""
    waiting = deque(pool.submit(read, group) for group in islice(groups, n_ahead))
    while waiting:
        photos = waiting.popleft().result()
        waiting.extend(pool.submit(read, group) for group in islice(groups, 1))
        yield photos


def _embed(photos: list[Photo], embedder: Embedder, reader: _Reader) -> list[Photo]:
    """Embed each new content of a group once; other photos take over what became of theirs."""
    new: dict[str, Photo] = {}
    for photo in photos:
        if photo.pixels is not None and photo.content_sha256 not in reader.known:
            new.setdefault(photo.content_sha256 or "", photo)
    if new:
        vectors = embedder.embed(
            np.stack([photo.pixels for photo in new.values() if photo.pixels is not None])
        )
        for photo, vector in zip(new.values(), vectors, strict=True):
            pixels, photo.pixels = photo.pixels, None
            if np.isfinite(vector).all():
                photo.embedding = vector
                if embedder.manifest.has_verifier and pixels is not None:
                    photo.picture = pack_picture(pixels)
            else:
                what = "the model gave no finite vector for this photo"
                photo.reject(RejectReason.BAD_EMBEDDING, what)
            reader.remember(photo)
    for photo in photos:
        if photo.pixels is not None:
            photo.share(reader.known[photo.content_sha256 or ""])
    return photos


def _to_batch(photos: list[Photo]) -> pa.RecordBatch:
    vectors = [photo.embedding for photo in photos]
    schema = PHOTOS.arrow
    columns = [
        _list_column(vectors)
        if field.name == "embedding"
        else pa.array([getattr(photo, field.name) for photo in photos], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _list_column(vectors: list[Any]) -> pa.Array:
    """Vectors and nulls as one list column, without a Python float per component."""
    present = [vector for vector in vectors if vector is not None]
    flat = np.concatenate(present) if present else np.zeros(0, np.float32)
    lengths = [0 if vector is None else len(vector) for vector in vectors]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = pa.array([vector is None for vector in vectors])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.float32()), mask=mask)
