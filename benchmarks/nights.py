"""What the second night costs, and the thirtieth: whole runs of the real command on a drawn shop.

Command:
    python -m benchmarks.nights [--rows 20000] [--nights 30] [--quick]

Night 1 is a first run; night 2 finds the same catalog; night 3 has 1 % new, 1 % changed and 1 %
deleted listings; later nights change .5 % each. Printed are the wall times (start-up included), the
photos fetched and embedded, the changes of groups, and the files of the embedding store before and
after `compact`. At the end the last night's pairs are compared with a first run over the same
catalog, once with exact search (must be equal) and once with Annoy (Jaccard index, and what the
run itself said its recall was).
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.shop import DrawnShop
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_rows

_FIRST = date(2026, 1, 1)
# A shop of drawings: its photos lie closer together than those the model was calibrated on.
_SETTINGS = ("--set", "gates.max_group_size=5000")
_ANNOY = ("--set", "candidates.exact_below_rows=0")


@dataclass(frozen=True)
class Night:
    """One run: its number, wall time in seconds, and the summary it printed as JSON."""

    number: int
    seconds: float
    result: dict[str, Any]

    def line(self) -> str:
        photos, rows = self.result["photos"], self.result["rows"]
        return (
            f"{self.number:5d} {self.seconds:8.1f} {rows['catalog']:7d} {photos['fetched']:8d} "
            f"{photos['not_modified']:8d} {photos['embedded']:8d} {self.result['n_pairs']:7d} "
            f"{self.result['n_groups']:7d}  {self.result['changes'] or 'none'}"
        )


def run_night(number: int, catalog: Path, warehouse: Path, *extra: str) -> Night:
    command = [sys.executable, "-m", "dedup_job", "run", "--json", "--catalog", str(catalog)]
    command += ["--warehouse", str(warehouse), "--run-date", str(_FIRST + timedelta(number - 1))]
    started = time.monotonic()
    done = subprocess.run([*command, *_SETTINGS, *extra], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"night {number} failed:\n{done.stderr[-3000:]}")
    return Night(number, time.monotonic() - started, json.loads(done.stdout))


def scored_pairs(warehouse: Path) -> dict[tuple[str, str], float]:
    folder = open_warehouse(str(warehouse))
    rows = read_rows(find_table(folder, read_manifest(folder), "duplicate_pairs")).to_pylist()
    return {(row["sku_id_a"], row["sku_id_b"]): row["cosine"] for row in rows}


def groups(warehouse: Path) -> set[frozenset[str]]:
    folder = open_warehouse(str(warehouse))
    members: dict[str, set[str]] = {}
    for row in read_rows(find_table(folder, read_manifest(folder), "duplicate_groups")).to_pylist():
        members.setdefault(row["group_id"], set()).add(row["sku_id"])
    return {frozenset(skus) for skus in members.values()}


def jaccard(one: set[Any], other: set[Any]) -> float:
    return len(one & other) / max(len(one | other), 1)


def store_files(warehouse: Path) -> tuple[int, int]:
    files = list((warehouse / "image_embeddings").rglob("*.parquet"))
    return len(files), sum(file.stat().st_size for file in files)


def compare(name: str, catalog: Path, warehouse: Path, fresh: Path, last: Night, *extra: str):
    full = run_night(last.number, catalog, fresh, *extra)
    one, other = scored_pairs(warehouse), scored_pairs(fresh)
    same = sum(one[key] == other[key] for key in one.keys() & other.keys())
    print(
        f"{name}: incremental {len(one)} pairs, full {len(other)}; Jaccard "
        f"{jaccard(set(one), set(other)):.4f}, {same} with equal cosines; groups "
        f"{jaccard(groups(warehouse), groups(fresh)):.4f}; recall {last.result['candidate_recall']} "
        f"and {full.result['candidate_recall']}; full run {full.seconds:.1f} s"
    )
    return {"jaccard": jaccard(set(one), set(other)), "full_s": full.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description="Whole nights on a drawn shop.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--work", type=Path, default=Path("/tmp/dedup-bench/nights"))
    parser.add_argument("--quick", action="store_true", help="2,000 rows, 5 nights")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    n_rows, n_nights = (2_000, 5) if arguments.quick else (arguments.rows, arguments.nights)
    percent, half = n_rows // 100, n_rows // 200
    shop = DrawnShop(arguments.work / f"shop-{n_rows}", n_rows, percent + n_nights * half)
    out = arguments.work / f"warehouses-{time.strftime('%H%M%S')}"
    exact, annoy = out / "exact", out / "annoy"

    print("night  seconds    rows  fetched   asked  embedded   pairs  groups  changes")
    nights, figures = [], {}
    n_annoy = min(6, n_nights)
    for number in range(1, n_nights + 1):
        if number == 3:
            shop.add(percent), shop.change(percent), shop.delete(percent)
        elif number > 3:
            shop.add(half // 2), shop.change(half // 4), shop.delete(half // 2)
        catalog = shop.write_catalog()
        nights.append(run_night(number, catalog, exact, "--set", "candidates.search=exact"))
        print(nights[-1].line(), flush=True)
        if number <= n_annoy:
            side = run_night(number, catalog, annoy, *_ANNOY)
        if number == n_annoy:
            fresh = out / "annoy-fresh"
            figures["annoy"] = compare("annoy", catalog, annoy, fresh, side, *_ANNOY)
    figures["nights"] = [(n.number, n.seconds, n.result) for n in nights]
    figures["exact"] = compare(
        "exact", catalog, exact, out / "exact-fresh", nights[-1], "--set", "candidates.search=exact"
    )
    print("night 2 / night 1: %.3f" % (nights[1].seconds / nights[0].seconds))
    before = store_files(exact)
    subprocess.run(
        [sys.executable, "-m", "dedup_job", "compact", "--warehouse", str(exact)], check=True
    )
    print(f"store files: {before[0]} before compact, {store_files(exact)[0]} after")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
