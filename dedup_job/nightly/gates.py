"""The gates of a run: what it found against its limits and against the last run.

A broken gate holds the run back: nothing is published, and the message says which command lets it
through. Figures come in, verdicts go out; nothing here reads a table.
"""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError, GateError
from dedup_job.io.manifests import threshold_of, verifier_of

logger = logging.getLogger("dedup_job")
# In a catalog this small a few listings move every share.
_ENOUGH_ROWS = 200

GATES = {
    "no_photo": "at least one catalog row has a usable photo",
    "rejects": "the share of rejected rows is at most gates.max_reject_rate",
    "row_drop": "rows are not fewer than in the last run by more than gates.max_row_drop",
    "recall": "the candidate search reached candidates.target_recall",
    "largest_group": "no group has more SKUs than gates.max_group_size",
    "drift": "the share of grouped rows and the threshold are near those of the last run",
}


@dataclass(frozen=True)
class LastRun:
    """What the audit compares with: the last published run before this date."""

    run_id: str
    model_id: str
    n_rows: int
    n_grouped: int
    min_score: float
    is_explicit: bool
    verifier_id: str | None = None


@dataclass(frozen=True)
class AuditFigures:
    """What the gates judge.

    Attributes:
        n_rows: catalog rows.
        n_rejected: of them, rejected.
        top_reject: the most frequent reason, how often, an example; for people.
        n_usable: rows with a usable photo, placeholders included.
        largest_group: its number of SKUs, 0 without groups; `largest_group_name` for people.
        n_grouped: rows of `duplicate_groups`.
        recall: measured candidate recall; None when unknown.
        n_trees: trees of the last search attempt.
        min_score: the threshold.
        model_id: tonight's model.
        last: the last run, or None.
        n_carried: of `n_rows`, those that a delta does not mention; they were judged before, and
            would hide a delta of which no photo could be read.
        verifier_id: what scored the pairs; None: scores are cosines.
    """

    n_rows: int
    n_rejected: int
    top_reject: str
    n_usable: int
    largest_group: int
    largest_group_name: str
    n_grouped: int
    recall: float | None
    n_trees: int
    min_score: float
    model_id: str
    last: LastRun | None
    n_carried: int = 0
    verifier_id: str | None = None

    @property
    def n_named(self) -> int:
        """Rows of tonight's catalog itself."""
        return self.n_rows - self.n_carried


@dataclass(frozen=True)
class GateResult:
    """One verdict. `skipped` says why a gate was not judged; then it counts as passed."""

    name: str
    passed: bool
    measured: float | None
    limit: float | None
    message: str
    skipped: str = ""


def check_acceptance(config: JobConfig) -> None:
    """Check `--accept` and `--reason` before anything is started.

    Raises:
        ConfigError: an unknown gate, or no reason.
    """
    for name in config.accept:
        if name not in GATES:
            close = difflib.get_close_matches(name, GATES, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"--accept: no gate {name!r}; there are {', '.join(GATES)}{hint}")
    if config.accept and not config.reason.strip():
        raise ConfigError("--accept needs --reason TEXT, which is kept in the run's manifest")


def audit(figures: AuditFigures, config: JobConfig) -> list[GateResult]:
    """Judge every gate."""
    return [
        _judge_photos(figures),
        _judge_rejects(figures, config),
        _judge_rows(figures, config),
        _judge_recall(figures, config),
        _judge_groups(figures, config),
        _judge_drift(figures, config),
    ]


def hold_or_accept(
    results: Sequence[GateResult], config: JobConfig, command: str
) -> dict[str, str]:
    """Let a run pass, or hold it back.

    Args:
        results: from `audit`.
        config: `accept` and `reason`.
        command: as the user gave it; the message repeats it with what would let the run through.

    Returns:
        Accepted gate -> reason.

    Raises:
        GateError: a gate is broken and not accepted.
    """
    broken = [result for result in results if not result.passed]
    names = {result.name for result in broken}
    for name in config.accept:
        if name not in names:
            logger.info("gate %s is not broken: --accept %s was not needed", name, name)
    held = [result for result in broken if result.name not in config.accept]
    if held:
        # A flag replaces what the environment or a file accepts: those gates are named again.
        names_to_give = dict.fromkeys([*config.accept, *(result.name for result in held)])
        flags = " ".join(
            f"--accept {name}" for name in names_to_give if f"--accept {name}" not in command
        )
        reason = "" if config.reason else " --reason 'TEXT'"
        raise GateError(
            f"{'; '.join(result.message for result in held)}. Nothing was published, the last "
            f"reports stand. To publish nevertheless (finished work is not repeated): {command} "
            f"{flags}{reason}"
        )
    for result in broken:
        logger.warning("accepted (%s): %s", config.reason, result.message)
    return {result.name: config.reason for result in broken}


def _judge_photos(figures: AuditFigures) -> GateResult:
    n_usable = figures.n_usable - figures.n_carried
    passed = n_usable > 0 or figures.n_named == 0
    message = (
        f"no_photo: none of the {figures.n_named} catalog rows has a usable photo "
        f"({figures.top_reject}); check --image-root, fetch.allow_hosts and the store's credentials"
    )
    return GateResult("no_photo", passed, n_usable, 1, message)


def _judge_rejects(figures: AuditFigures, config: JobConfig) -> GateResult:
    rate, limit = figures.n_rejected / max(figures.n_named, 1), config.gates.max_reject_rate
    message = (
        f"rejects: {figures.n_rejected} of {figures.n_named} catalog rows were rejected "
        f"({rate:.1%}, gates.max_reject_rate is {limit:.1%}), most often {figures.top_reject}"
    )
    return GateResult("rejects", rate <= limit, rate, limit, message)


def _judge_rows(figures: AuditFigures, config: JobConfig) -> GateResult:
    last, limit = figures.last, config.gates.max_row_drop
    if last is None or config.catalog.mode == "delta":
        why = "first run" if last is None else "a delta names few rows on purpose"
        return GateResult("row_drop", True, None, limit, "", why)
    drop = (last.n_rows - figures.n_rows) / max(last.n_rows, 1)
    message = (
        f"row_drop: {figures.n_rows} catalog rows, {last.n_rows} in run {last.run_id} "
        f"({drop:.1%} fewer, gates.max_row_drop is {limit:.1%}): is the catalog complete?"
    )
    return GateResult("row_drop", drop <= limit, drop, limit, message)


def _judge_recall(figures: AuditFigures, config: JobConfig) -> GateResult:
    recall, target = figures.recall, config.candidates.target_recall
    if recall is None:
        return GateResult("recall", True, None, target, "", "no true pair was sampled")
    message = (
        f"recall: candidate recall is {recall:.3f} at maximum effort, candidates.target_recall is "
        f"{target:g}; search harder with --set candidates.n_trees={2 * figures.n_trees}"
    )
    return GateResult("recall", recall >= target, recall, target, message)


def _judge_groups(figures: AuditFigures, config: JobConfig) -> GateResult:
    largest, limit = figures.largest_group, config.gates.max_group_size
    message = (
        f"largest_group: {figures.largest_group_name} has {largest} SKUs (gates.max_group_size is "
        f"{limit}): a photo that many products share, or a threshold too low?"
    )
    return GateResult("largest_group", largest <= limit, largest, limit, message)


def _judge_drift(figures: AuditFigures, config: JobConfig) -> GateResult:
    skipped = _why_no_drift(figures)
    limit = config.gates.max_grouped_share_change
    if skipped or figures.last is None:
        return GateResult("drift", True, None, limit, "", skipped)
    last = figures.last
    now, then = figures.n_grouped / figures.n_rows, last.n_grouped / last.n_rows
    found = list(_drifts(figures, last, config, now, then))
    return GateResult("drift", not found, _distance(now, then), limit, f"drift: {', '.join(found)}")


def _distance(a: float, b: float) -> float:
    # 0.4 - 0.3 is a hair more than 0.1: a change as large as its limit must not break it.
    return round(abs(a - b), 9)


def _why_no_drift(figures: AuditFigures) -> str:
    last = figures.last
    if last is None:
        return "first run"
    if last.model_id != figures.model_id:
        return "another model than last time"
    if last.verifier_id != figures.verifier_id:
        return "pairs are scored by another verifier than last time"
    if min(figures.n_rows, last.n_rows) < _ENOUGH_ROWS:
        return f"fewer than {_ENOUGH_ROWS} rows"
    return ""


def _drifts(
    figures: AuditFigures, last: LastRun, config: JobConfig, now: float, then: float
) -> Iterator[str]:
    limit = config.gates.max_grouped_share_change
    if _distance(now, then) > limit:
        yield (
            f"{now:.1%} of the rows are in groups, {then:.1%} in run {last.run_id} "
            f"(gates.max_grouped_share_change is {limit:.1%})"
        )
    step, most = _distance(figures.min_score, last.min_score), config.gates.max_threshold_change
    is_solved = config.match.min_cosine is None and not last.is_explicit
    if is_solved and step > most:
        yield (
            f"the threshold is {figures.min_score:.3f}, {last.min_score:.3f} in run "
            f"{last.run_id} (gates.max_threshold_change is {most:g})"
        )


def as_manifest(results: Sequence[GateResult]) -> list[dict[str, object]]:
    """Verdicts as the manifest keeps them."""
    return [
        {
            "name": result.name,
            "passed": result.passed,
            "measured": result.measured,
            "limit": result.limit,
            "skipped": result.skipped,
            "message": "" if result.passed else result.message,
        }
        for result in results
    ]


def last_run(facts: Mapping[str, object]) -> LastRun:
    """The figures of a published run, from its manifest's facts."""
    return LastRun(
        run_id=str(facts["run_id"]),
        model_id=str(facts["model_id"]),
        n_rows=int(str(facts["n_catalog_rows"])),
        n_grouped=int(str(facts["n_grouped_skus"])),
        min_score=threshold_of(facts).value,
        is_explicit=facts["target_precision"] is None,
        verifier_id=verifier_of(facts),
    )
