"""`dedup-job find` on a warehouse: seconds to open, milliseconds a photo, and agreement with its groups.

    python -m benchmarks.find --warehouse DIR --images DIR [--queries 200] [--out FILE.json]

Queries are photos of grouped SKUs. An answer agrees when every other member of the group whose best photo
pair with this one reaches the threshold, as `duplicate_pairs` has it, is among the matches.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from urllib.parse import unquote

from dedup_job.commands.find import look_up, open_index
from dedup_job.commands.photo_query import PhotoModel
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.tables import DUPLICATE_PAIRS

_TOP = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True)
    parser.add_argument("--images", type=Path, required=True, help="where relative photos lie")
    parser.add_argument("--model", default="")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    warehouse = open_warehouse(arguments.warehouse)
    manifest = read_manifest(warehouse)
    model = PhotoModel(arguments.model, manifest)
    seconds = {"model": time.monotonic() - started}
    for name, rebuild in (("build", True), ("open", False)):
        started = time.monotonic()
        index = open_index(warehouse, manifest, rebuild=rebuild)
        seconds[name] = time.monotonic() - started
    pairs = read_rows(find_table(warehouse, manifest, DUPLICATE_PAIRS.name)).to_pylist()
    asked = random.Random(1).sample(pairs, min(arguments.queries, len(pairs)))
    times, agreed = [], 0
    with index:
        for pair in asked:
            started = time.monotonic()
            path = arguments.images / unquote(pair["image_uri_a"]).removeprefix("file://")
            found = look_up(index, model, model.open(path), _TOP, manifest)
            times.append(1000 * (time.monotonic() - started))
            agreed += pair["sku_id_b"] in {one.sku_id for one in found if one.is_match}
    result = {
        "seconds": seconds,
        "ms": {"median": statistics.median(times), "max": max(times)},
        "pairs": len(asked),
        "agreed": agreed,
    }
    print(" ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))
    print(f"a photo: median {result['ms']['median']:.0f} ms, slowest {result['ms']['max']:.0f} ms")
    print(f"agrees with {agreed} of {len(asked)} pairs of the night")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
