"""The candidate search at 100,000 vectors and more: time, memory, and true recall.

    python -m benchmarks.candidates [--sizes 100000 300000 1000000] [--lsh 100000] [--out FILE.json]

Vectors are resampled from real embeddings, with near-duplicates planted between the threshold and
.03 above it. Each search reads the vectors from Parquet, as the job does. Recall is that of all pairs
at or above the threshold, against brute force over all vectors for 2,000 queries, done here and not
by the job. `--lsh N` runs Spark MLlib's BucketedRandomProjectionLSH beside it.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.vectors import Planted, embed_folder, resample
from benchmarks.watch import MemoryWatch
from dedup_job.config import CandidatesConfig
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.neighbours import at_least, pair_cosines
from dedup_job.stages.candidates import find_photo_pairs, first_effort
from dedup_job.stages.cells import plan_cells
from dedup_job.tables import PHOTO_PAIRS

N_QUERIES = 2_000
_BLOCK = 50_000


@dataclass(frozen=True)
class Measured:
    search: str
    n_vectors: int
    seconds: float
    n_pairs: int
    true_pairs: int
    recall: float
    highest_mib: float


def write_contents(planted: Planted, folder: Path) -> None:
    """The vectors as the job's CONTENTS, in files of 100,000 rows; `floats` is for MLlib."""
    folder.mkdir(parents=True)
    for start in range(0, len(planted.vectors), 100_000):
        rows = planted.vectors[start : start + 100_000]
        offsets = pa.array(np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32))
        shas = [f"{i:064x}" for i in range(start, start + len(rows))]
        table = pa.table(
            {
                "block": [""] * len(rows),
                "content_sha256": shas,
                "embedding": [row.tobytes() for row in rows],
                "floats": pa.ListArray.from_arrays(offsets, pa.array(rows.ravel())),
            }
        )
        pq.write_table(table, folder / f"{start:09d}.parquet")


def search(spark, folder: Path, config: CandidatesConfig, floor: float, out: Path) -> None:
    """The job's search at its first effort, pairs written to `out`."""
    contents = spark.read.parquet(str(folder))
    plan = plan_cells(contents, config)
    pairs = find_photo_pairs(contents, plan, config, first_effort(config), floor)
    pairs.write.parquet(str(out))


def search_by_lsh(spark, folder: Path, floor: float, out: Path) -> None:
    """MLlib's join, its bucket length chosen for the distance that the floor means."""
    from pyspark.ml.feature import BucketedRandomProjectionLSH
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F

    rows = spark.read.parquet(str(folder)).select(
        F.col("content_sha256").alias("id"), array_to_vector("floats").alias("features")
    )
    distance = float(np.sqrt(2 * (1 - floor)))
    lsh = BucketedRandomProjectionLSH(
        inputCol="features", outputCol="hashes", bucketLength=2 * distance, numHashTables=8, seed=1
    )
    model = lsh.fit(rows)
    joined = model.approxSimilarityJoin(rows, rows, distance, "distance")
    pairs = joined.where("datasetA.id < datasetB.id").select(
        F.lit("").alias("block"),
        F.col("datasetA.id").alias("sha_a"),
        F.col("datasetB.id").alias("sha_b"),
        (1 - F.col("distance") ** 2 / 2).cast("float").alias("cosine"),
        F.lit(None).cast("float").alias("score"),
    )
    pairs.select(*PHOTO_PAIRS.column_names).write.parquet(str(out))


def true_pairs(vectors: np.ndarray, threshold: float, seed: int = 1) -> set[tuple[int, int]]:
    """Pairs at or above the threshold that sampled queries form, by brute force over all vectors."""
    queries = np.random.default_rng(seed).choice(len(vectors), N_QUERIES, replace=False)
    found = set()
    for start in range(0, len(vectors), _BLOCK):
        near = vectors[queries] @ vectors[start : start + _BLOCK].T >= np.float32(threshold - 1e-5)
        q, row = np.nonzero(near)
        q, row = queries[q], row + start
        kept = (q != row) & at_least(pair_cosines(vectors, q, row), threshold)
        found.update(zip(np.minimum(q, row)[kept], np.maximum(q, row)[kept], strict=True))
    return {(int(a), int(b)) for a, b in found}


def measure(name, spark, folder, vectors, threshold, run) -> Measured:
    with tempfile.TemporaryDirectory(dir=folder.parent) as work, MemoryWatch() as watch:
        out = Path(work) / "pairs"
        started = time.monotonic()
        run(out)
        seconds = time.monotonic() - started
        table = pq.read_table(out, columns=["sha_a", "sha_b"])
    ends = [[int(sha, 16) for sha in table[key].to_pylist()] for key in ("sha_a", "sha_b")]
    found = set(zip(*ends, strict=True))
    truth = true_pairs(vectors, threshold)
    measured = Measured(
        name,
        len(vectors),
        seconds,
        len(found),
        len(truth),
        len(truth & found) / len(truth),
        watch.highest_mib,
    )
    print(
        f"{name:28} {len(vectors):9,d} vectors {seconds:8.1f} s  {len(found):9,d} pairs  recall "
        f"{measured.recall:.4f} of {len(truth)} true pairs  highest process {watch.highest_mib:.0f} MiB",
        flush=True,
    )
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of real photos")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--lsh", type=int, nargs="*", default=[], help="sizes to run MLlib at")
    parser.add_argument("--threshold", type=float, default=0.98)
    parser.add_argument("--floor", type=float, default=0.97, help="pairs are searched from here")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dedup-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    os.environ.setdefault("DEDUP_LOCAL_CORES", "2")
    from dedup_job.io.session import open_session

    settings = dict(pair.split("=", 1) for pair in arguments.set)
    config = CandidatesConfig.model_validate(settings)
    arguments.work.mkdir(parents=True, exist_ok=True)
    base = embed_folder(arguments.photos, locate_bundle(""), arguments.work / "base.npy")
    spark = open_session("benchmark")
    spark.range(1).count()
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        for n in sorted({*arguments.sizes, *arguments.lsh}):
            planted = resample(base, n, arguments.threshold)
            folder = Path(name) / f"{n}"
            write_contents(planted, folder)
            vectors, threshold = planted.vectors, arguments.threshold
            if n in arguments.sizes:
                label = " ".join(arguments.set) or "defaults"
                results.append(
                    measure(
                        label, spark, folder, vectors, threshold,
                        lambda out, folder=folder: search(spark, folder, config, arguments.floor, out),
                    )
                )  # fmt: skip
            if n in arguments.lsh:
                results.append(
                    measure(
                        "MLlib LSH", spark, folder, vectors, threshold,
                        lambda out, folder=folder: search_by_lsh(spark, folder, arguments.floor, out),
                    )
                )  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(one) for one in results], indent=2))
    spark.stop()


if __name__ == "__main__":
    main()
