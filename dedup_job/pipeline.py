"""The nightly run, readable top to bottom: catalog, photos, candidates, groups, reports, publish.

Stages are pure functions of DataFrames; everything they pass on is stored once below the
warehouse's staging folder, so that no photo is fetched or embedded twice when Spark looks again, and
a run that was killed continues from its last finished step.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial

from pyspark.sql import DataFrame

from dedup_job.config import JobConfig, MatchConfig
from dedup_job.errors import ConfigError, DedupError
from dedup_job.io.bundles import locate_bundle
from dedup_job.io.catalog import Part, catalog_base, plan_catalog, read_catalog
from dedup_job.io.decisions import DecisionFile, read_decisions
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.lease import acquire_lease
from dedup_job.io.manifests import newest_published
from dedup_job.io.retention import bury_dead_runs
from dedup_job.io.session import open_session
from dedup_job.io.snapshot import inputs_digest, is_large, snapshot_catalog
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import (
    StoredTable,
    read_beside,
    read_rows,
    read_table,
    read_vectors,
    write_table,
)
from dedup_job.kernels.calibration import Calibration, read_calibration, read_score_calibration
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.ranking import OrderColumn, parse_canonical_order
from dedup_job.kernels.threshold import (
    CatalogSize,
    ThresholdChoice,
    judge_threshold,
    measure_density,
    probable_from,
    search_floor,
    solve_threshold,
    verify_floor,
)
from dedup_job.kernels.verifier_model import load_verifier
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.deciding import add_said_pairs, judge_decisions, outcomes
from dedup_job.nightly.gates import check_acceptance
from dedup_job.nightly.journal import open_journal
from dedup_job.nightly.labelling import label_products
from dedup_job.nightly.memory import Memory, check_delta, recall_runs, would_be_held_again
from dedup_job.nightly.photo_stage import Model, read_photos
from dedup_job.nightly.record import RunRecord, blaming_a_lost_lease, name_run
from dedup_job.nightly.report_tables import Findings
from dedup_job.nightly.reporting import publish_run
from dedup_job.nightly.results import PhotoCounts, RunResult
from dedup_job.nightly.showing import show_run
from dedup_job.nightly.verifying import verify_candidates
from dedup_job.settings import Settings
from dedup_job.stages.candidates import SearchOutcome, count_cosines, search_until_recall
from dedup_job.stages.catalog import (
    CLASSIFIED_CATALOG,
    accepted_rows,
    classify_catalog,
    rejected_rows,
)
from dedup_job.stages.cells import plan_cells
from dedup_job.stages.decided import Row, decided_products
from dedup_job.stages.embeddings import (
    add_carried_rows,
    all_embeddings,
    comparable_rows,
    find_placeholders,
    reject_photos,
    searchable_contents,
    usable_rows,
    without_placeholders,
)
from dedup_job.stages.group_labels import GroupRules
from dedup_job.stages.groups import Grouping, group_products
from dedup_job.stages.near_placeholders import (
    choose_leaders,
    find_near_placeholders,
    near_leaders,
    sample_contents,
    sample_share,
)
from dedup_job.stages.pairs import match_products
from dedup_job.stages.photo_plan import carried_rows
from dedup_job.stages.products import represent_products
from dedup_job.stages.verification import cosine_as_score
from dedup_job.tables import (
    CATALOG_IMAGES,
    CONTENTS,
    NAMED_MEMBERS,
    NEAR_LEADERS,
    PAIR_PLACES,
    PLACEHOLDERS,
    PRODUCT_PAIRS,
    PRODUCTS,
    SEARCHED_CONTENTS,
    USABLE_ROWS,
)

logger = logging.getLogger("dedup_job")


@dataclass(frozen=True)
class Catalog:
    """The catalog in two: rows that name a photo, and rejects. `n_rows` counts both.

    `base` is what relative image URIs are relative to. On a delta night `carried` holds the
    CATALOG_IMAGES rows of the SKUs that the delta does not mention; `n_rows` counts them too.
    """

    base: str
    n_rows: int
    rows: DataFrame
    rejects: DataFrame
    carried: DataFrame | None = None
    n_carried: int = 0


@dataclass(frozen=True)
class Photos:
    """What the photo stage leaves behind; every frame reads what is stored, none fetches again.

    `embedded` is IMAGE_EMBEDDINGS of this run alone, `embeddings` EMBEDDED_CONTENTS of all.
    """

    counts: PhotoCounts
    photos: DataFrame
    usable: DataFrame
    rejects: DataFrame
    placeholders: DataFrame
    embedded: StoredTable
    embeddings: DataFrame


@dataclass(frozen=True)
class Groups:
    """The groups, and what became of each row of the decisions file (PAIR_DECISIONS without run_id)."""

    grouping: Grouping
    decisions: list[Row]


def run(settings: Settings) -> RunResult:
    """Run the whole job and publish its reports.

    Raises:
        ConfigError, CatalogError: exit code 2; nothing was started.
        GateError: exit code 3; a quality gate held the run back, nothing was published.
        DedupError: exit code 1.
    """
    config = settings.config
    check_acceptance(config)
    if not config.catalog.path:
        raise ConfigError("catalog.path is missing; give --catalog PATH")
    warehouse = open_warehouse(config.warehouse)
    order = parse_canonical_order(config.catalog.canonical_order)
    parts = plan_catalog(config.catalog)
    decisions = read_decisions(config.decisions) if config.decisions else None
    model = open_model(config)
    run_date = choose_run_date(config)
    if config.catalog.mode == "delta":
        newest = newest_published(warehouse)
        check_delta(newest, run_date, model.manifest.model_id, settings.as_dict())
    warehouse.create()
    run_id = name_run()
    with acquire_lease(warehouse, run_id, config.lease.ttl_s) as lease:
        record = RunRecord(warehouse, run_id, run_date, settings, snapshot_catalog(parts))
        with record, blaming_a_lost_lease(lease):
            bury_dead_runs(warehouse, run_id)
            spark = open_session(is_large=is_large(record.inputs))
            memory = recall_runs(spark, warehouse, run_date, is_shadow=config.shadow)
            if config.catalog.mode == "delta":  # another run may have published meanwhile
                check_delta(memory.newest, run_date, model.manifest.model_id, settings.as_dict())
            record.base_run_id = memory.base.run_id if memory.base else None
            inputs = digest_inputs(record, config, model, memory, decisions)
            is_in_vain = partial(would_be_held_again, warehouse, settings=settings.as_dict())
            journal = open_journal(warehouse, run_id, inputs, is_in_vain)
            context = RunContext(
                spark, warehouse, run_date, run_id, record.started_at, lease, journal
            )
            record.context = context
            found = find_duplicates(context, settings, model, memory, order, parts, decisions)
            show = partial(show_run, context, config, catalog_base(config.catalog), found)
            return publish_run(record, context, settings, model, memory, found, show)


def choose_run_date(config: JobConfig) -> date:
    """The date to publish: as set, else today in UTC.

    Raises:
        ConfigError: it lies in the future; every night until then would be a backfill.
    """
    today = datetime.now(UTC).date()
    if config.run_date and config.run_date > today + timedelta(days=1):
        raise ConfigError(
            f"run_date: {config.run_date} lies in the future (today is {today} in UTC); "
            "give --run-date YYYY-MM-DD of a night that has begun"
        )
    return config.run_date or today


def digest_inputs(
    record: RunRecord,
    config: JobConfig,
    model: Model,
    memory: Memory,
    decisions: DecisionFile | None,
) -> str:
    """What decides a run's result: equal digests may share their work."""
    return inputs_digest(
        record.inputs,
        config.fingerprint(),
        config.catalog.path,
        catalog_base(config.catalog),
        model.manifest.model_id,
        model.scores.calibration_id,
        model.verifier_id,
        record.run_date,
        memory.newest.run_id if memory.newest else None,
        record.base_run_id,
        decisions and decisions.digest(),
    )


def find_duplicates(
    context: RunContext,
    settings: Settings,
    model: Model,
    memory: Memory,
    order: tuple[OrderColumn, ...],
    parts: Sequence[Part],
    decisions: DecisionFile | None,
) -> Findings:
    """The stages in order: from the catalog's files to groups, all of it in staging."""
    config = settings.config
    catalog = take_catalog(context, config, parts, memory)
    photos = embed_photos(context, settings, model, catalog, memory)
    photos, photo_rows, stored = select_contents(context, config, photos, catalog.n_rows)
    contents = read_table(context.spark, stored)
    keys = read_table(context.spark, stored, SEARCHED_CONTENTS.column_names)
    floor, outcome = find_candidates(
        context, config, model, contents, keys, photos.embedded, memory
    )
    groups = group(context, config, order, photos, photo_rows, contents, outcome, memory, decisions)
    return Findings(
        n_catalog_rows=catalog.n_rows,
        photo_counts=photos.counts,
        floor_cosine=floor,
        outcome=outcome,
        rows=catalog.rows,
        carried_rows=catalog.carried,
        n_carried_rows=catalog.n_carried,
        has_blocks=bool(config.catalog.block_by),
        photos=photos.photos,
        usable=photos.usable,
        catalog_rejects=catalog.rejects,
        photo_rejects=photos.rejects,
        placeholders=photos.placeholders,
        embedded=photos.embedded,
        searched=keys,
        grouping=groups.grouping,
        decisions=groups.decisions,
    )


def open_model(config: JobConfig) -> Model:
    """Find the model bundle and try it on the driver, before anything is started."""
    directory = locate_bundle(config.model.bundle)
    manifest = load_embedder(directory).manifest
    calibration = read_calibration(directory, manifest.model_id)
    match = config.match
    # An explicit threshold is one of cosines: what it reports is not to depend on anything else.
    if not manifest.has_verifier or not match.verify or match.min_cosine is not None:
        return Model(directory, manifest, calibration, calibration)
    load_verifier(directory)
    scores = read_score_calibration(directory, manifest.model_id)
    return Model(directory, manifest, calibration, scores)


def take_catalog(
    context: RunContext, config: JobConfig, parts: Sequence[Part], memory: Memory
) -> Catalog:
    """Read the catalog and part it into rows that name a photo, and rejects."""
    with context.stage("catalog"):
        raw, base = read_catalog(context.spark, parts), catalog_base(config.catalog)
        judged = classify_catalog(raw, base)
        stored = context.step(
            CLASSIFIED_CATALOG, lambda folder: write_table(judged, CLASSIFIED_CATALOG, folder)
        )
        classified = read_table(context.spark, stored)
        rows, rejects = accepted_rows(classified), rejected_rows(classified)
        images = memory.catalog_images()
        if config.catalog.mode == "snapshot" or images is None:
            return Catalog(base, stored.n_rows, rows, rejects)
        mentioned = classified.where("sku_id IS NOT NULL")
        kept = context.materialise(carried_rows(images, mentioned), CATALOG_IMAGES)
        n_kept = kept.count()
        logger.info("catalog: %d rows of SKUs that the delta does not mention", n_kept)
        return Catalog(base, stored.n_rows + n_kept, rows, rejects, kept, n_kept)


def embed_photos(
    context: RunContext, settings: Settings, model: Model, catalog: Catalog, memory: Memory
) -> Photos:
    """Know every photo, fetching and embedding what is new; find rejects and placeholders."""
    config = settings.config
    with context.stage("embeddings"):
        remembered = memory.judged_photos(settings.as_dict())
        seen = read_photos(context, config, model, catalog.rows, catalog.base, remembered)
        photos = seen.photos
        rows = add_carried_rows(usable_rows(catalog.rows, photos), catalog.carried)
        usable = context.materialise(rows, USABLE_ROWS)
        shared = find_placeholders(usable, config.match.max_skus_per_photo)
        store = EmbeddingStore(context.warehouse, model.manifest.model_id)
        tonight, stored = (
            read_vectors(context.spark, table) for table in (seen.embedded, store.stored())
        )
        return Photos(
            counts=seen.counts,
            photos=photos,
            usable=usable,
            rejects=reject_photos(catalog.rows, photos),
            placeholders=context.materialise(shared, PLACEHOLDERS),
            embedded=seen.embedded,
            embeddings=all_embeddings(tonight, seen.embedded.n_rows, stored),
        )


def select_contents(
    context: RunContext, config: JobConfig, photos: Photos, n_rows: int
) -> tuple[Photos, DataFrame, StoredTable]:
    """Rows that may match, and their distinct contents with embeddings.

    Returns:
        The photos, with all placeholders known; PHOTO_ROWS; CONTENTS.

    Raises:
        DedupError: a content that a row shows has no embedding.
    """
    photo_rows = comparable_rows(photos.usable, photos.placeholders)
    stored = context.keep(searchable_contents(photo_rows, n_rows, photos.embeddings), CONTENTS)
    place = ["block", "content_sha256"]
    keys = read_table(context.spark, stored, place)
    n_lost = photo_rows.select(*place).distinct().join(keys, place, "left_anti").count()
    if n_lost:
        raise DedupError(
            f"the embedding store lacks {n_lost} contents of this catalog; run once with "
            "--catalog-mode snapshot, which embeds them again"
        )
    contents = read_table(context.spark, stored)
    max_near_skus = config.match.max_near_skus
    share = sample_share(stored.n_rows, max_near_skus)
    leaders = choose_leaders(sample_contents(contents, share).toArrow(), share, max_near_skus)
    if not leaders:
        return photos, photo_rows, stored
    near = context.materialise(near_leaders(contents, leaders), NEAR_LEADERS)
    found = context.materialise(
        photos.placeholders.unionByName(find_near_placeholders(near, photos.usable, max_near_skus)),
        PLACEHOLDERS,
    )
    n_near = found.where("near_sha256 IS NOT NULL").count()
    logger.info("embeddings: %d contents are nearly identical placeholders", n_near)
    return (
        replace(photos, placeholders=found),
        comparable_rows(photos.usable, found),
        context.keep(without_placeholders(contents, found), CONTENTS),
    )


def find_candidates(
    context: RunContext,
    config: JobConfig,
    model: Model,
    contents: DataFrame,
    keys: DataFrame,
    embedded: StoredTable,
    memory: Memory,
) -> tuple[float, SearchOutcome]:
    """Search pairs, measure recall, verify what was found, solve the threshold for this catalog.

    Recall is measured at the threshold that the cosines alone would have: the verifier also finds pairs
    below it, of which no share is promised.

    Args:
        context: the run.
        config: its settings.
        model: says how cosines are to be read.
        contents: CONTENTS.
        keys: SEARCHED_CONTENTS of the same.
        embedded: IMAGE_EMBEDDINGS of this run.
        memory: of earlier runs.

    Returns:
        The cosine from which pairs were searched, and what came of it.
    """
    with context.stage("candidates"):
        plan = plan_cells(contents, config.candidates)
        size = CatalogSize(plan.n_contents, plan.n_comparisons, config.match.look_alikes_per_sku)
        if model.verifies:  # what is not worth verifying is not worth finding
            floor = verify_floor(
                model.calibration,
                size,
                config.match.verify_pairs_per_photo,
                model.manifest.verified_from,
            )
        else:
            floor = search_floor(model.calibration, size, config.match.min_cosine)

        def solve(pairs: DataFrame) -> ThresholdChoice:
            choice = choose_threshold(pairs, config, model, size, floor)
            logger.info(
                "candidates: pairs searched from cosine %.3f, threshold %.3f; measuring recall",
                floor,
                choice.min_score,
            )
            return choice

        outcome = search_until_recall(
            contents,
            config.candidates,
            floor,
            solve,
            context.materialise,
            plan,
            memory.carried(model.manifest.model_id, model.verifier_id, config),
            keys,
        )
        if not model.verifies:
            return floor, replace(outcome, pairs=cosine_as_score(outcome.pairs))
        seen = verify_candidates(context, model, config.model.runtime, outcome, floor, embedded)
        observed = count_cosines(seen.pairs, "score")
        density = measure_density(model.calibration, model.scores, size, floor, observed)
        context.measure("candidates", "density", density, "1")
        threshold = solve_threshold(
            model.scores,
            replace(size, density=density),
            observed,
            config.match.target_precision,
            least_threshold(config.match, model.scores),
            "score",
        )
        logger.info(
            "candidates: %d pairs verified, %.2g times as many strangers as expected, threshold %.3f",
            seen.n_verified,
            density,
            threshold.min_score,
        )
        return floor, replace(seen, threshold=threshold)


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
    # Of a search whose pairs are verified only the recall is measured there.
    lowest = floor if model.verifies else max(floor, least_threshold(match, model.calibration))
    return solve_threshold(model.calibration, size, observed, match.target_precision, lowest)


def least_threshold(match: MatchConfig, calibration: Calibration) -> float:
    """From where on a pair is probable enough by itself; who asks for less precision than that wants to see more."""
    if match.target_precision < match.min_probability:
        return 0.0
    return probable_from(calibration, match.min_probability)


def group(
    context: RunContext,
    config: JobConfig,
    order: tuple[OrderColumn, ...],
    photos: Photos,
    photo_rows: DataFrame,
    contents: DataFrame,
    outcome: SearchOutcome,
    memory: Memory,
    decisions: DecisionFile | None,
) -> Groups:
    """From photo pairs to product pairs to groups with a survivor."""
    with context.stage("groups"):
        min_score = outcome.threshold.min_score
        products = context.keep(represent_products(photo_rows, order), PRODUCTS)
        product_rows = read_table(context.spark, products)
        judged, decided = None, None
        if decisions is not None:
            judged = judge_decisions(context, decisions, photos.usable, products, memory)
            decided = decided_products(read_rows(judged))
        matched = match_products(
            product_rows,
            photo_rows,
            outcome.pairs,
            min_score=min_score,
            sku_match=config.match.sku_match,
            decided=None if decided is None else context.spark.createDataFrame(decided),
        )
        pairs = context.keep(matched, PRODUCT_PAIRS)
        if decided is not None:
            verified = None if outcome.n_verified is None else outcome.pairs
            pairs = add_said_pairs(
                context, pairs, decided, product_rows, photo_rows, contents, verified
            )
        rules = GroupRules(
            config.match.chaining,
            order,
            min_score,
            context.run_date,
            n_conflict_columns=len(config.catalog.conflict),
        )
        label = partial(
            label_products,
            context.spark,
            pairs,
            products,
            memory.stored_base_groups(),
            rules,
            decided,
        )
        members, places = context.steps((NAMED_MEMBERS, PAIR_PLACES), label)
        grouping = group_products(
            read_beside(context.spark, pairs, places),
            read_table(context.spark, members),
            members.n_rows,
            product_rows,
            photo_rows,
            contents,
            rules,
        )
        return Groups(grouping, list(outcomes(judged, members)) if judged else [])
