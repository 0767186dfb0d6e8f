"""The gallery of a run, written once the run is published: nothing of it can fail the night."""

import logging
from functools import partial

import pyarrow as pa

from dedup_job.config import JobConfig
from dedup_job.errors import one_line
from dedup_job.gallery.writing import choose_shown, write_gallery
from dedup_job.io.decoding import decoder_opener
from dedup_job.io.fetch import FetchPolicy, open_fetch
from dedup_job.io.manifests import RunManifest, read_manifest
from dedup_job.io.session import count_cores
from dedup_job.io.thumbnails import store_thumbnail, thumbnails_there
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.report_tables import Findings
from dedup_job.stages.thumbnails import RESULT_DDL, MakeThumbnails, thumbnail_requests

logger = logging.getLogger("dedup_job")
_FETCH_THREADS = 8
_PHOTOS_PER_TASK = 500


def show_run(context: RunContext, config: JobConfig, base: str, found: Findings) -> None:
    """Make the thumbnails that are missing, and write the gallery of the newest run.

    Args:
        context: of a published run.
        config: its settings.
        base: what relative image URIs are relative to; a local one may be read.
        found: what the run found.
    """
    try:
        manifest = read_manifest(context.warehouse)
        if not config.gallery.max_groups or manifest.run_id != context.run_id:
            return  # not wanted, or a backfill: a later night is what people look at
        _show(context, config, base, found, manifest)
    except Exception as error:  # decoders, stores and Spark raise many types
        logger.warning(
            "published; the gallery could not be written: %s; try: dedup-job review --warehouse %s",
            one_line(error),
            context.warehouse.uri,
        )


def _show(
    context: RunContext, config: JobConfig, base: str, found: Findings, manifest: RunManifest
) -> None:
    shown = choose_shown(context.warehouse, manifest, config.gallery.max_groups)
    missing = sorted(shown.thumbnails - thumbnails_there(context.warehouse))
    if missing:
        _make(context, config, base, found, missing)
    context.lease.check()
    write_gallery(context.warehouse, manifest, shown)


def _make(
    context: RunContext, config: JobConfig, base: str, found: Findings, missing: list[str]
) -> None:
    wanted = context.spark.createDataFrame(pa.table({"photo": missing}))
    requests = thumbnail_requests(wanted, found.photos, found.rows)
    make = MakeThumbnails(
        open_fetch=partial(open_fetch, FetchPolicy.from_config(config.fetch, [base])),
        open_decoder=decoder_opener(config),
        store=partial(store_thumbnail, context.warehouse),
        n_threads=config.fetch.n_threads or _FETCH_THREADS,
    )
    n_tasks = max(1, min(count_cores(context.spark), len(missing) // _PHOTOS_PER_TASK))
    done = requests.repartition(n_tasks).mapInArrow(make, RESULT_DDL).toArrow().to_pylist()
    problems = [row for row in done if row["problem"] is not None]
    n_made = len(done) - len(problems)
    logger.info("gallery: %d thumbnails made, %d not", n_made, len(missing) - n_made)
    if problems:
        logger.warning("no thumbnail of %d photos, the first: %s", len(problems), problems[0])
