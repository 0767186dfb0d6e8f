"""A merchandiser reviews one night, the model learns from it, and a catalog it never saw gains."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dedup_job.commands.verdict import read_rows_of
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.images import prepare
from dedup_job.kernels.metrics import precision_recall_curve, uap
from dedup_job.kernels.model import load_embedder
from dedup_job.sample.catalog import write_sample_catalog
from tests.e2e.jobs import read_report, run_job

ROOT = Path(__file__).parents[2]
N_PRODUCTS = 300
REVIEWED, HELD_OUT = 11, (12, 13)

pytestmark = [pytest.mark.spark, pytest.mark.training, pytest.mark.slow]


def review(catalog, warehouse, decisions):
    """Say of every pair that the night found what the truth says."""
    product = {r["sku_id"]: r["product_id"] for r in read_rows_of(catalog.parent / "truth.csv")}
    said = []
    for row in read_report(warehouse, "duplicate_pairs"):
        pair = row["sku_id_a"], row["sku_id_b"]
        is_same = product[pair[0]] == product[pair[1]]
        said.append((*pair, "same" if is_same else "different"))
    with decisions.open("w", newline="") as stream:
        csv.writer(stream).writerows([("sku_id_a", "sku_id_b", "decision"), *said])
    return sum(word == "different" for *_, word in said), len(said)


def ranking(bundle, catalog):
    """uAP, and precision at a recall of .9, over all pairs of the catalog's photos."""
    embedder = load_embedder(bundle)
    truth = {row["sku_id"]: row for row in read_rows_of(catalog.parent / "truth.csv")}
    product_of = {}
    for row in read_rows_of(catalog):
        fact = truth[row["sku_id"]]
        if fact["kind"] != "placeholder" and not fact["kind"].startswith("broken"):
            product_of.setdefault(row["image_uri"], fact["product_id"])
    manifest = embedder.manifest
    photos = [
        prepare((catalog.parent / uri).read_bytes(), manifest.input_px, manifest.blur_sigma_px)
        for uri in product_of
    ]
    vectors = embedder.embed(np.stack([photo.pixels for photo in photos]))
    products = np.array(list(product_of.values()))
    a, b = np.triu_indices(len(products), 1)
    cosine, same = (vectors @ vectors.T)[a, b], products[a] == products[b]
    curve = precision_recall_curve(cosine, same)
    return uap(cosine, same), float(curve.precision[curve.recall >= 0.9].max())


def test_reviewing_improves_precision_on_catalogs_it_never_saw(spark, tmp_path):
    catalog = write_sample_catalog(tmp_path / "reviewed", N_PRODUCTS, seed=REVIEWED).catalog
    # A wide net, so that there is something to review.
    run_job(catalog, tmp_path / "warehouse", match__target_precision=0.7)
    decisions, registry = tmp_path / "decisions.csv", tmp_path / "registry"
    n_different, n_said = review(catalog, tmp_path / "warehouse", decisions)
    assert n_different > 50 and n_said > 200
    command = [
        str(Path(sys.executable).parent / "spark-submit"), "--master", "local[1]",
        str(ROOT / "jobs/retrain_model.py"), "--decisions", str(decisions),
        "--warehouse", str(tmp_path / "warehouse"), "--registry", str(registry),
        "--cache-dir", str(tmp_path / "cache"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    # spark-submit prints a Python program's stderr on stdout too; the result comes last.
    verdict = json.loads(done.stdout[done.stdout.rindex("\n{\n") :])
    assert verdict["difference"] > 0
    champion, promoted = locate_bundle(""), locate_bundle(str(registry))
    assert promoted.name == verdict["promoted"]
    before, after = [], []
    for seed in HELD_OUT:
        held_out = write_sample_catalog(tmp_path / str(seed), N_PRODUCTS, seed=seed).catalog
        before.append(ranking(champion, held_out))
        after.append(ranking(promoted, held_out))
    print("held-out (uAP, precision at recall .9):", before, "->", after)
    gain = np.mean(after, axis=0) - np.mean(before, axis=0)
    assert gain[0] > 0.003 and gain[1] > 0.01
