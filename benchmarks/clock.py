"""A stopwatch for worker processes: first and last photo, count, peak memory."""

import os
import resource
import struct
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dedup_job.io.bundles import ShippedBundle, load_shipped
from dedup_job.io.fetch import Fetcher
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.kernels.model import Embedder
from dedup_job.kernels.validators import Fetched, Validator

_RECORD = struct.Struct("ddqq")  # first photo, last photo (unix time), photos, peak RSS in KiB


class Stopwatch:
    """Keeps first and last moment, count and peak memory of one process in a small file."""

    def __init__(self, folder: str) -> None:
        self._file = os.open(f"{folder}/{uuid.uuid4().hex}.clock", os.O_CREAT | os.O_WRONLY)
        self._first = 0.0
        self._n = 0

    def start(self) -> None:
        self._first = self._first or time.time()

    def done(self, n: int) -> None:
        self._n += n
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.pwrite(self._file, _RECORD.pack(self._first, time.time(), self._n, peak), 0)


@dataclass(frozen=True)
class Clocked:
    """A process pair's result."""

    photos_per_s: float
    n_photos: int
    peak_mib: float


def read_clocks(folder: str) -> Clocked:
    records = [
        _RECORD.unpack(p.read_bytes()) for p in Path(folder).glob("*.clock") if p.stat().st_size
    ]
    seconds = max(r[1] for r in records) - min(r[0] for r in records)
    n_photos = sum(r[2] for r in records)
    return Clocked(n_photos / seconds, n_photos, max(r[3] for r in records) / 1024)


class ClockedEmbedder(Embedder):
    """The job's embedder, with a stopwatch behind it."""

    def __init__(self, embedder: Embedder, watch: Stopwatch) -> None:
        super().__init__(embedder.manifest, embedder._network)
        self._watch = watch

    def embed(self, photos: np.ndarray) -> np.ndarray:
        vectors = super().embed(photos)
        self._watch.done(len(photos))
        return vectors


def open_clocked_fetch(folder: str, policy: FetchPolicy):
    fetch, watch = Fetcher(policy).fetch, _watch_of_this_process(folder)

    def clocked(uri: str, known: Validator | None) -> Fetched:
        watch.start()
        return fetch(uri, known)

    return clocked


def open_clocked_embedder(folder: str, bundle: ShippedBundle) -> Embedder:
    return ClockedEmbedder(load_shipped(bundle), _watch_of_this_process(folder))


_WATCHES: dict[str, Stopwatch] = {}


def _watch_of_this_process(folder: str) -> Stopwatch:
    return _WATCHES.setdefault(f"{folder}/{os.getpid()}", Stopwatch(folder))
