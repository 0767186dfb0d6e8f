"""The verification of candidate pairs, in steps that a killed run need not take again."""

import logging
from dataclasses import replace
from functools import partial, reduce

from pyspark.sql import DataFrame

from dedup_job.io.bundles import load_shipped_verifier, ship_bundle
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.progress import watch_files
from dedup_job.io.session import count_cores
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_table, write_table
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.photo_stage import Model, count_task_threads
from dedup_job.stages.candidates import SearchOutcome
from dedup_job.stages.verification import (
    VerifyPairs,
    add_scores,
    count_verify_tasks,
    one_chunk,
    show_pairs,
    waiting_pairs,
)
from dedup_job.tables import PHOTO_PAIRS, VERIFIED_PAIRS

logger = logging.getLogger("dedup_job")
# About eight minutes of a core: what a killed run does again at most.
_PAIRS_PER_CORE_AND_CHUNK = 40_000
_PICTURE = ["content_sha256", "picture"]


def verify_candidates(
    context: RunContext, model: Model, runtime: str, outcome: SearchOutcome, floor_cosine: float,
    embedded: StoredTable,
) -> SearchOutcome:  # fmt: skip
    """Give every candidate pair a score; those that were verified on an earlier night keep theirs.

    Args:
        context: the run.
        model: with a verifier.
        runtime: what executors run the embedder on; decides which archive they have.
        outcome: of the search.
        floor_cosine: pairs below it stay without a score.
        embedded: IMAGE_EMBEDDINGS of this run.

    Returns:
        The outcome with scores in `pairs` and `kept_pairs`; its threshold is still the cosine's. Pairs
        without a picture that can be read stay without a score and wait again the next night.
    """
    kept = outcome.kept_pairs
    waiting = waiting_pairs(kept, floor_cosine)
    n_waiting, n_verified = waiting.count(), 0
    if n_waiting:
        bundle = ship_bundle(context.spark, model.directory, model.manifest, runtime)
        worker = VerifyPairs(
            partial(load_shipped_verifier, bundle, count_task_threads(context.spark))
        )
        store = EmbeddingStore(context.warehouse, model.manifest.model_id)
        pictures = _pictures(context, embedded, store.stored())
        parts = _verify_in_chunks(context, waiting, n_waiting, pictures, worker)
        verified = reduce(
            DataFrame.unionByName, (read_table(context.spark, part) for part in parts)
        )
        kept = context.materialise(add_scores(kept, verified), PHOTO_PAIRS)
        n_verified = sum(part.n_rows for part in parts)
        if n_verified < n_waiting:
            logger.warning(
                "candidates: %d pairs have no picture that can be read and were not verified; to have "
                "them verified, delete %s: the next run embeds its photos again",
                n_waiting - n_verified,
                store.folder.uri,
            )
    pairs = kept.where(f"cosine >= {floor_cosine!r}")
    return replace(outcome, pairs=pairs, kept_pairs=kept, n_verified=n_verified)


def _pictures(context: RunContext, embedded: StoredTable, stored: StoredTable) -> DataFrame:
    tonight, earlier = (read_table(context.spark, one, _PICTURE) for one in (embedded, stored))
    return tonight.unionByName(earlier)


def _verify_in_chunks(
    context: RunContext,
    waiting: DataFrame,
    n_waiting: int,
    pictures: DataFrame,
    worker: VerifyPairs,
) -> list[StoredTable]:
    n_cores = count_cores(context.spark)
    n_chunks = -(-n_waiting // (n_cores * _PAIRS_PER_CORE_AND_CHUNK))
    n_pairs = n_waiting // n_chunks
    n_tasks = count_verify_tasks(n_pairs, n_cores)
    parts = []
    for number in range(n_chunks):
        pairs = show_pairs(one_chunk(waiting, number, n_chunks), pictures, n_pairs, n_tasks)
        what = "pairs" if n_chunks == 1 else f"pairs, chunk {number + 1} of {n_chunks}"
        step = f"{VERIFIED_PAIRS.name}-{number}-of-{n_chunks}"
        compute = partial(_write_verified, pairs, worker, n_tasks, what)
        parts.append(context.step(VERIFIED_PAIRS, compute, step))
    return parts


def _write_verified(
    pairs: DataFrame, worker: VerifyPairs, n_tasks: int, what: str, folder: Folder
) -> StoredTable:
    with watch_files(folder, n_tasks, what):
        return write_table(pairs, VERIFIED_PAIRS, folder, worker)
