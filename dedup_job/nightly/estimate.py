"""What tonight's run would take, computed from counts and a sample; each figure says how.

The constants were measured on this project's benchmarks (docs/operations.md); they are for planning,
not for billing.
"""

from dataclasses import dataclass

from dedup_job.config import CandidatesConfig
from dedup_job.nightly.look_ahead import CatalogFigures, SampleFigures

MB = 1 << 20
PHOTO_WORKER_MB = 600  # a worker of the photo stage and its decoder; docs/operations.md
# The candidate search: 200 MB + R (16 d + 360) + M (4 d + 13 T) bytes; docs/operations.md.
_SEARCH_BASE_MB = 200
# Beside the vector: hash, keys and Parquet's own, of 442 contents in one file.
_EMBEDDING_ROW_BYTES = 85
# Beside the embedding, where the model has a verifier: mean of 300 photos at 128 pixels (benchmarks.runtimes).
_PICTURE_BYTES = 6_000
_SECONDS_PER_PAIR = 0.008
# Of a night of 20,000 rows: 286 bytes a row of state, 24 of reports. Long URIs take more.
_PUBLISHED_ROW_BYTES = 310
# Other tables of staging, of a night of 520 rows; it holds each embedding in two tables besides.
_STAGING_ROW_BYTES = 800


@dataclass(frozen=True)
class Estimate:
    """One figure. `how` says in words where it comes from."""

    what: str
    value: float
    unit: str
    how: str

    def line(self) -> str:
        """For a person."""
        return f"{self.what}: {show(self.value, self.unit)} ({self.how})"


@dataclass(frozen=True)
class Estimates:
    """All of them, for checks to compare with what is there.

    Attributes:
        photo_stage_s: wall time of the photo stage; None when no photo is due.
        verification_s: wall time of verifying the pairs to expect; None where none are, or no photo is due.
        fetched_bytes: bytes of photos to fetch; None when no photo is due.
        core_memory_mb: memory outside the JVM that every core needs.
        store_bytes: what the embedding store grows by.
        report_bytes: reports and state.
        staging_bytes: what lies in staging until the run is published.
    """

    photo_stage_s: Estimate | None
    verification_s: Estimate | None
    fetched_bytes: Estimate | None
    core_memory_mb: Estimate
    store_bytes: Estimate
    report_bytes: Estimate
    staging_bytes: Estimate

    def all(self) -> list[Estimate]:
        """In the order of a run."""
        found = (
            self.photo_stage_s,
            self.verification_s,
            self.fetched_bytes,
            self.core_memory_mb,
            self.store_bytes,
            self.report_bytes,
            self.staging_bytes,
        )
        return [estimate for estimate in found if estimate is not None]

    @property
    def warehouse_bytes(self) -> float:
        """Free space the warehouse needs while the run works."""
        return self.store_bytes.value + self.report_bytes.value + self.staging_bytes.value


def estimate_run(
    catalog: CatalogFigures,
    sample: SampleFigures | None,
    n_cores: int,
    dim: int,
    candidates: CandidatesConfig,
    *,
    has_verifier: bool = False,
    verified_per_photo: float | None = None,
) -> Estimates:
    """Estimate a run.

    Args:
        catalog: what is in the catalog.
        sample: of its photos; None when none is due.
        n_cores: tasks that run at once.
        dim: length of the model's vectors.
        candidates: settings of the search.
        has_verifier: the model has one: pictures are kept, whether this run verifies or not.
        verified_per_photo: pairs that are verified, a photo; None: the run verifies nothing.
    """
    n_due = catalog.n_new + catalog.n_asked
    embedded_share = sample.n_embedded / sample.n_photos if sample else 0.0
    n_embedded = round(n_due * embedded_share)
    vector = 4 * dim + _EMBEDDING_ROW_BYTES
    kept = vector + _PICTURE_BYTES if has_verifier else vector
    store = n_embedded * kept
    return Estimates(
        photo_stage_s=_photo_stage(n_due, sample, n_cores) if sample else None,
        verification_s=_verification(n_embedded, verified_per_photo, n_cores),
        fetched_bytes=_fetched(n_due, sample) if sample else None,
        core_memory_mb=_core_memory(catalog.n_largest_block, dim, candidates),
        store_bytes=Estimate(
            "embedding store grows by",
            store,
            "bytes",
            f"{n_embedded} new embeddings, {embedded_share:.0%} of photos due, at {kept} bytes",
        ),
        report_bytes=Estimate(
            "reports and state",
            catalog.n_rows * _PUBLISHED_ROW_BYTES,
            "bytes",
            f"{catalog.n_rows} rows at about {_PUBLISHED_ROW_BYTES} bytes, "
            "of which 30 stay for every night",
        ),
        staging_bytes=Estimate(
            "staging, until published",
            catalog.n_rows * _STAGING_ROW_BYTES + store + catalog.n_photos * vector,
            "bytes",
            f"{catalog.n_rows} rows at about {_STAGING_ROW_BYTES} bytes, new embeddings once and "
            "all embeddings of the catalog once",
        ),
    )


def search_memory_mb(n_contents: int, dim: int, candidates: CandidatesConfig) -> int:
    """Memory one core takes to search the largest cell at first effort (docs/operations.md)."""
    n_held, n_found = n_contents, n_contents
    if n_contents > candidates.max_cell_rows:
        n_held = candidates.max_cell_rows
        n_found = n_held // candidates.fan_out
    if candidates.search == "exact":
        n_found = 0
    held = n_held * (16 * dim + 360)
    found = n_found * (4 * dim + 13 * candidates.n_trees)
    return _SEARCH_BASE_MB + -(-(held + found) // MB)


def show(value: float, unit: str) -> str:
    """A figure as a person reads it."""
    if unit == "s":
        hours, minutes = divmod(round(value / 60), 60)
        return f"{value:.0f} s" if value < 600 else f"{hours} h {minutes:02d} min"
    if unit == "bytes":
        for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if value >= size:
                return f"{value / size:.1f} {name}"
    return f"{value:.0f} {unit}"


def _photo_stage(n_due: int, sample: SampleFigures, n_cores: int) -> Estimate:
    each = sample.seconds / sample.n_photos
    return Estimate(
        "photo stage",
        n_due * each / n_cores,
        "s",
        f"{n_due} photos at {each * 1000:.1f} ms a photo and core, as {sample.n_photos} photos "
        f"took, on {n_cores} cores",
    )


def _verification(n_new: int, per_photo: float | None, n_cores: int) -> Estimate | None:
    if per_photo is None or not n_new:
        return None
    n_pairs = round(n_new * per_photo)
    return Estimate(
        "verification",
        n_pairs * _SECONDS_PER_PAIR / n_cores,
        "s",
        f"{n_pairs} pairs of {n_new} new photos (match.verify_pairs_per_photo is {per_photo:g}) at "
        f"{_SECONDS_PER_PAIR * 1000:g} ms a pair and core, on {n_cores} cores",
    )


def _fetched(n_due: int, sample: SampleFigures) -> Estimate:
    # Photos that could not be fetched in the sample will mostly not be fetched in the run either.
    mean = sample.n_bytes / sample.n_photos
    return Estimate(
        "photos to fetch",
        n_due * mean,
        "bytes",
        f"{n_due} photos at {mean:.0f} bytes, the mean of the sample, which counts those that "
        "cannot be fetched as none",
    )


def _core_memory(n_contents: int, dim: int, candidates: CandidatesConfig) -> Estimate:
    search = search_memory_mb(n_contents, dim, candidates)
    return Estimate(
        "memory outside the JVM, per core",
        max(PHOTO_WORKER_MB, search),
        "MB",
        f"photo stage {PHOTO_WORKER_MB} MB; candidate search {search} MB for {n_contents} photos in "
        f"the largest block at {dim} dimensions and {candidates.n_trees} trees",
    )
