"""Embedding stage against a bare loop: photos per second, side by side, and worker memory.

    python -m benchmarks.embed [--photos DIR] [--n-photos 5000] [--size 400x533] [--rounds 3]
        [--tensorflow 2000] [--out FILE.json]

All sides use two processes, the same photo files and the same bundle, and are clocked from the
first photo to the last; starting Spark, Python and the model is left out on all. The bare loop
does nothing but read, decode, blur, resize and invoke the network. The stage runs as in the job, with
a decoder process beside each worker, and once more with decoding inside the worker: what isolation
costs. `--tensorflow N` also runs the bundle's float32 model on TensorFlow, 32 photos at a time.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.clock import (
    Clocked,
    Stopwatch,
    open_clocked_embedder,
    open_clocked_fetch,
    read_clocks,
)
from benchmarks.photos import write_distinct_photos
from dedup_job.io.bundles import ShippedBundle, locate_bundle, ship_bundle
from dedup_job.io.decoding import open_decoder
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_table
from dedup_job.kernels.bundle import read_manifest
from dedup_job.kernels.images import ImageLimits, Prepared, measure, prepare
from dedup_job.kernels.model import load_embedder
from dedup_job.sample.catalog import write_sample_catalog
from dedup_job.stages.photo_worker import (
    LOCAL_PHOTOS_PER_HANDOVER,
    EmbedPhotos,
    OpenDecoder,
    count_photo_tasks,
)
from dedup_job.tables import PHOTO_REQUESTS, PHOTOS

N_PROCESSES = 2
_TENSORFLOW_BATCH = 32


def run_stage(
    spark, paths: list[Path], bundle: ShippedBundle, n_tasks: int, open_decoder: OpenDecoder
) -> Clocked:
    """The job's own worker code, on Spark, with its defaults for local files."""
    nothing_known = [None] * (len(PHOTO_REQUESTS.columns) - 2)
    rows = spark.createDataFrame(
        [(f"{i:08d}", f"file://{path.absolute()}", *nothing_known) for i, path in enumerate(paths)],
        PHOTO_REQUESTS.ddl,
    )
    requests = rows.repartition(n_tasks, "fetch_key")
    policy = FetchPolicy.from_config(_defaults().fetch, [str(paths[0].parent.absolute())])
    with tempfile.TemporaryDirectory() as folder:
        worker = EmbedPhotos(
            open_fetch=partial(open_clocked_fetch, folder, policy),
            open_embedder=partial(open_clocked_embedder, folder, bundle),
            open_decoder=open_decoder,
            prefetch=_defaults().embed.prefetch,
            n_threads=1,
            per_handover=LOCAL_PHOTOS_PER_HANDOVER,
        )
        stored = write_table(requests, PHOTOS, Folder(f"{folder}/out"), worker)
        clocked = read_clocks(folder)
    assert stored.n_rows == len(paths) == clocked.n_photos
    return clocked


class InWorkerDecoder:
    """Decoding without a process of its own: what the job does not do."""

    def __init__(self, size_px: int, blur_sigma_px: float) -> None:
        cv2.setNumThreads(0)
        self._prepare = partial(prepare, size_px=size_px, blur_sigma_px=blur_sigma_px)
        self.measure = measure

    def prepare_all(self, photos: Sequence[bytes]) -> list[Prepared]:
        return [self._prepare(data) for data in photos]


def run_bare_loop(
    paths: list[Path], bundle: Path, runtime: str = "litert", batch: int = 1
) -> Clocked:
    """Two plain processes, each with half of the photos, so many at a time through the network."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(N_PROCESSES)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(
                target=_bare_loop,
                args=(
                    [str(p) for p in paths[i::N_PROCESSES]],
                    bundle,
                    folder,
                    barrier,
                    runtime,
                    batch,
                ),
            )
            for i in range(N_PROCESSES)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return read_clocks(folder)


def _bare_loop(
    paths: list[str], bundle: Path, folder: str, barrier, runtime: str, batch: int
) -> None:
    cv2.setNumThreads(0)
    embedder, watch = load_embedder(bundle, runtime), Stopwatch(folder)
    size_px, blur = embedder.manifest.input_px, embedder.manifest.blur_sigma_px
    embedder.embed(np.zeros((batch, size_px, size_px, 3), np.uint8))  # traces TensorFlow's graph
    barrier.wait()
    watch.start()
    n_done = 0
    for start in range(0, len(paths), batch):
        photos = [prepare(Path(path).read_bytes(), size_px, blur) for path in paths[start:][:batch]]
        embedder.embed(np.stack([photo.pixels for photo in photos]))
        number = start + len(photos)
        if number - n_done >= LOCAL_PHOTOS_PER_HANDOVER or number == len(paths):
            watch.done(number - n_done)  # as often as in the stage: looking at the clock costs time
            n_done = number


def _defaults():
    from dedup_job.config import JobConfig

    return JobConfig()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photos to re-encode [drawn ones]")
    parser.add_argument("--quick", action="store_true", help="1,000 photos, one round")
    parser.add_argument("--n-photos", type=int, default=5_000)
    parser.add_argument("--size", default="400x533", help="of the re-encoded photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tensorflow", type=int, default=0, metavar="N", help="run the float32 model on N photos"
    )
    parser.add_argument("--model", default="", help="bundle [the default one]")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dedup-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    if arguments.quick:
        arguments.n_photos, arguments.rounds = 1_000, 1
    width, height = (int(part) for part in arguments.size.split("x"))
    photos = arguments.photos or write_sample_catalog(arguments.work / "sample").catalog.parent
    paths = write_distinct_photos(photos, arguments.work, arguments.n_photos, (width, height))
    directory = locate_bundle(arguments.model)

    os.environ["DEDUP_LOCAL_CORES"] = str(N_PROCESSES)
    from dedup_job.io.session import open_session

    spark = open_session("benchmark")
    bundle = ship_bundle(spark, directory, read_manifest(directory), "litert")
    n_tasks = count_photo_tasks(len(paths), N_PROCESSES, _defaults().embed.photos_per_task)
    images = _defaults().images
    isolated = partial(
        open_decoder, ImageLimits(), images.decode_timeout_s, images.decode_memory_mb
    )
    for decoder in (isolated, InWorkerDecoder):  # starts workers and fills the disk cache
        run_stage(spark, paths[:200], bundle, N_PROCESSES, decoder)

    rounds = []
    for i in range(arguments.rounds):
        bare = run_bare_loop(paths, directory)
        stage = run_stage(spark, paths, bundle, n_tasks, isolated)
        in_worker = run_stage(spark, paths, bundle, n_tasks, InWorkerDecoder)
        ratio = stage.photos_per_s / bare.photos_per_s
        price = stage.photos_per_s / in_worker.photos_per_s
        sides = {"bare": bare, "stage": stage, "in_worker": in_worker}
        rounds.append(
            {**{k: v.__dict__ for k, v in sides.items()}, "ratio": ratio, "isolation": price}
        )
        print(
            f"round {i + 1}: bare loop {bare.photos_per_s:7.1f}/s  stage {stage.photos_per_s:7.1f}/s"
            f"  ratio {ratio:.3f}  decoding in the worker {in_worker.photos_per_s:7.1f}/s"
            f"  ratio {price:.3f}  worker peak {stage.peak_mib:.0f} MiB",
            flush=True,
        )
    if arguments.tensorflow:
        some = paths[: arguments.tensorflow]
        float32 = run_bare_loop(some, directory, "tensorflow", _TENSORFLOW_BATCH)
        int8 = run_bare_loop(some, directory)
        print(
            f"bare loops over {len(some)} photos: TensorFlow float32 {float32.photos_per_s:.1f}/s, "
            f"int8 {int8.photos_per_s:.1f}/s, ratio {int8.photos_per_s / float32.photos_per_s:.2f}"
        )
        rounds[-1]["tensorflow"] = float32.__dict__
    median = statistics.median(r["ratio"] for r in rounds)
    isolation = statistics.median(r["isolation"] for r in rounds)
    peak = max(r["stage"]["peak_mib"] for r in rounds)
    print(
        f"median: stage / bare loop {median:.3f}, isolated / in the worker {isolation:.3f} over "
        f"{len(paths)} photos; worker peak {peak:.0f} MiB"
    )
    if arguments.out:
        arguments.out.write_text(json.dumps({"rounds": rounds, "median_ratio": median}, indent=2))
    spark.stop()


if __name__ == "__main__":
    main()
