"""What a catalog costs whose rows mostly show one picture ("image coming soon").

    python -m benchmarks.skew [--rows 10000] [--share 0.9] [--rounds 2]
    python -m benchmarks.skew --rows 100000 --share 0.25 --reencoded 25000

Catalogs of equal length, one of distinct photos, one in which a share of the rows is the same content
under names of its own; first runs of the real command on each, in turn. With `--reencoded N` so many
more rows show another such picture, saved anew for each, and a third catalog is without all those
rows. Printed are wall times, start-up included, and their ratios.
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
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.photos import write_varied_photos
from dedup_job.sample.catalog import write_sample_catalog
from tests.photos import no_photo_yet


def write_skewed(
    paths: list[Path], share: float, n_reencoded: int, folder: Path
) -> tuple[list[Path], int]:
    """The same number of files, `share` of them links to the first photo; and how many are placeholders."""
    folder.mkdir()
    n_same = round(share * len(paths))
    links = [folder / path.name for path in paths]
    for i, link in enumerate(links):
        if n_same <= i < n_same + n_reencoded:
            link.write_bytes(no_photo_yet(i))
        else:
            os.link(paths[0] if i < n_same else paths[i], link)
    return links, n_same + n_reencoded


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
    parser.add_argument("--reencoded", type=int, default=0, metavar="N")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dedup-bench")
    arguments = parser.parse_args()

    photos = arguments.photos or write_sample_catalog(arguments.work / "sample").catalog.parent
    distinct = write_varied_photos(photos, arguments.work, arguments.rows)[: arguments.rows]
    ratios = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        work = Path(name)
        skewed, n_placeholders = write_skewed(
            distinct, arguments.share, arguments.reencoded, work / "skewed"
        )
        kinds = {"distinct": distinct, "skewed": skewed}
        if arguments.reencoded:
            kinds["without"] = skewed[n_placeholders:]
        for i in range(arguments.rounds):
            seconds = {}
            for kind, paths in kinds.items():
                catalog = write_catalog(work / f"{kind}.csv", paths)
                seconds[kind], result = first_run(catalog, paths[0].parent, work / f"{kind}-{i}")
                rows = result["rows"]
                print(
                    f"round {i + 1} {kind:8} {seconds[kind]:7.1f} s  embedded {rows['embedded']:6d}"
                    f"  placeholder {rows['placeholder']:6d}  groups {result['n_groups']}",
                    flush=True,
                )
            for kind in seconds:
                ratios[kind].append(seconds["skewed"] / seconds[kind])
    for kind in set(ratios) - {"skewed"}:
        print(f"median skewed / {kind} {statistics.median(ratios[kind]):.2f}")


if __name__ == "__main__":
    main()
