"""Two nights of a small shop: what the second must publish, whatever happens on the way."""

import shutil
from pathlib import Path
from typing import Any

from dedup_job.nightly.results import RunResult
from tests.e2e.jobs import run_job
from tests.e2e.shop import Shop
from tests.faults.job import Job
from tests.faults.published import assert_whole, globbed, reports

SETTINGS = {
    "match.min_cosine": 0.9,
    "candidates.search": "exact",
    "embed.photos_per_task": 10,
    "embed.chunk_photos": 10,
}
SECOND = "2026-01-03"


def in_process(catalog: Path, warehouse: Path, run_date: str, **more: Any) -> RunResult:
    """Run the job in this process, as the command line of `job` would."""
    given = {k.replace(".", "__"): v for k, v in SETTINGS.items()}
    return run_job(catalog, warehouse, run_date=run_date, **given, **more)


def job(
    catalog: Path,
    warehouse: Path,
    *arguments: str,
    run_date: str = SECOND,
    said: Path | None = None,
    **environment: str,
) -> Job:
    """The job in a process of its own; what it says goes to `said`, by default beside the warehouse."""
    words = [word for k, v in SETTINGS.items() for word in ("--set", f"{k}={v}")]
    words += ["--run-date", run_date, *arguments]
    said = said or warehouse.with_name(f"{warehouse.name}-said")
    return Job(catalog, warehouse, said, *words, environment=environment)


class Nights:
    """A warehouse with one published night, the catalog of the second, and what comes of it."""

    def __init__(self, folder: Path) -> None:
        self.first, self.undisturbed = folder / "first", folder / "undisturbed"
        shop = Shop(folder / "shop", seed=4, n_designs=16)
        for _ in range(60):
            shop.add()
        in_process(shop.write(), self.first, "2026-01-02")
        self.first_run = assert_whole(self.first)
        for number in range(1, 6):
            shop.delete(f"sku-{number:04d}")
        for _ in range(45):
            shop.add()
        self.catalog = shop.write()
        shutil.copytree(self.first, self.undisturbed)
        self.result = in_process(self.catalog, self.undisturbed, SECOND)
        self.reports = reports(self.undisturbed)
        assert self.result.changes and self.result.photos.embedded == 45

    def before(self, folder: Path) -> Path:
        """A warehouse as it was before the second night."""
        shutil.copytree(self.first, folder)
        return folder

    def assert_converges(self, warehouse: Path) -> RunResult:
        """Run the second night to its end: nothing is left of the crash. Returns its figures."""
        result = in_process(self.catalog, warehouse, SECOND)
        assert assert_whole(warehouse) == result.run_id
        assert reports(warehouse) == self.reports
        for name, rows in self.reports.items():
            assert globbed(warehouse, name, SECOND) == rows
        assert not (warehouse / "_staging").exists()
        return result
