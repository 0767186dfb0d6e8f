"""`dedup-job show`: the last published run on a terminal."""

import json
from dataclasses import asdict
from datetime import date

from dedup_job.commands.run_report import load_report
from dedup_job.commands.show_text import report_lines


def show(
    warehouse: str,
    run_id: str | None = None,
    run_date: date | None = None,
    top: int = 10,
    as_json: bool = False,
) -> None:
    """Print a published run: counts, threshold, recall, top groups, rejects.

    Args:
        warehouse: as `--warehouse`.
        run_id: a certain run; default: the last published one.
        run_date: the run that is published for this date; not together with `run_id`.
        top: groups to list.
        as_json: print one JSON object instead.

    Raises:
        DedupError: as `load_report`.
    """
    report = load_report(warehouse, run_id, run_date, top)
    if as_json:
        print(json.dumps(asdict(report), indent=2, default=str))
    else:
        print("\n".join(report_lines(report)))
