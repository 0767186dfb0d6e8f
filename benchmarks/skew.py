"""What a catalog costs whose rows mostly show one picture ("image coming soon").

    python -m benchmarks.skew [--rows 10000] [--share 0.9] [--rounds 2]

Two catalogs of equal length, one of distinct photos, one in which a share of the rows is the same
content under names of its own; first runs of the real command on each, in turn. Printed are wall
times, start-up included, and their ratio.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.photos import write_distinct_photos
from dedup_job.sample.catalog import write_sample_catalog


def write_skewed(paths: list[Path], share: float, folder: Path) -> list[Path]:
    """The same number of files, `share` of them links to the first photo."""
    folder.mkdir()
    n_same = round(share * len(paths))
    links = [folder / path.name for path in paths]
    for i, link in enumerate(links):
        os.link(paths[0] if i < n_same else paths[i], link)
    return links


def write_catalog(path: Path, photos: Iterable[Path]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["sku_id", "image_uri"])
        rows.writerows((f"sku-{photo.stem}", photo.absolute()) for photo in photos)
    return path


def first_run(catalog: Path, photos: Path, warehouse: Path) -> tuple[float, dict[str, Any]]:
    """Seconds and the printed summary."""
    command = [sys.executable, "-m", "dedup_job", "run", "--json", "--catalog", str(catalog)]
    command += ["--image-root", str(photos), "--warehouse", str(warehouse)]
    command += ["--set", "gates.max_group_size=100000"]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return time.monotonic() - started, json.loads(done.stdout[done.stdout.index("{") :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photos to re-encode [drawn ones]")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dedup-bench")
    arguments = parser.parse_args()

    photos = arguments.photos or write_sample_catalog(arguments.work / "sample").catalog.parent
    distinct = write_distinct_photos(photos, arguments.work, arguments.rows)
    ratios = []
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        work = Path(name)
        skewed = write_skewed(distinct, arguments.share, work / "skewed")
        catalogs = {
            "distinct": write_catalog(work / "distinct.csv", distinct),
            "skewed": write_catalog(work / "skewed.csv", skewed),
        }
        folders = {"distinct": distinct[0].parent, "skewed": work / "skewed"}
        for i in range(arguments.rounds):
            seconds = {}
            for kind, catalog in catalogs.items():
                seconds[kind], result = first_run(catalog, folders[kind], work / f"{kind}-{i}")
                rows = result["rows"]
                print(
                    f"round {i + 1} {kind:8} {seconds[kind]:7.1f} s  embedded {rows['embedded']:6d}"
                    f"  placeholder {rows['placeholder']:6d}  groups {result['n_groups']}",
                    flush=True,
                )
            ratios.append(seconds["skewed"] / seconds["distinct"])
    print(f"median skewed / distinct {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
