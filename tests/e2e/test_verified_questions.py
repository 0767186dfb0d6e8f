"""`find` and `explain` agree with a night that verified its pairs."""

import json

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from dedup_job.cli import main
from dedup_job.io.manifests import read_manifest, threshold_of
from dedup_job.io.storage import open_warehouse
from tests.bundles_with_verifier import difference_network, write_bundle
from tests.e2e.jobs import read_report, run_job, write_csv
from tests.photos import draw_photo, encode

pytestmark = pytest.mark.spark


def in_red(photo):
    return np.clip(photo + np.array([25, -15, -10]), 0, 255).astype(np.uint8)


SHIRT, BAG = draw_photo(0, 240, 320), draw_photo(1, 240, 320)
# The two red ones are another product, though of the shirt's cut.
SHOP = {
    "shirt": encode(SHIRT),
    "shirt again": encode(SHIRT, quality=75),
    "red": encode(in_red(SHIRT)),
    "red again": encode(in_red(SHIRT), quality=75),
    "same file": encode(SHIRT),
    "bag": encode(BAG),
}


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """(folder of photos, warehouse, bundle) after a night; the photo of a SKU is SKU.jpg."""
    folder = tmp_path_factory.mktemp("verified")
    bundle = write_bundle(folder / "bundle", difference_network(128))
    for sku, data in SHOP.items():
        (folder / f"{sku}.jpg").write_bytes(data)
    catalog = write_csv(
        folder / "catalog.csv", [{"sku_id": sku, "image_uri": f"{sku}.jpg"} for sku in SHOP]
    )
    result = run_job(catalog, folder / "out", model__bundle=str(bundle), candidates__search="exact")
    assert result.n_verified
    return folder, str(folder / "out"), str(bundle)


def ask(capsys, *arguments):
    code = main([*arguments])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def pairs_of(warehouse):
    """Two SKUs -> the row of the night."""
    rows = read_report(warehouse, "duplicate_pairs")
    return {frozenset((row["sku_id_a"], row["sku_id_b"])): row for row in rows}


def test_find_matches_what_the_night_matched(shop, capsys):
    folder, warehouse, bundle = shop
    pairs = pairs_of(warehouse)
    assert {frozenset(("shirt", "shirt again")), frozenset(("red", "red again"))} <= pairs.keys()
    assert frozenset(("shirt", "red")) not in pairs
    for sku in SHOP:
        photo = str(folder / f"{sku}.jpg")
        out = ask(capsys, "find", photo, "--warehouse", warehouse, "--model", bundle, "--json")
        found = {one["sku_id"]: one for one in json.loads(out)["found"]}
        assert set(found) == set(SHOP)
        for other in SHOP.keys() - {sku}:
            pair = pairs.get(frozenset((sku, other)))
            assert found[other]["is_match"] == (pair is not None)
            if pair:
                for name in ("cosine", "score", "match_probability"):
                    assert found[other][name] == pytest.approx(pair[name], abs=1e-4)


def test_explain_tells_the_score_of_the_night(shop, capsys):
    _, warehouse, bundle = shop
    pairs = pairs_of(warehouse)
    threshold = threshold_of(read_manifest(open_warehouse(warehouse)).facts)
    assert threshold.scale == "score"
    for skus in (("shirt", "shirt again"), ("red", "red again"), ("shirt", "red")):
        out = ask(capsys, "explain", *skus, "--warehouse", warehouse, "--model", bundle)
        assert f"threshold          {threshold}" in out
        pair = pairs.get(frozenset(skus))
        told = float(out.split("best photos now    score ")[1].split(",")[0])
        assert (told >= threshold.value) == (pair is not None)
        if pair:
            assert told == pytest.approx(pair["score"], abs=1e-3)
            assert f"score {pair['score']:.4f}" in out.split("night 2026-01-02")[1]


def test_the_gallery_and_show_tell_the_threshold_of_scores(shop, capsys):
    _, warehouse, _ = shop
    threshold = threshold_of(read_manifest(open_warehouse(warehouse)).facts)
    page = open_warehouse(warehouse).child("gallery").read_bytes("index.html").decode()
    assert f"threshold: {threshold}" in page
    assert f"score >= {threshold.value:.4f}" in ask(capsys, "show", "--warehouse", warehouse)
