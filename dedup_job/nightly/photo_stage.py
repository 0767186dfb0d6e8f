"""The photo stage: what is new is fetched and embedded, chunk by chunk; what is known is looked up."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dedup_job.config import JobConfig
from dedup_job.io.bundles import load_shipped, ship_bundle
from dedup_job.io.decoding import decoder_opener
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.fetch import open_fetch
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.known_contents import load_known_contents, write_known_contents
from dedup_job.io.progress import watch_files
from dedup_job.io.session import count_cores
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, TableFile, read_table, transform_table, write_table
from dedup_job.kernels.bundle import Manifest
from dedup_job.kernels.calibration import Calibration
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.results import PhotoCounts
from dedup_job.stages.embeddings import new_embeddings
from dedup_job.stages.photo_plan import (
    PHOTO_FACTS,
    Trust,
    photo_requests,
    plan_photos,
    remembered_photos,
)
from dedup_job.stages.photo_worker import (
    LOCAL_PHOTOS_PER_HANDOVER,
    EmbedPhotos,
    count_photo_tasks,
)
from dedup_job.tables import IMAGE_EMBEDDINGS, PHOTO_PLAN, PHOTO_REQUESTS, PHOTOS

logger = logging.getLogger("dedup_job")
_REMOTE_FETCH_THREADS = 16
# Measured on this project's 400x533 photos: about 500 a second and core; fetching may halve it.
_PHOTOS_PER_CORE_AND_CHUNK = 12_000


@dataclass(frozen=True)
class Model:
    """The bundle of a run, checked.

    Attributes:
        directory: where it lies.
        manifest: its manifest.
        calibration: of the cosines: by it candidates are searched.
        scores: the calibration that threshold and probabilities go by: of the verifier's scores, or
            `calibration` where the run verifies no pairs.
    """

    directory: Path
    manifest: Manifest
    calibration: Calibration
    scores: Calibration

    @property
    def verifies(self) -> bool:
        """Whether the run verifies candidate pairs."""
        return self.scores is not self.calibration

    @property
    def verifier_id(self) -> str | None:
        """What the scores of pairs come from; None: they are cosines."""
        return self.manifest.verifier_id if self.verifies else None


@dataclass(frozen=True)
class PhotoFindings:
    """What every photo of the catalog shows.

    Attributes:
        photos: PHOTOS, one row a `fetch_key`, without `embedding`.
        embedded: IMAGE_EMBEDDINGS of the contents that this run embedded.
        counts: what was done.
    """

    photos: DataFrame
    embedded: StoredTable
    counts: PhotoCounts


def read_photos(
    context: RunContext,
    config: JobConfig,
    model: Model,
    rows: DataFrame,
    base: str,
    remembered: DataFrame | None,
) -> PhotoFindings:
    """Find out what every photo of the catalog shows.

    Args:
        context: the run.
        config: its settings.
        model: what embeds.
        rows: CATALOG_ROWS.
        base: what relative image URIs are relative to; a local one may be read.
        remembered: CATALOG_IMAGES of the last run, or None.
    """
    store = EmbeddingStore(context.warehouse, model.manifest.model_id)
    known = read_table(context.spark, store.stored(), ["content_sha256"])
    trust = Trust(context.run_date, config.fetch.revalidate_days)
    plan = context.materialise(plan_photos(rows, remembered, known, trust), PHOTO_PLAN)
    n_requests = plan.where("NOT is_remembered").count()
    chunks: list[StoredTable] = []
    if n_requests:
        worker = photo_worker(context.spark, config, model, plan, base)
        worker = _with_known_contents(context, config, worker, known, remembered)
        chunks = list(_fetch_in_chunks(context, config, plan, n_requests, worker))
    facts = [read_table(context.spark, chunk, PHOTO_FACTS) for chunk in chunks]
    photos = reduce(DataFrame.unionByName, facts, remembered_photos(plan))
    embedded = _store_embedded(context, chunks)
    return PhotoFindings(photos, embedded, _count(photos, embedded.n_rows))


def _store_embedded(context: RunContext, chunks: Sequence[StoredTable]) -> StoredTable:
    """What this run embedded, each content once."""
    if not chunks:
        return StoredTable(IMAGE_EMBEDDINGS, context.new_folder(IMAGE_EMBEDDINGS.name), ())
    names = IMAGE_EMBEDDINGS.column_names
    frames = [read_table(context.spark, chunk, names) for chunk in chunks]
    return context.keep(new_embeddings(reduce(DataFrame.unionByName, frames)), IMAGE_EMBEDDINGS)


def _fetch_in_chunks(
    context: RunContext, config: JobConfig, plan: DataFrame, n_requests: int, worker: EmbedPhotos
) -> Iterator[StoredTable]:
    n_cores = count_cores(context.spark)
    n_tasks = count_photo_tasks(n_requests, n_cores, config.embed.photos_per_task)
    per_chunk = config.embed.chunk_photos or n_cores * _PHOTOS_PER_CORE_AND_CHUNK
    n_tasks = max(n_tasks, -(-n_requests // per_chunk))
    requests = context.step(
        PHOTO_REQUESTS,
        lambda folder: write_table(photo_requests(plan, n_tasks), PHOTO_REQUESTS, folder),
    )
    chunks = _cut(requests.files, per_chunk)
    for number, files in enumerate(chunks, 1):
        what = "photos" if len(chunks) == 1 else f"photos, chunk {number} of {len(chunks)}"
        fetch = partial(_fetch_chunk, context, replace(requests, files=files), worker, what)
        yield context.step(PHOTOS, fetch, f"photos-{_digest(files)}")


def _fetch_chunk(
    context: RunContext, requests: StoredTable, worker: EmbedPhotos, what: str, folder: Folder
) -> StoredTable:
    with watch_files(folder, len(requests.files), what):
        return transform_table(context.spark, requests, PHOTOS, folder, worker)


def _cut(files: Sequence[TableFile], per_chunk: int) -> list[tuple[TableFile, ...]]:
    """Files in order, so many to a chunk that it has at least `per_chunk` rows."""
    chunks: list[tuple[TableFile, ...]] = []
    held: list[TableFile] = []
    for file in files:
        held.append(file)
        if sum(one.n_rows for one in held) >= per_chunk:
            chunks.append(tuple(held))
            held = []
    return [*chunks, tuple(held)] if held else chunks


def _digest(files: Sequence[TableFile]) -> str:
    """Names a chunk by its files: other chunk sizes make other steps."""
    return hashlib.sha256("\n".join(file.name for file in files).encode()).hexdigest()[:16]


def photo_worker(
    spark: SparkSession, config: JobConfig, model: Model, plan: DataFrame, base: str
) -> EmbedPhotos:
    """Everything a photo task needs, ready to be pickled; knows no contents yet.

    Args:
        spark: the session; the bundle is shipped to its executors.
        config: settings of the run.
        model: what embeds.
        plan: PHOTO_PLAN, or any frame with its `source_uri`.
        base: what relative image URIs are relative to; a local one may be read.
    """
    bundle = ship_bundle(spark, model.directory, model.manifest, config.model.runtime)
    policy = FetchPolicy.from_config(config.fetch, [base])
    threads_per_task = count_task_threads(spark)
    is_remote = not plan.where("source_uri NOT LIKE 'file:%'").isEmpty()
    return EmbedPhotos(
        open_fetch=partial(open_fetch, policy),
        open_embedder=partial(load_shipped, bundle, threads_per_task),
        open_decoder=decoder_opener(config),
        prefetch=config.embed.prefetch,
        n_threads=config.fetch.n_threads or (_REMOTE_FETCH_THREADS if is_remote else 1),
        per_handover=1 if is_remote else LOCAL_PHOTOS_PER_HANDOVER,
    )


def count_task_threads(spark: SparkSession) -> int:
    """Threads that one task may use."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1)


def _with_known_contents(
    context: RunContext,
    config: JobConfig,
    worker: EmbedPhotos,
    embedded: DataFrame,
    remembered: DataFrame | None,
) -> EmbedPhotos:
    """Let workers recognise contents that are embedded already, the most frequent ones first."""
    ranked = embedded.dropDuplicates(["content_sha256"]).withColumn("n", F.lit(0).cast("bigint"))
    if remembered is not None:
        counted = remembered.groupBy("content_sha256").agg(F.count("*").alias("n"))
        ranked = ranked.drop("n").join(counted, "content_sha256", "left")
    first = ranked.orderBy(F.desc_nulls_last("n"), "content_sha256").limit(
        config.embed.known_contents
    )
    shas = first.select("content_sha256").toArrow()["content_sha256"]
    if not len(shas):
        return worker
    folder, name = context.new_folder("known_contents"), "known_contents.npy"
    write_known_contents(folder, name, shas)
    return replace(worker, known=partial(load_known_contents, folder, name))


def _count(photos: DataFrame, n_embedded: int) -> PhotoCounts:
    row = photos.agg(
        *(
            F.count_if(F.col("origin") == origin).alias(origin)
            for origin in ("fetched", "not_modified", "remembered")
        )
    ).first()
    assert row is not None  # an aggregate without keys has one row
    return PhotoCounts(**row.asDict(), embedded=n_embedded)
