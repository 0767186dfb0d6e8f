"""`dedup-job doctor` and `dedup-job run --dry-run`: what a run would meet, and what it would take."""

import json

from dedup_job.commands.safe_text import visible
from dedup_job.errors import DedupError
from dedup_job.preflight import examine
from dedup_job.settings import Settings


def doctor(settings: Settings, *, as_json: bool = False, is_dry_run: bool = False) -> None:
    """Look, and print one line a finding; nothing is written.

    Args:
        settings: as of a run.
        as_json: print one JSON object instead, at the end.
        is_dry_run: catalog and warehouse must be given, as to a run.

    Raises:
        ConfigError, CatalogError: what ends a run with exit code 2.
        DedupError: a check failed (exit code 1).
    """
    found = examine(
        settings,
        lambda finding: None if as_json else print(visible(finding.line()), flush=True),
        is_dry_run=is_dry_run,
    )
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    elif found.estimates:
        print("\nThis run would take about")
        print("\n".join(f"  {estimate.line()}" for estimate in found.estimates))
    if found.failures:
        raise DedupError(f"not ready for a run: {', '.join(found.failures)}; nothing was written")
