"""What tonight's run would find, looked at without writing anything: counts, and a sample of photos.

The frames are the run's own stages. Where a run stores them in staging, here Spark caches them on
its executors for as long as the look takes.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dedup_job.config import JobConfig
from dedup_job.errors import ImageRejected
from dedup_job.io.catalog import Part, read_catalog
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.refusals import REFUSALS_DDL, FindRefusals
from dedup_job.io.tables import read_table
from dedup_job.nightly.executors import ANSWER_DDL, answer_batch
from dedup_job.nightly.memory import Memory
from dedup_job.nightly.photo_stage import Model, photo_worker
from dedup_job.settings import Settings
from dedup_job.stages.catalog import accepted_rows, classify_catalog, rejected_rows
from dedup_job.stages.photo_plan import Trust, photo_requests, plan_photos
from dedup_job.stages.photo_worker import EmbedPhotos
from dedup_job.tables import PHOTOS

SAMPLE_PHOTOS = 100
_SHOWN_REFUSALS = 10


@dataclass(frozen=True)
class CatalogFigures:
    """A catalog in numbers.

    Attributes:
        n_rows: rows, rejected ones included.
        rejects: reject reason -> rows that no photo is needed to reject.
        n_photos: distinct photos of the other rows.
        n_remembered: of them, photos that need no request tonight.
        n_asked: photos whose store is asked whether they changed.
        n_new: photos that are fetched in any case.
        n_largest_block: distinct photos of the largest block.
        refusals: why the `fetch` settings refuse photos by their URI -> photos; the most frequent.
        n_refused: photos refused so, those whose reason is not listed included.
    """

    n_rows: int
    rejects: dict[str, int]
    n_photos: int
    n_remembered: int
    n_asked: int
    n_new: int
    n_largest_block: int
    refusals: dict[str, int]
    n_refused: int


@dataclass(frozen=True)
class SampleFigures:
    """A sample of tonight's photos, fetched, decoded and embedded as the run would.

    Attributes:
        n_photos: photos in it.
        n_embedded: of them, photos that got an embedding of their own.
        seconds: of all tasks together, the load of the model left out.
        n_bytes: of all photos that could be fetched.
        n_sized: photos that could be fetched.
        rejects: reject reason -> photos.
        details: reject reason -> what was said of one of them.
    """

    n_photos: int
    n_embedded: int
    seconds: float
    n_bytes: int
    n_sized: int
    rejects: dict[str, int]
    details: dict[str, str]


@dataclass(frozen=True)
class LookAhead:
    """The frames of a look: `plan` is PHOTO_PLAN of tonight; `base` what relative URIs start from."""

    figures: CatalogFigures
    plan: DataFrame
    base: str


@contextmanager
def look_at_catalog(
    spark: SparkSession,
    settings: Settings,
    parts: Sequence[Part],
    base: str,
    memory: Memory,
    model: Model,
    trust: Trust,
) -> Iterator[LookAhead]:
    """Read and judge the catalog, and plan its photos; caches are dropped when the block ends.

    Args:
        spark: the session.
        settings: of the run.
        parts: from `plan_catalog`.
        base: from `catalog_base`.
        memory: what earlier runs left.
        model: whose embeddings count.
        trust: how long a store's answer stands.
    """
    config = settings.config
    classified = classify_catalog(read_catalog(spark, parts), base).persist()
    rows = accepted_rows(classified)
    store = EmbeddingStore(memory.warehouse, model.manifest.model_id)
    embedded = read_table(spark, store.stored(), ["content_sha256"])
    remembered = memory.judged_photos(settings.as_dict())
    plan = plan_photos(rows, remembered, embedded, trust).persist()
    try:
        yield LookAhead(_figures(classified, rows, plan, config, base), plan, base)
    finally:
        plan.unpersist()
        classified.unpersist()


def sample_photos(
    spark: SparkSession, config: JobConfig, model: Model, look: LookAhead, n_cores: int
) -> SampleFigures | None:
    """Send some of tonight's photos through the photo worker; None when no photo needs a request.

    The photos are the first by the hash of their URI, so the same ones as long as they are asked for.
    """
    due = look.plan.where("NOT is_remembered")
    chosen = due.orderBy(F.xxhash64("fetch_key"), "fetch_key").limit(SAMPLE_PHOTOS)
    if chosen.isEmpty():
        return None
    worker = photo_worker(spark, config, model, look.plan, look.base)
    requests = photo_requests(chosen, n_cores)
    answers = requests.mapInArrow(_Measure(worker), ANSWER_DDL).collect()
    return add_up([json.loads(row.answer) for row in answers])


def add_up(answers: Sequence[dict[str, Any]]) -> SampleFigures:
    """The figures of all tasks in one."""
    rejects: Counter[str] = Counter()
    details: dict[str, str] = {}
    for answer in answers:
        rejects.update(answer["rejects"])
        details.update(answer["details"])
    names = ("n_photos", "n_embedded", "seconds", "n_bytes", "n_sized")
    sums = {name: sum(answer[name] for answer in answers) for name in names}
    return SampleFigures(**sums, rejects=dict(rejects.most_common()), details=details)


def _figures(
    classified: DataFrame, rows: DataFrame, plan: DataFrame, config: JobConfig, base: str
) -> CatalogFigures:
    counted = rejected_rows(classified).groupBy("reason").count().orderBy(F.desc("count"))
    rejects = {row["reason"]: row["count"] for row in counted.collect()}
    kinds = plan.groupBy("is_remembered", F.col("content_sha256").isNotNull().alias("known"))
    photos = {(row["is_remembered"], row["known"]): row["count"] for row in kinds.count().collect()}
    in_blocks = rows.select("block", "fetch_key").distinct().groupBy("block").count()
    largest = in_blocks.agg(F.max("count")).first()
    policy = FetchPolicy.from_config(config.fetch, [base])
    refused = plan.select("source_uri").mapInArrow(FindRefusals(policy), REFUSALS_DDL)
    by_refusal = refused.where("refusal IS NOT NULL").groupBy("refusal").count().persist()
    most = by_refusal.orderBy(F.desc("count"), "refusal").limit(_SHOWN_REFUSALS).collect()
    all_refused = by_refusal.agg(F.sum("count")).first()
    by_refusal.unpersist()
    return CatalogFigures(
        n_rows=classified.count(),
        rejects=rejects,
        n_photos=sum(photos.values()),
        n_remembered=sum(n for (is_remembered, _), n in photos.items() if is_remembered),
        n_asked=photos.get((False, True), 0),
        n_new=photos.get((False, False), 0),
        n_largest_block=(largest[0] if largest else 0) or 0,
        refusals={row["refusal"]: row["count"] for row in most},
        n_refused=(all_refused[0] if all_refused else 0) or 0,
    )


@dataclass(frozen=True)
class _Measure:
    """Runs the photo worker and answers with figures in place of photos."""

    worker: EmbedPhotos

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        self._start()
        started = time.monotonic()
        photos = pa.Table.from_batches(list(self.worker(batches)), PHOTOS.arrow)
        seconds = time.monotonic() - started
        if not photos.num_rows:
            return
        reasons = photos["reason"].to_pylist()
        details = zip(reasons, photos["detail"].to_pylist(), strict=True)
        sizes = photos["n_bytes"].drop_null().to_pylist()
        yield answer_batch(
            {
                "n_photos": photos.num_rows,
                "n_embedded": photos.num_rows - photos["embedding"].null_count,
                "seconds": seconds,
                "n_bytes": sum(sizes),
                "n_sized": len(sizes),
                "rejects": Counter(reason for reason in reasons if reason),
                "details": {reason: detail for reason, detail in details if reason},
            }
        )

    def _start(self) -> None:
        """Load the model and start the decoder: a night pays for them once, not once in 100 photos."""
        manifest = self.worker.open_embedder().manifest
        decoder = self.worker.open_decoder(manifest.input_px, manifest.blur_sigma_px)
        try:
            decoder.measure(b"")
        except ImageRejected:
            return
