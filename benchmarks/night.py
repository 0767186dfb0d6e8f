"""What a night costs after the first: unchanged, 1 % and 10 % changed, whole runs of the real command.

    python -m benchmarks.night --photos DIR [--rows 100000] [--out FILE.json]

Photos are crops of real ones at 400x533, hues turned, until there is one for each SKU. A changed SKU shows
another photo, under the same path. Printed are wall times (start-up included), photos fetched and
embedded, and both as shares of the first night's.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.nights import Night, run_night
from benchmarks.photos import write_varied_photos

_SHARES = [0.0, 0.01, 0.10]  # of SKUs that change before nights 2, 3 and 4
# Variants of some thousand photos: closer together than the products of a shop.
_SETTINGS = ("--set", "gates.max_group_size=100000")


def write_catalog(folder: Path, n_rows: int) -> Path:
    path = folder / "catalog.parquet"
    names = [f"{i:06d}" for i in range(n_rows)]
    images = [f"photos/{name}.jpg" for name in names]
    pq.write_table(pa.table({"sku_id": names, "image_uri": images}), path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos to re-encode")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dedup-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    n_changes = [int(share * arguments.rows) for share in _SHARES]
    photos = write_varied_photos(arguments.photos, arguments.work, arguments.rows + sum(n_changes))
    shop = arguments.work / "night"
    shutil.rmtree(shop, ignore_errors=True)
    (shop / "photos").mkdir(parents=True)
    for path in photos[: arguments.rows]:
        (shop / "photos" / path.name).hardlink_to(path)
    catalog, fresh = write_catalog(shop, arguments.rows), photos[arguments.rows :]

    rng, nights = np.random.default_rng(0), []
    print("night  seconds     rows  fetched    asked embedded   pairs  groups  changes")
    for number in range(1, 2 + len(n_changes)):
        changed = n_changes[number - 2] if number > 1 else 0
        for row in rng.choice(arguments.rows, changed, replace=False):
            path = shop / "photos" / f"{row:06d}.jpg"
            path.unlink()
            shutil.copyfile(fresh.pop(), path)
        nights.append(run_night(number, catalog, shop / "warehouse", *_SETTINGS))
        print(nights[-1].line(), _shares(nights), flush=True)
    if arguments.out:
        rows = [{"seconds": n.seconds, "result": n.result} for n in nights]
        arguments.out.write_text(json.dumps({"rows": arguments.rows, "nights": rows}, indent=2))


def _shares(nights: list[Night]) -> str:
    first, last = nights[0], nights[-1]
    embedded = [night.result["photos"]["embedded"] for night in (last, first)]
    return f" wall {last.seconds / first.seconds:.3f}, embedded {embedded[0] / embedded[1]:.4f}"


if __name__ == "__main__":
    main()
