"""A run report as plain text, at most 80 columns wide."""

import textwrap

from dedup_job.commands.run_report import GroupSummary, RunReport
from dedup_job.commands.safe_text import visible
from dedup_job.errors import REASON_MEANING, RejectReason

WIDTH = 80
# Names of the figures in `run_metrics` that the report speaks of.
RECALL = "candidates.recall"
EXPECTED_FALSE = "candidates.expected_false_pairs"


def report_lines(report: RunReport) -> list[str]:
    """Lay the report out, one string a line, without line ends.

    Names come from a catalog of strangers: nothing in them reaches the terminal as a command.
    """
    lines = [
        *_heading(report),
        "",
        *_counts(report),
        "",
        *_top_groups(report.top_groups),
        *_rejects(report.rejects),
    ]
    return [visible(line) for line in lines]


def _heading(report: RunReport) -> list[str]:
    run = report.run
    seconds = (run["finished_at"] - run["started_at"]).total_seconds()
    return [
        f"Run {run['run_id']} for {report.run_date}: {run['status']}",
        f"  finished {run['finished_at']:%Y-%m-%d %H:%M} UTC after {seconds:,.0f} s, "
        f"model {run['model_id'][:12]}, version {run['version']}",
    ]


def _counts(report: RunReport) -> list[str]:
    run = report.run
    return [
        _line("catalog rows", run["n_catalog_rows"]),
        _line("  embedded", run["n_embedded"]),
        _line("  embedded by an earlier run", run["n_reused"]),
        _line("  same photo as another row", run["n_shared_content"]),
        _line("  placeholder photo", run["n_placeholder"]),
        _line("  rejected", run["n_rejected"]),
        _line("duplicate pairs", run["n_pairs"], _threshold(report)),
        _line("  expected to be false", *_expected_false(report)),
        _line("groups", run["n_groups"], f"of {run['n_grouped_skus']:,} SKUs"),
        _line("  SKUs beside the survivors", run["n_grouped_skus"] - run["n_groups"]),
        _line("recall of the search", *_recall(report)),
    ]


def _line(what: str, value: int | str, remark: str = "") -> str:
    number = f"{value:,}" if isinstance(value, int) else value
    return f"{what:<28}{number:>10}  {remark}".rstrip()


def _threshold(report: RunReport) -> str:
    target, threshold = report.run["target_precision"], report.threshold
    why = "as given" if target is None else f"for precision {target:.2f}"
    return f"{threshold.scale} >= {threshold.value:.4f}, {why}"


def _expected_false(report: RunReport) -> tuple[str, str]:
    value = report.metrics.get(EXPECTED_FALSE)
    if value is None:
        return "unknown", ""
    return f"{value:,.1f}", _interval(report, EXPECTED_FALSE, ",.1f")


def _recall(report: RunReport) -> tuple[str, str]:
    value = report.metrics.get(RECALL)
    if value is None:
        return "unknown", "no pair among the sampled photos"
    return f"{value:.4f}", _interval(report, RECALL, ".4f")


def _interval(report: RunReport, name: str, form: str) -> str:
    low, high = (report.metrics.get(f"{name}_{end}") for end in ("low", "high"))
    if low is None or high is None:
        return ""
    return f"95 % interval {low:{form}} to {high:{form}}"


def _top_groups(groups: list[GroupSummary]) -> list[str]:
    if not groups:
        return ["no duplicate groups to list", ""]
    lines = ["largest groups, then the most certain (weakest: lowest cosine within)"]
    lines.append(f"{'size':>6}  {'weakest':>7}  {'keep':<18}  duplicates")
    for group in groups:
        head = f"{group.group_size:>6,}  {group.min_pair_cosine:>7.4f}  "
        keep = _cut(group.canonical_sku_id, 18)
        room = WIDTH - len(head) - 20
        lines.append(f"{head}{keep:<18}  {_fit(group.duplicate_sku_ids, room)}")
    return [*lines, ""]


def _fit(names: list[str], room: int) -> str:
    """As many names as fit, and how many do not."""
    shown = ""
    for index, name in enumerate(names):
        longer = f"{shown}, {name}" if shown else name
        rest = len(names) - index - 1
        more = f" +{rest} more" if rest else ""
        if len(longer) + len(more) > room:
            if not shown:
                return _cut(name, room - len(more)) + more
            return f"{shown} +{len(names) - index} more"
        shown = longer
    return shown


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _rejects(rejects: dict[str, int]) -> list[str]:
    if not rejects:
        return ["no rejected rows"]
    lines = ["rejected rows by reason"]
    for reason, count in rejects.items():
        head = f"{count:>6,}  {reason:<18}  "
        lines += textwrap.wrap(
            head + _meaning(reason), WIDTH, subsequent_indent=" " * len(head), drop_whitespace=True
        )
    return lines


def _meaning(reason: str) -> str:
    try:
        return REASON_MEANING[RejectReason(reason)]
    except ValueError:
        return "(a reason of another version)"
