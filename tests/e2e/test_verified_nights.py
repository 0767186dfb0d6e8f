"""Nights with a model that verifies candidate pairs: what is verified, what stays, what is published."""

import json
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from dedup_job.errors import ModelContractError
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.manifests import read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.kernels import bundle as bundles
from dedup_job.kernels.calibration import read_score_calibration
from dedup_job.kernels.pictures import unpack_picture
from dedup_job.kernels.verifier import describe
from dedup_job.kernels.verifier_model import load_verifier
from tests.bundles_with_verifier import RULE, difference_network, write_bundle
from tests.e2e.jobs import read_report, run_job
from tests.e2e.shop import Shop
from tests.e2e.test_nights import groups_of, members_by_id, settled

pytestmark = pytest.mark.spark
EXACT = {"candidates__search": "exact"}


@pytest.fixture(scope="module")
def network():
    return difference_network(128)


@pytest.fixture(scope="module")
def bundle(network, tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("model") / "bundle", network)


@pytest.fixture(scope="module")
def other_rule(network, tmp_path_factory):
    """Another verifier of the same model: its scores are lower."""
    rule = RULE | {"bias": RULE["bias"] - 0.5}
    return write_bundle(tmp_path_factory.mktemp("model") / "other-rule", network, rule)


def filled(folder, n_products=16, seed=0):
    shop = Shop(folder, seed, n_designs=8)
    for _ in range(n_products):
        shop.add()
    return shop


def night(shop, warehouse, day, bundle, **settings):
    settled()
    given = {"run_date": f"2026-01-{day:02d}", "model__bundle": str(bundle)} | EXACT
    return run_job(shop.write(), warehouse, **given | settings)


def state(warehouse, name):
    """Rows of a state table of the last run."""
    return read_report(warehouse, name)


def scores_of(warehouse):
    """(content, content) -> score of every pair that the run kept."""
    return {(r["sha_a"], r["sha_b"]): r["score"] for r in state(warehouse, "scored_pairs")}


def pairs_of(warehouse):
    columns = ("sku_id_a", "sku_id_b", "cosine", "score", "match_probability", "match_type")
    return {tuple(row[c] for c in columns) for row in read_report(warehouse, "duplicate_pairs")}


def metrics_of(warehouse):
    rows = read_report(warehouse, "run_metrics")
    return {row["metric"]: row["value"] for row in rows if row["stage"] == "candidates"}


def content_of(warehouse, sku):
    (row,) = (r for r in state(warehouse, "catalog_images") if r["sku_id"] == sku)
    return row["content_sha256"]


def pictures_of(warehouse, bundle):
    store = EmbeddingStore(
        open_warehouse(str(warehouse)), bundles.read_manifest(bundle).model_id
    ).stored()
    rows = read_rows(store).to_pylist()
    return {row["content_sha256"]: row["picture"] for row in rows}


def test_pairs_are_verified_once_and_their_scores_are_published(spark, tmp_path, bundle):
    shop, out = filled(tmp_path / "shop"), tmp_path / "out"
    first = night(shop, out, 1, bundle)
    (run,) = read_report(out, "runs")
    kept, scores = state(out, "scored_pairs"), scores_of(out)
    figures = metrics_of(out)

    # Every pair from the floor on is verified, and none below it.
    floor = figures["search_floor"]
    assert {r["score"] is not None for r in kept if r["cosine"] >= floor} == {True}
    assert {r["score"] for r in kept if r["cosine"] < floor} <= {None}
    n_verified = sum(score is not None for score in scores.values())
    assert first.n_verified == n_verified == figures["verified_pairs"] > 10
    assert len({score for score in scores.values() if score is not None}) > 10

    # A score is what the bundle's verifier makes of the two stored pictures.
    pictures, verifier = pictures_of(out, bundle), load_verifier(bundle)
    contents = {r["content_sha256"] for r in state(out, "catalog_images")}
    assert set(pictures) == contents and all(pictures.values())
    seen = {sha: describe(unpack_picture(data)) for sha, data in pictures.items()}
    for row in kept[:: max(1, len(kept) // 12)]:
        if row["score"] is not None:
            answer = verifier.answer(seen[row["sha_a"]], seen[row["sha_b"]])
            (expected,) = verifier.score([answer], [row["cosine"]])
            assert row["score"] == pytest.approx(float(expected), abs=1e-6)

    # The threshold acts on it, and is published.
    manifest = bundles.read_manifest(bundle)
    calibration = read_score_calibration(bundle, manifest.model_id)
    assert run["model_id"] == manifest.model_id
    assert run["calibration_id"] == calibration.calibration_id
    assert run["min_score"] == first.min_score == figures["min_score"]
    assert run["min_cosine"] == floor == figures["min_cosine"]
    pairs = read_report(out, "duplicate_pairs")
    assert pairs
    assert {row["score"] >= run["min_score"] for row in pairs} == {True}
    reaching = sum(s is not None and s >= run["min_score"] for s in scores.values())
    assert Counter(row["match_type"] for row in pairs)["near"] == reaching
    for row in pairs:
        # What is stored is the float32 of it.
        sure = float(calibration.match_probability(np.float32([row["score"]]))[0])
        assert row["match_type"] == "exact" or row["match_probability"] == pytest.approx(sure)
        assert row["score"] != row["cosine"]
    assert f"({n_verified} pairs verified)" in first.summary()

    # The same catalog the next night: nothing is looked at again.
    before = pairs_of(out), groups_of(out), members_by_id(out)
    second = night(shop, out, 2, bundle)
    assert (second.n_verified, second.photos.embedded) == (0, 0)
    assert metrics_of(out)["verified_pairs"] == 0
    assert (pairs_of(out), groups_of(out), members_by_id(out)) == before
    assert scores_of(out) == scores
    assert second.min_score == first.min_score


@pytest.mark.slow
def test_a_new_photo_costs_its_own_pairs(spark, tmp_path, bundle):
    shop, out = filled(tmp_path / "shop"), tmp_path / "out"
    night(shop, out, 1, bundle)
    before = scores_of(out)
    sku = shop.add(design=3)
    result = night(shop, out, 2, bundle)
    new, after = content_of(out, sku), scores_of(out)
    mine = {pair for pair, score in after.items() if new in pair and score is not None}
    assert result.photos.embedded == 1
    assert 0 < result.n_verified == len(mine) < len(before)
    assert {pair: score for pair, score in after.items() if new not in pair} == before
    fresh = tmp_path / "fresh"
    night(shop, fresh, 2, bundle)
    assert pairs_of(out) == pairs_of(fresh) and groups_of(out) == groups_of(fresh)


@pytest.mark.slow
def test_another_verifier_verifies_all_anew_and_embeds_nothing(spark, tmp_path, bundle, other_rule):
    shop, out = filled(tmp_path / "shop"), tmp_path / "out"
    first = night(shop, out, 1, bundle)
    before = scores_of(out)
    second = night(shop, out, 2, other_rule)
    after = scores_of(out)
    assert (second.photos.embedded, second.photos.fetched) == (0, 0)
    assert second.n_verified == first.n_verified > 0
    assert set(after) == set(before)
    assert all(
        after[pair] < score for pair, score in before.items() if score is not None and score > 0
    )
    search = read_manifest(open_warehouse(str(out))).facts["search"]
    assert search["verifier"] == bundles.read_manifest(other_rule).verifier_id
    # And back again: the first verifier's scores were not kept.
    assert night(shop, out, 3, bundle).n_verified == first.n_verified
    assert scores_of(out) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"match__min_cosine": 0.9}, {"match__verify": False}], ids=["cosine", "off"]
)
def test_a_night_that_verifies_nothing_goes_by_cosines(spark, tmp_path, bundle, settings):
    shop, out = filled(tmp_path / "shop"), tmp_path / "out"
    first = night(shop, out, 1, bundle)
    result = night(shop, out, 2, bundle, **settings)
    (run,) = read_report(out, "runs")
    assert result.n_verified is None and metrics_of(out)["verified_pairs"] is None
    # The store is the same model's: pictures are there for a night that verifies again.
    assert (result.photos.embedded, result.photos.fetched) == (0, 0)
    assert (
        run["min_score"]
        == run["min_cosine"]
        == settings.get("match__min_cosine", run["min_cosine"])
    )
    pairs = read_report(out, "duplicate_pairs")
    assert pairs and all(row["score"] == row["cosine"] for row in pairs)
    assert set(scores_of(out).values()) == {None}
    assert read_manifest(open_warehouse(str(out))).facts["search"]["verifier"] is None
    assert "pairs verified" not in result.summary()
    again = night(shop, out, 3, bundle)
    assert again.n_verified == first.n_verified and again.photos.embedded == 0


def test_a_bundle_whose_verifier_is_damaged_starts_nothing(spark, tmp_path, network):
    bundle = write_bundle(tmp_path / "bundle", network)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["verifier"]["golden_answers"][0] += 5
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    shop = filled(tmp_path / "shop", 2)
    with pytest.raises(ModelContractError, match="on its golden pairs"):
        night(shop, tmp_path / "out", 1, bundle)
    assert not list((tmp_path / "out").glob("_runs/*/duplicate_pairs"))
    # Whoever does not verify does not need it.
    result = night(shop, tmp_path / "out", 1, bundle, match__verify=False)
    assert result.n_verified is None
