"""What a run found, as numbers: counted, checked against the law of rows, and told to people."""

from dataclasses import asdict, dataclass
from typing import Any

from dedup_job.errors import DedupError
from dedup_job.stages.review_sample import ReviewedPrecision


@dataclass(frozen=True)
class RowCounts:
    """Where every catalog row ended."""

    catalog: int
    embedded: int
    reused: int
    shared_content: int
    placeholder: int
    rejected: int

    def check(self) -> None:
        """Every row ends in exactly one place.

        Raises:
            DedupError: rows were lost or doubled; nothing must be published.
        """
        placed = (
            self.embedded + self.reused + self.shared_content + self.placeholder + self.rejected
        )
        if placed != self.catalog:
            raise DedupError(
                f"row counts do not reconcile: {self.catalog} catalog rows, {placed} accounted for "
                f"({asdict(self)}); nothing was published, please report this as a bug"
            )


@dataclass(frozen=True)
class PhotoCounts:
    """What the photo stage did, in distinct photos; `embedded` in contents."""

    fetched: int
    not_modified: int
    remembered: int
    embedded: int


@dataclass(frozen=True)
class RunResult:
    """A run in figures, published or shadow. Times in seconds, money in dollars."""

    run_id: str
    run_date: str
    status: str
    base_run_id: str | None
    resumed_from: str | None
    resumed_steps: tuple[str, ...]
    warehouse: str
    rows: RowCounts
    photos: PhotoCounts
    changes: dict[str, int]
    rejects_by_reason: dict[str, int]
    min_cosine: float
    min_score: float
    n_verified: int | None
    expected_precision: float
    expected_false_pairs: float
    threshold_note: str
    threshold_is_least: bool
    candidate_recall: float | None
    candidate_recall_low: float
    n_pairs: int
    n_groups: int
    n_grouped_skus: int
    n_look_alike_skus: int
    decisions: dict[str, int]
    reviewed: ReviewedPrecision
    wall_time_s: float
    photos_per_s: float
    dollars_per_million_photos: float | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def summary(self) -> str:
        """The few lines a person reads at the end of a run."""
        rows = self.rows
        recall = "unknown (no true pair sampled)"
        if self.candidate_recall is not None:
            recall = f"{self.candidate_recall:.4f} (at least {self.candidate_recall_low:.4f})"
        what = "published in" if self.status == "published" else "as a shadow, not published, in"
        photos = self.photos
        lines = [
            f"run {self.run_id} for {self.run_date} {what} {self.warehouse}",
            f"  catalog rows   {rows.catalog} = {rows.embedded} embedded + {rows.reused} reused + "
            f"{rows.shared_content} shared content + {rows.placeholder} placeholder + "
            f"{rows.rejected} rejected",
            f"  photos         {photos.fetched} fetched, {photos.not_modified} not modified, "
            f"{photos.remembered} remembered; {photos.embedded} contents embedded",
            f"  threshold      {self._threshold()}; expected precision "
            f"{self.expected_precision:.3f} ({self.expected_false_pairs:.2g} false pairs)",
            f"  recall         {recall}",
            f"  result         {self.n_groups} groups of {self.n_grouped_skus} SKUs from "
            f"{self.n_pairs} pairs",
            f"  changes        {self._changes()}",
            f"  time           {self.wall_time_s:.0f} s, {self.photos_per_s:.0f} photos/s"
            + self._cost(),
        ]
        lines += [f"  rejected       {n} {reason}" for reason, n in self.rejects_by_reason.items()]
        if self.n_look_alike_skus:
            lines += [
                f"  look-alikes    {self.n_look_alike_skus} SKU ids look like another one "
                "(table look_alike_ids)"
            ]
        if self.decisions:
            counted = ", ".join(f"{n} {outcome}" for outcome, n in self.decisions.items())
            lines += [f"  decisions      {counted} (table pair_decisions)"]
        if self.reviewed.share is not None:
            lines += [
                f"  reviewed       {self.reviewed.n_right} of {self.reviewed.n_groups} groups drawn at "
                f"random are right: {self.reviewed.share:.3f} ({self.reviewed.low:.3f} to "
                f"{self.reviewed.high:.3f})"
            ]
        lines += [f"  note           {self.threshold_note}"] if self.threshold_note else []
        if self.resumed_from:
            steps = ", ".join(self.resumed_steps) or "nothing"
            lines += [f"  continued      from run {self.resumed_from}: {steps}"]
        run = "" if self.status == "published" else f" --run-id {self.run_id}"
        lines += [f"next: dedup-job show --warehouse {self.warehouse}{run}"]
        return "\n".join(lines)

    def _threshold(self) -> str:
        least = ", the lowest under match.min_probability" if self.threshold_is_least else ""
        if self.n_verified is None:
            return f"cosine {self.min_score:.3f}{least}"
        return f"score {self.min_score:.3f} ({self.n_verified} pairs verified){least}"

    def _changes(self) -> str:
        since = f"since run {self.base_run_id}" if self.base_run_id else "since ever (first run)"
        counted = ", ".join(f"{n} {change}" for change, n in self.changes.items())
        return f"{counted or 'none'} {since}"

    def _cost(self) -> str:
        if self.dollars_per_million_photos is None:
            return ""
        return f", ${self.dollars_per_million_photos:.2f} per million photos"
