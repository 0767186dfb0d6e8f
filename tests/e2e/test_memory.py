"""R13: one partition of ten thousand photos of 3 MB stays within what docs/operations.md states."""

import os
import threading
from functools import partial

import numpy as np
import pytest

from dedup_job.config import JobConfig
from dedup_job.io.bundles import load_shipped, locate_bundle, ship_bundle
from dedup_job.io.decoding import open_decoder
from dedup_job.io.fetch import open_fetch
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_table
from dedup_job.kernels.bundle import read_manifest
from dedup_job.stages.photo_worker import EmbedPhotos
from dedup_job.tables import PHOTO_REQUESTS, PHOTOS
from tests.faults.processes import below, command_line
from tests.photos import encode
from tests.servers import answer

pytestmark = [pytest.mark.spark, pytest.mark.slow]

N_PHOTOS = 10_000
BUDGET_MIB = 600  # a core, worker and decoder together: docs/operations.md
GROWTH_MIB = 30
EVERY_S = 0.25


def large_jpeg():
    """About 3 MB, 2000x2667 pixels."""
    grain = np.random.default_rng(0).normal(128, 20, (2667, 2000, 3))
    data = encode(grain.clip(0, 255).astype(np.uint8), quality=90)
    assert 2_000_000 < len(data) < 4_000_000, len(data)
    return data


def numbered(data):
    """Serves the photo with the request's path in a comment, so that no two contents are equal."""

    def behave(handler):
        note = handler.path.encode()
        segment = b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note
        answer(data[:2] + segment + data[2:])(handler)

    return behave


class MemoryWatch(threading.Thread):
    """Samples the memory of this session's busiest Python worker and its decoder."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self._pid, self._done = pid, threading.Event()
        self.samples_mib = []

    def run(self):
        while not self._done.wait(EVERY_S):
            decoders = [p for p in below(self._pid) if "decoder_process" in command_line(p)]
            pairs = [resident_mib(parent_of(p)) + resident_mib(p) for p in decoders]
            if pairs:
                self.samples_mib.append(max(pairs))

    def stop(self):
        self._done.set()
        self.join()


def status_of(pid, name):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
            return next((int(line.split()[1]) for line in stream if line.startswith(name)), 0)
    except OSError:
        return 0


def resident_mib(pid):
    return status_of(pid, "VmRSS:") / 1024


def parent_of(pid):
    return status_of(pid, "PPid:")


def test_a_partition_of_large_photos_stays_within_the_budget(spark, photo_server, tmp_path):
    photo_server.routes["/photo.jpg"] = numbered(large_jpeg())
    nothing_known = [None] * (len(PHOTO_REQUESTS.columns) - 2)
    urls = [photo_server.url(f"/photo.jpg?{i}") for i in range(N_PHOTOS)]
    rows = spark.createDataFrame(
        [(f"{i:08d}", url, *nothing_known) for i, url in enumerate(urls)], PHOTO_REQUESTS.ddl
    )
    config = JobConfig(fetch={"allow_hosts": ("127.0.0.1",)})
    directory = locate_bundle("")
    bundle = ship_bundle(spark, directory, read_manifest(directory), "litert")
    images = config.images
    worker = EmbedPhotos(
        open_fetch=partial(open_fetch, FetchPolicy.from_config(config.fetch, [])),
        open_embedder=partial(load_shipped, bundle),
        open_decoder=partial(
            open_decoder, config.image_limits(), images.decode_timeout_s, images.decode_memory_mb
        ),
        prefetch=config.embed.prefetch,
        n_threads=16,
    )
    watch = MemoryWatch(os.getpid())
    watch.start()
    try:
        stored = write_table(rows.repartition(1), PHOTOS, Folder(str(tmp_path)), worker)
    finally:
        watch.stop()
    assert stored.n_rows == photo_server.count("/photo.jpg") == N_PHOTOS
    samples = np.array(watch.samples_mib)
    tenths = [f"{np.median(tenth):.0f}" for tenth in np.array_split(samples, 10)]
    print(f"peak {samples.max():.0f} MiB; median by tenths of the run: {' '.join(tenths)} MiB")
    third = len(samples) // 3
    assert third > 20, "too few samples to speak of growth"
    growth = np.median(samples[-third:]) - np.median(samples[third : 2 * third])
    assert samples.max() < BUDGET_MIB
    assert growth < GROWTH_MIB
