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

from dedup_job.kernels.pictures import unpack_picture
from dedup_job.kernels.verifier import Described, describe
from dedup_job.kernels.verifier_model import Verifier
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


def show_pairs(waiting: DataFrame, pictures: DataFrame, n_tasks: int) -> DataFrame:
    """PAIRS_TO_VERIFY in `n_tasks` partitions, the pairs of a photo b one after the other.

    Args:
        waiting: of `waiting_pairs`.
        pictures: `content_sha256`, `picture`.
        n_tasks: seconds of computing are in a megabyte of pairs, so their number is not left to Spark.
    """
    shown_a, shown_b = (
        pictures.where("picture IS NOT NULL").select(
            F.col("content_sha256").alias(f"sha_{end}"), F.col("picture").alias(f"picture_{end}")
        )
        for end in "ab"
    )
    half = waiting.join(shown_a, "sha_a").repartition(n_tasks, "sha_b")
    pairs = half.join(shown_b.repartition(n_tasks, "sha_b"), "sha_b")
    return pairs.sortWithinPartitions("sha_b", "sha_a").select(*PAIRS_TO_VERIFY.column_names)


def count_verify_tasks(n_pairs: int, n_cores: int) -> int:
    """Tasks for so many pairs: each long enough to load the network, all cores busy to the end."""
    most = max(_TASKS_PER_CORE * n_cores, -(-n_pairs // _MOST_PAIRS_PER_TASK))
    return max(1, min(most, n_pairs // _LEAST_PAIRS_PER_TASK))


def add_scores(pairs: DataFrame, verified: DataFrame) -> DataFrame:
    """PHOTO_PAIRS with the scores of VERIFIED_PAIRS."""
    # Where two runs stored one content, its pairs were verified twice.
    new = verified.dropDuplicates(["sha_a", "sha_b"]).withColumnRenamed("score", "new_score")
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

    Args:
        open_verifier: called once per task; must itself cache per process.
    """

    open_verifier: Callable[[], Verifier]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run one task."""
        verifier = self.open_verifier()

        @lru_cache(maxsize=_PHOTOS_AT_HAND)
        def described(picture: bytes) -> Described:
            return describe(unpack_picture(picture))

        for batch in batches:
            ends = zip(*(batch.column(f"picture_{end}").to_pylist() for end in "ab"), strict=True)
            answers = [verifier.answer(described(a), described(b)) for a, b in ends]
            score = verifier.score(answers, batch.column("cosine").to_numpy())
            yield pa.RecordBatch.from_arrays(
                [batch.column("sha_a"), batch.column("sha_b"), pa.array(score, pa.float32())],
                schema=VERIFIED_PAIRS.arrow,
            )
