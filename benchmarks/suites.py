"""The labelled suites, end to end: the nightly job at default settings, then the bench's own score.py.

  python -m benchmarks.suites [--bundle DIR] [--bench DIR] [--suites wardrobe,studio] [--shares 1,0.5]
      [--distractors DIR] [--out FILE.json]

Of every suite and share of its products: the ranking of all pairs (by score; a pair that the job did not
verify ranks below, by its cosine), the groups, and what the run promised. With `--distractors` every photo
below a folder joins the catalog as a product of its own, and the pairs among the suite's SKUs are scored.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.pipeline import run
from dedup_job.settings import Setting, load_settings
from model_training.evaluate import rank_pairs
from model_training.resampling import RankedPairs, draw_products, interval, weigh_pairs

ROOT = Path(__file__).parents[1]
_PHOTOS = {".jpg", ".jpeg", ".png", ".webp"}
_N_DRAWS = 200
# Suites are smaller than what the gates guard: a share of grouped SKUs means nothing here.
_OPEN_GATES = {"gates.max_reject_rate": 1.0, "gates.max_group_size": 1_000}


def main() -> None:
    """Measure and print one JSON object a suite and share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="")
    parser.add_argument("--bench", type=Path, default=ROOT.parent / "shared" / "bench")
    parser.add_argument("--suites", default="wardrobe,studio")
    parser.add_argument("--shares", default="1")
    parser.add_argument("--distractors", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for suite in options.suites.split(","):
        for share in (float(text) for text in options.shares.split(",")):
            result = measure_suite(options, suite, share)
            results.append(result)
            print(json.dumps(result), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure_suite(options: argparse.Namespace, suite: str, share: float) -> dict[str, Any]:
    """Run the job on a share of a suite's products and score it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = _write_truth(options.bench / suite, share, folder / "truth.csv")
        catalog = _write_catalog(options, suite, truth, folder / "catalog.csv")
        warehouse = folder / "warehouse"
        settings: dict[str, Any] = {
            "catalog.path": str(catalog),
            "warehouse": str(warehouse),
            **_OPEN_GATES,
        }
        roots = [folder for folder in (options.bench, options.distractors) if folder]
        settings["fetch.allow_roots"] = [str(root.resolve()) for root in roots]
        settings |= {"model.bundle": options.bundle} if options.bundle else {}
        settings |= dict(text.split("=", 1) for text in options.set)
        result = run(load_settings({k: Setting(v, "suite") for k, v in settings.items()}, None, {}))
        score = options.bench / "score.py"
        pairs = _write_pairs(warehouse, set(truth.sku_id), folder / "pairs.parquet")
        [groups] = (warehouse / "duplicate_groups").glob("*/*.parquet")
        return {
            "suite": suite,
            "share": share,
            "distractors": str(options.distractors or ""),
            "ranking": _score(score, "pairs", folder / "truth.csv", pairs),
            "ours": _score_here(truth, pairs),
            "groups": _score(score, "groups", folder / "truth.csv", groups),
            "promised_precision": result.expected_precision,
            "target_met_note": result.threshold_note,
            "min_score": result.min_score,
            "min_cosine": result.min_cosine,
            "n_verified": result.n_verified,
            "n_pairs": result.n_pairs,
            "wall_time_s": result.wall_time_s,
        }


def _write_truth(suite: Path, share: float, path: Path) -> pd.DataFrame:
    """The truth of whole families, so many that they hold that share of the SKUs."""
    truth = pd.read_csv(suite / "truth.csv", dtype=str)
    if share < 1:
        families = np.sort(truth.look_alike_of.unique())
        order = np.random.default_rng(0).permutation(len(families))
        size = truth.groupby("look_alike_of").size()
        kept = families[order][np.cumsum(size[families[order]]) <= share * len(truth)]
        truth = truth[truth.look_alike_of.isin(kept)]
    truth.to_csv(path, index=False)
    return truth


def _write_catalog(
    options: argparse.Namespace, suite: str, truth: pd.DataFrame, path: Path
) -> Path:
    folder = options.bench / suite
    catalog = pd.read_csv(folder / "catalog.csv", dtype=str)
    catalog = catalog[catalog.sku_id.isin(set(truth.sku_id))]
    rows = [
        (sku, str((folder / uri).resolve())) for sku, uri in catalog[["sku_id", "image_uri"]].values
    ]
    if options.distractors:
        photos = sorted(p for p in options.distractors.rglob("*") if p.suffix.lower() in _PHOTOS)
        rows += [(f"distractor-{i:05d}", str(photo.resolve())) for i, photo in enumerate(photos)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("sku_id", "image_uri"))
        writer.writerows(rows)
    return path


def _write_pairs(warehouse: Path, skus: set[str], path: Path) -> Path:
    """Every pair of SKUs that the run kept: exact copies at 1, verified ones by score, the others below 0."""
    folder = open_warehouse(str(warehouse))
    manifest = read_manifest(folder)
    images = read_rows(find_table(folder, manifest, "catalog_images")).select(
        ["sku_id", "content_sha256"]
    )
    shown = images.to_pandas()
    shown = shown[shown.sku_id.isin(skus)].drop_duplicates()
    pairs = read_rows(find_table(folder, manifest, "scored_pairs")).to_pandas()
    is_verified = manifest.facts["search"].get("verifier") is not None
    pairs["value"] = pairs.score.fillna(pairs.cosine - 1.0) if is_verified else pairs.cosine
    near = pairs.merge(shown, left_on="sha_a", right_on="content_sha256").merge(
        shown, left_on="sha_b", right_on="content_sha256", suffixes=("_a", "_b")
    )
    same = shown.merge(shown, on="content_sha256", suffixes=("_a", "_b"))
    same = same[same.sku_id_a < same.sku_id_b].assign(value=1.0)
    columns = ["sku_id_a", "sku_id_b", "value"]
    table = pd.concat([near[columns], same[columns]]).rename(columns={"value": "cosine"})
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)
    return path


def _score(script: Path, mode: str, truth: Path, table: Path) -> dict[str, float]:
    command = [sys.executable, str(script), mode, str(truth), str(table)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _score_here(truth: pd.DataFrame, pairs: Path) -> dict[str, Any]:
    """The same ranking by `kernels.metrics`, with 95 % intervals over families."""
    truth = truth.sort_values("sku_id").reset_index(drop=True)
    place = {sku: i for i, sku in enumerate(truth.sku_id)}
    matrix = np.full((len(truth), len(truth)), -1.0)
    table = pq.read_table(pairs).to_pandas()
    i, j = table.sku_id_a.map(place).to_numpy(), table.sku_id_b.map(place).to_numpy()
    np.maximum.at(matrix, (np.minimum(i, j), np.maximum(i, j)), table.cosine.to_numpy())
    a, b = np.triu_indices(len(truth), 1)
    score = matrix[a, b]
    product, family = (
        np.unique(truth[c], return_inverse=True)[1] for c in ("product_id", "look_alike_of")
    )
    same = product[a] == product[b]
    hard = ~same & (family[a] == family[b])
    figures: dict[str, Any] = rank_pairs(score, same, hard)
    ranked = RankedPairs(score, same, hard)
    draws = [
        ranked.figures(weigh_pairs(count, family[a], family[b]))
        for count in draw_products(int(family.max()) + 1, _N_DRAWS)
    ]
    for name in list(figures):
        figures[f"{name}_interval"] = interval(np.array([draw[name] for draw in draws]))
    return figures


if __name__ == "__main__":
    main()
