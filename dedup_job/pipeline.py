"""The nightly run, readable top to bottom: catalog, photos, candidates, groups, reports, publish.

Stages are pure functions of DataFrames; everything they pass on is stored once below the
warehouse's staging folder, so that no photo is fetched or embedded twice when Spark looks again.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError, GateError
from dedup_job.io.bundles import load_shipped, locate_bundle, ship_bundle
from dedup_job.io.catalog import Part, catalog_base, plan_catalog, read_catalog
from dedup_job.io.fetch import open_fetch
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.progress import watch_files
from dedup_job.io.session import count_cores, open_session
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_table, write_table
from dedup_job.kernels.bundle import Manifest
from dedup_job.kernels.calibration import Calibration, read_calibration
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.ranking import OrderColumn, parse_canonical_order
from dedup_job.kernels.threshold import (
    CatalogSize,
    ThresholdChoice,
    judge_threshold,
    search_floor,
    solve_threshold,
)
from dedup_job.nightly.context import RunContext, start_run
from dedup_job.nightly.report_tables import Findings
from dedup_job.nightly.reporting import publish_run
from dedup_job.nightly.results import RunResult, Search
from dedup_job.settings import Settings
from dedup_job.stages.candidates import count_cosines, search_until_recall
from dedup_job.stages.catalog import (
    CLASSIFIED_CATALOG,
    accepted_rows,
    classify_catalog,
    rejected_rows,
)
from dedup_job.stages.cells import plan_cells
from dedup_job.stages.embeddings import (
    comparable_rows,
    distinct_embeddings,
    find_placeholders,
    photo_requests,
    reject_photos,
    searchable_contents,
    usable_rows,
)
from dedup_job.stages.groups import Grouping, GroupRules, group_products
from dedup_job.stages.pairs import match_products
from dedup_job.stages.photo_worker import (
    LOCAL_PHOTOS_PER_HANDOVER,
    EmbedPhotos,
    count_photo_tasks,
)
from dedup_job.stages.products import represent_products
from dedup_job.tables import (
    CONTENTS,
    PHOTOS,
    PLACEHOLDERS,
    PRODUCT_PAIRS,
    PRODUCTS,
    USABLE_ROWS,
)

logger = logging.getLogger("dedup_job")
_REMOTE_FETCH_THREADS = 16


@dataclass(frozen=True)
class Model:
    """The bundle of a run, verified."""

    directory: Path
    manifest: Manifest
    calibration: Calibration


@dataclass(frozen=True)
class Catalog:
    """The catalog in two: rows that name a photo, and rejects. `n_rows` counts both.

    `base` is what relative image URIs are relative to.
    """

    base: str
    n_rows: int
    rows: DataFrame
    rejects: DataFrame


@dataclass(frozen=True)
class Photos:
    """What the photo stage leaves behind; every frame reads what is stored, none fetches again."""

    n_photos: int
    usable: DataFrame
    rejects: DataFrame
    placeholders: DataFrame
    embeddings: DataFrame


def run(settings: Settings) -> RunResult:
    """Run the whole job and publish its reports.

    Raises:
        ConfigError, CatalogError: exit code 2; nothing was started.
        GateError: exit code 3; a quality gate held the run back, nothing was published.
        DedupError: exit code 1.
    """
    config = settings.config
    if not config.catalog.path:
        raise ConfigError("catalog.path is missing; give --catalog PATH")
    warehouse = open_warehouse(config.warehouse)
    order = parse_canonical_order(config.catalog.canonical_order)
    parts = plan_catalog(config.catalog)
    model = open_model(config)
    spark = open_session()
    context = start_run(spark, warehouse, config.run_date)
    try:
        catalog = take_catalog(context, config, parts)
        photos = embed_photos(context, config, model, catalog)
        photo_rows, contents = select_contents(context, photos)
        search, photo_pairs = find_candidates(context, config, model, contents)
        grouping = group(context, config, order, photo_rows, contents, search, photo_pairs)
        found = Findings(
            n_catalog_rows=catalog.n_rows,
            n_photos=photos.n_photos,
            search=search,
            usable=photos.usable,
            catalog_rejects=catalog.rejects,
            photo_rejects=photos.rejects,
            placeholders=photos.placeholders,
            embeddings=photos.embeddings,
            photo_pairs=photo_pairs,
            grouping=grouping,
        )
        return publish_run(context, settings, model.calibration, found)
    finally:
        context.clean_up()


def open_model(config: JobConfig) -> Model:
    """Find the model bundle and try it on the driver, before anything is started."""
    directory = locate_bundle(config.model.bundle)
    manifest = load_embedder(directory).manifest
    return Model(directory, manifest, read_calibration(directory, manifest.model_id))


def take_catalog(context: RunContext, config: JobConfig, parts: Sequence[Part]) -> Catalog:
    """Read the catalog and part it into rows that name a photo, and rejects."""
    with context.stage("catalog"):
        raw, base = read_catalog(context.spark, parts), catalog_base(config.catalog)
        stored = context.store(classify_catalog(raw, base), CLASSIFIED_CATALOG)
        classified = read_table(context.spark, stored)
        return Catalog(base, stored.n_rows, accepted_rows(classified), rejected_rows(classified))


def embed_photos(context: RunContext, config: JobConfig, model: Model, catalog: Catalog) -> Photos:
    """Fetch, decode and embed every photo once; find rejects and placeholders."""
    with context.stage("embeddings"):
        n_cores, per_task = count_cores(context.spark), config.embed.photos_per_task
        n_tasks = count_photo_tasks(catalog.n_rows, n_cores, per_task)
        requests, folder = photo_requests(catalog.rows, n_tasks), context.new_folder(PHOTOS.name)
        worker = photo_worker(context, config, model, catalog)
        with watch_files(folder, n_tasks, "photos"):
            stored = write_table(requests, PHOTOS, folder, worker)
        photos = read_table(context.spark, stored)
        usable = context.materialise(usable_rows(catalog.rows, photos), USABLE_ROWS)
        if catalog.n_rows and usable.isEmpty():
            raise GateError(
                f"none of the {catalog.n_rows} catalog rows has a usable photo "
                f"({most_frequent_reject(catalog, photos)}); nothing was published, the last "
                "reports stand. Check --image-root, fetch.allow_hosts and the store's credentials"
            )
        shared = find_placeholders(usable, config.match.max_skus_per_photo)
        return Photos(
            n_photos=stored.n_rows,
            usable=usable,
            rejects=reject_photos(catalog.rows, photos),
            placeholders=context.materialise(shared, PLACEHOLDERS),
            embeddings=distinct_embeddings(photos),
        )


def most_frequent_reject(catalog: Catalog, photos: DataFrame) -> str:
    """What to say when nothing is usable: the most frequent reason, how often, an example."""
    rejects = catalog.rejects.unionByName(reject_photos(catalog.rows, photos))
    counted = rejects.groupBy("reason").agg(
        F.count("*").alias("n"), F.min("detail").alias("detail")
    )
    top = counted.orderBy(F.desc("n"), "reason").first()
    return "no reject either" if top is None else f"{top.reason} {top.n} times: {top.detail}"


def photo_worker(
    context: RunContext, config: JobConfig, model: Model, catalog: Catalog
) -> EmbedPhotos:
    """Everything a photo task needs, ready to be pickled."""
    bundle = ship_bundle(context.spark, model.directory, model.manifest, config.model.runtime)
    policy = FetchPolicy.from_config(config.fetch, [catalog.base])
    threads_per_task = int(context.spark.conf.get("spark.task.cpus", "1") or 1)
    is_remote = not catalog.rows.where("source_uri NOT LIKE 'file:%'").isEmpty()
    return EmbedPhotos(
        open_fetch=partial(open_fetch, policy),
        open_embedder=partial(load_shipped, bundle, threads_per_task),
        limits=config.image_limits(),
        prefetch=config.embed.prefetch,
        n_threads=config.fetch.n_threads or (_REMOTE_FETCH_THREADS if is_remote else 1),
        per_handover=1 if is_remote else LOCAL_PHOTOS_PER_HANDOVER,
    )


def select_contents(context: RunContext, photos: Photos) -> tuple[DataFrame, DataFrame]:
    """Rows that may match, and their distinct contents with embeddings."""
    photo_rows = comparable_rows(photos.usable, photos.placeholders)
    contents = searchable_contents(photo_rows, photos.embeddings)
    return photo_rows, context.materialise(contents, CONTENTS)


def find_candidates(
    context: RunContext, config: JobConfig, model: Model, contents: DataFrame
) -> tuple[Search, DataFrame]:
    """Search pairs, solve the threshold for this catalog, measure recall there.

    Raises:
        GateError: recall stays below the target at maximum effort.
    """
    with context.stage("candidates"):
        plan = plan_cells(contents, config.candidates)
        size = CatalogSize(plan.n_contents, plan.n_comparisons, config.match.look_alikes_per_sku)
        floor = search_floor(model.calibration, size, config.match.min_cosine)

        def solve(pairs: DataFrame) -> ThresholdChoice:
            choice = choose_threshold(pairs, config, model, size, floor)
            logger.info(
                "candidates: pairs searched from cosine %.3f, threshold %.3f; measuring recall",
                floor,
                choice.min_cosine,
            )
            return choice

        outcome = search_until_recall(
            contents,
            config.candidates,
            floor,
            solve,
            context.materialise,
            plan,
        )
        search = Search(floor, outcome.threshold, outcome.estimate, outcome.effort, size)
        recall = outcome.estimate.recall
        if recall is not None and not outcome.target_met:
            accepted = max(recall - 0.005, 0.0001)
            raise GateError(
                f"candidate recall is {recall:.3f} at maximum effort, candidates.target_recall is "
                f"{config.candidates.target_recall}; nothing was published. Search harder with "
                f"--set candidates.n_trees={2 * outcome.effort.n_trees}, or accept it with "
                f"--set candidates.target_recall={accepted:.4f}"
            )
        return search, outcome.pairs


def choose_threshold(
    pairs: DataFrame, config: JobConfig, model: Model, size: CatalogSize, floor: float
) -> ThresholdChoice:
    """The explicit threshold judged, or the solved one."""
    match = config.match
    observed = count_cosines(pairs)
    if match.min_cosine is not None:
        return judge_threshold(
            model.calibration, size, observed, match.min_cosine, match.target_precision
        )
    return solve_threshold(model.calibration, size, observed, match.target_precision, floor)


def group(
    context: RunContext,
    config: JobConfig,
    order: tuple[OrderColumn, ...],
    photo_rows: DataFrame,
    contents: DataFrame,
    search: Search,
    photo_pairs: DataFrame,
) -> Grouping:
    """From photo pairs to product pairs to groups with a survivor."""
    with context.stage("groups"):
        min_cosine = search.threshold.min_cosine
        products = context.materialise(represent_products(photo_rows, order), PRODUCTS)
        matched = match_products(
            products,
            photo_rows,
            photo_pairs,
            min_cosine=min_cosine,
            sku_match=config.match.sku_match,
        )
        pairs = context.materialise(matched, PRODUCT_PAIRS)
        rules = GroupRules(
            config.match.chaining,
            order,
            min_cosine,
            context.run_date,
            n_conflict_columns=len(config.catalog.conflict),
        )
        return group_products(pairs, products, photo_rows, contents, rules)
