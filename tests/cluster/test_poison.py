"""Photos on which the decoder dies, on a real cluster (R5): their rows are rejected, the rest is published."""

import csv

import pytest

from tests.cluster.standalone import start_cluster, submit, zip_package
from tests.decoders import POISON_PATH, poison
from tests.e2e.shop import Shop
from tests.faults.published import reports

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

POISON = {
    "crash": "decoder_crash",
    "abort": "decoder_crash",
    "hang": "decoder_timeout",
    "memory": "too_much_memory",
}


def write_catalog(path, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("sku_id", "image_uri"), *rows])


def test_a_row_that_kills_the_decoder_is_rejected_and_the_rest_published(tmp_path):
    folder = tmp_path / "shop"
    shop = Shop(folder, seed=5, n_designs=20)
    for _ in range(30):
        shop.add()
    for number, word in enumerate(POISON):
        (folder / f"{word}.jpg").write_bytes(poison(word, seed=90 + number))
    rows = [(sku, name) for sku, (name, _) in shop.rows.items()]
    write_catalog(folder / "sound.csv", rows)
    # Poison stands among the others, so that its tasks have photos before and after it.
    write_catalog(
        folder / "poisoned.csv", [*rows[:9], *((w, f"{w}.jpg") for w in POISON), *rows[9:]]
    )
    package = zip_package(tmp_path / "catalog_dedup.zip")
    published = {}
    with start_cluster(tmp_path) as cluster:
        for name in ("sound", "poisoned"):
            arguments = ["--catalog", str(folder / f"{name}.csv"), "--run-date", "2026-01-02"]
            arguments += ["--warehouse", str(tmp_path / name), "--json"]
            arguments += ["--set", "images.decode_timeout_s=2", "--set", "match.min_cosine=0.9"]
            environment = {"PYTHONPATH": POISON_PATH}
            done = submit(cluster.url, cluster.python, package, tmp_path, arguments, environment)
            assert done.returncode == 0, done.stdout[-3000:]
            assert "Lost task" not in done.stdout, "no task failed, no worker was lost"
            published[name] = reports(tmp_path / name)
    rejects = published["poisoned"].pop("rejected_images")
    assert {(row["sku_id"], row["reason"]) for row in rejects} == set(POISON.items())
    assert len(rejects) == len(POISON)
    assert published["sound"].pop("rejected_images") == []
    assert published["poisoned"] == published["sound"]
    assert len(published["sound"]["duplicate_groups"]) > 5
