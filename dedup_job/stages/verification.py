"""Candidate pairs seen again, both photos at once (`kernels.verifier`).

What is verified stays verified: a score is carried from night to night with its pair, so that a night costs
what is new.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.errors import DedupError
from dedup_job.kernels.pictures import unpack_picture
from dedup_job.kernels.verifier import Described, describe
from dedup_job.kernels.verifier_model import Verifier
from dedup_job.stages.sent_keys import sent_if_few
from dedup_job.tables import PAIRS_TO_VERIFY, PHOTO_PAIRS, VERIFIED_PAIRS

# A photo's pairs come one after the other; of the photos beside it many come again soon.
_PHOTOS_AT_HAND = 512
_LEAST_PAIRS_PER_TASK, _MOST_PAIRS_PER_TASK = 250, 10_000
_TASKS_PER_CORE = 4


def waiting_pairs(pairs: DataFrame, floor_cosine: float) -> DataFrame:
    """sha_a, sha_b, cosine of PHOTO_PAIRS at or above a cosine that have no score yet, each once."""
    waiting = pairs.where(F.col("score").isNull() & (F.col("cosine") >= floor_cosine))
    return waiting.select("sha_a", "sha_b", "cosine").dropDuplicates(["sha_a", "sha_b"])


def one_chunk(waiting: DataFrame, number: int, n_chunks: int) -> DataFrame:
    """The pairs of one chunk of several; all pairs of a photo a lie in one."""
    if n_chunks == 1:
        return waiting
    return waiting.where(F.pmod(F.xxhash64("sha_a"), F.lit(n_chunks)) == number)


def show_pairs(waiting: DataFrame, pictures: DataFrame, n_pairs: int, n_tasks: int) -> DataFrame:
    """PAIRS_TO_VERIFY, each once, in `n_tasks` partitions, the pairs of a photo b one after the other.

    Args:
        waiting: of `waiting_pairs`, or a chunk of it; a pair that lacks a picture is left out.
        pictures: `content_sha256`, `picture` of any contents.
        n_pairs: of `waiting`, about.
        n_tasks: seconds of computing are in a megabyte of pairs, so their number is not left to Spark.
    """
    shown = _pictures_of(waiting, pictures, n_pairs, n_tasks)
    shown_a, shown_b = (
        shown.select(
            F.col("content_sha256").alias(f"sha_{end}"), F.col("picture").alias(f"picture_{end}")
        )
        for end in "ab"
    )
    half = waiting.join(shown_a, "sha_a").repartition(n_tasks, "sha_b")
    pairs = half.join(shown_b, "sha_b")
    return pairs.sortWithinPartitions("sha_b", "sha_a").select(*PAIRS_TO_VERIFY.column_names)


def _pictures_of(waiting: DataFrame, pictures: DataFrame, n_pairs: int, n_tasks: int) -> DataFrame:
    """The pictures that pairs need, each once: of a store of millions a night needs few.

    Partitioned as pairs are: unless these are one chunk of several, of which Spark lets the ends a alone
    have their own reading, both ends share one reading and one shuffle.
    """
    ends = waiting.select(F.explode(F.array("sha_a", "sha_b")).alias("content_sha256")).distinct()
    needed = pictures.where("picture IS NOT NULL").join(
        sent_if_few(ends, 2 * n_pairs), "content_sha256", "left_semi"
    )
    # Where two runs stored one content, it lies there twice.
    return needed.repartition(n_tasks, "content_sha256").dropDuplicates(["content_sha256"])


def count_verify_tasks(n_pairs: int, n_cores: int) -> int:
    """Tasks for so many pairs: each long enough to load the network, all cores busy to the end."""
    most = max(_TASKS_PER_CORE * n_cores, -(-n_pairs // _MOST_PAIRS_PER_TASK))
    return max(1, min(most, n_pairs // _LEAST_PAIRS_PER_TASK))


def add_scores(pairs: DataFrame, verified: DataFrame) -> DataFrame:
    """PHOTO_PAIRS with the scores of VERIFIED_PAIRS."""
    new = verified.withColumnRenamed("score", "new_score")
    return (
        pairs.join(new, ["sha_a", "sha_b"], "left")
        .withColumn("score", F.coalesce("score", "new_score"))
        .select(*PHOTO_PAIRS.column_names)
    )


def cosine_as_score(pairs: DataFrame) -> DataFrame:
    """PHOTO_PAIRS whose score is their cosine: for runs that verify nothing."""
    return pairs.withColumn("score", F.col("cosine"))


@dataclass(frozen=True)
class VerifyPairs:
    """Turns PAIRS_TO_VERIFY batches into VERIFIED_PAIRS batches. Pickled to every task.

    A pair whose picture cannot be read is left out: one damaged picture is not to fail every night.

    Args:
        open_verifier: called once per task; must itself cache per process.
    """

    open_verifier: Callable[[], Verifier]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run one task."""
        verifier = self.open_verifier()

        @lru_cache(maxsize=_PHOTOS_AT_HAND)
        def described(picture: bytes) -> Described | None:
            try:
                return describe(unpack_picture(picture))
            except DedupError:
                return None

        def answer(picture_a: bytes, picture_b: bytes) -> float | None:
            a, b = described(picture_a), described(picture_b)
            return None if a is None or b is None else verifier.answer(a, b)

        for batch in batches:
            ends = (batch.column(f"picture_{end}").to_pylist() for end in "ab")
            answers = pa.array(map(answer, *ends), pa.float64())
            seen = batch.filter(answers.is_valid())
            score = verifier.score(answers.drop_null().to_numpy(), seen.column("cosine").to_numpy())
            yield pa.RecordBatch.from_arrays(
                [seen.column("sha_a"), seen.column("sha_b"), pa.array(score, pa.float32())],
                schema=VERIFIED_PAIRS.arrow,
            )
