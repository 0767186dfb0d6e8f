"""`find`, `compare` and `explain` about a run that verified pairs: its scores, its matches, its best photos."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from dedup_job.cli import main
from dedup_job.commands.photo_query import PhotoModel, cosine_of
from dedup_job.io.manifests import RunManifest, describe_table, point_latest, write_manifest
from dedup_job.io.search_index import INDEX_FOLDER, SearchIndex
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.kernels.bundle import read_manifest
from dedup_job.kernels.calibration import read_calibration, read_score_calibration
from dedup_job.kernels.verifier_model import load_verifier
from dedup_job.stages.verification import VerifyPairs
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    IMAGE_EMBEDDINGS,
    PAIRS_TO_VERIFY,
)
from tests.photos import draw_photo, encode
from tests.unit.warehouses import image
from tests.verifying_bundles import verifying_bundle

FLOOR_COSINE, MIN_SCORE = 0.82, 0.75


def shifted(photo, red, green, blue):
    """The photo in another colour."""
    return np.clip(photo + np.array([red, green, blue]), 0, 255).astype(np.uint8)


def stamped(photo):
    """The photo with a black square: of a lower cosine than a brighter photo, and of a higher score."""
    changed = photo.copy()
    changed[100:160, 60:120] = 0
    return changed


def draw_shop():
    """SKU -> its photos as files."""
    shirt, bag, shoe = (draw_photo(seed, 240, 320) for seed in (0, 1, 2))
    return {
        "shirt": [encode(shirt)],
        "shirt again": [encode(shirt, quality=60)],
        "red shirt": [encode(shifted(shirt, 25, -15, 10))],
        "stamped": [encode(shifted(shirt, 20, 20, 20)), encode(stamped(shirt))],
        "same file": [encode(shirt)],
        "bag": [encode(bag), encode(shirt, quality=75)],
        "shoe": [encode(shoe), encode(shifted(shirt, 25, -15, 10), quality=70)],
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield verifying_bundle(tmp_path_factory.mktemp("model"), patch)


class Shop:
    """A published warehouse of drawn photos, in files beside it."""

    def __init__(self, folder, bundle, verifies=True):
        self.folder, self.bundle, self.uri = folder, bundle, str(folder / "warehouse")
        self.manifest = read_manifest(bundle)
        model, warehouse = PhotoModel(str(bundle)), Folder(self.uri)
        self.photos = {
            sku: [model.see(data) for data in files] for sku, files in draw_shop().items()
        }
        rows = []
        for sku, files in draw_shop().items():
            for i, data in enumerate(files):
                uri = folder / f"{sku} {i}.jpg"
                uri.write_bytes(data)
                sha = self.photos[sku][i].content_sha256
                rows.append(image(sku, i, content_sha256=sha, image_uri=str(uri), position=i))
        stored = {
            photo.content_sha256: {
                "content_sha256": photo.content_sha256,
                "embedding": photo.embedding.tolist(),
                "picture": photo.shown.picture if verifies else None,
            }
            for photos in self.photos.values()
            for photo in photos
        }
        store = warehouse.child(IMAGE_EMBEDDINGS.name, f"model_id={self.manifest.model_id}")
        write_rows(list(stored.values()), IMAGE_EMBEDDINGS, store)
        tables = {CATALOG_IMAGES: rows, DUPLICATE_GROUPS: [], DUPLICATE_PAIRS: []}
        entries = {
            table.name: describe_table(
                write_rows(some, table, warehouse.child(table.name)), warehouse
            )
            for table, some in tables.items()
        }
        verifier = self.manifest.verifier_id if verifies else None
        facts = {
            "model_id": self.manifest.model_id,
            "min_cosine": FLOOR_COSINE if verifies else 0.97,
            "min_score": MIN_SCORE if verifies else 0.97,
            "search": {"verifier": verifier},
        }
        config = {"catalog.path": {"value": str(folder / "catalog.csv")}}
        run = RunManifest("r1", "2026-11-23", "published", "s", "f", "0", config, facts, entries)
        write_manifest(warehouse, run)
        point_latest(warehouse, run)

    def likeness_of_the_job(self, sku_a, sku_b):
        """(cosine, score) of the best photo pair of two SKUs, by the job's own worker and rules."""
        found = []
        for a in self.photos[sku_a]:
            for b in self.photos[sku_b]:
                if a.content_sha256 == b.content_sha256:
                    return 1.0, 1.0
                if cosine_of(a, b) >= FLOOR_COSINE:
                    found.append((self._verify(a, b), cosine_of(a, b)))
        score, cosine = max(found, default=(None, None))
        return cosine, score

    def _verify(self, a, b):
        a, b = sorted((a, b), key=lambda photo: photo.content_sha256)
        row = {
            "sha_a": a.content_sha256,
            "sha_b": b.content_sha256,
            "cosine": cosine_of(a, b),
            "picture_a": a.shown.picture,
            "picture_b": b.shown.picture,
        }
        batch = pa.RecordBatch.from_pylist([row], PAIRS_TO_VERIFY.arrow)
        [verified] = VerifyPairs(partial(load_verifier, self.bundle))(iter([batch]))
        return verified.to_pylist()[0]["score"]

    def ask(self, capsys, *arguments, bundle=None):
        code = main([*arguments, "--model", str(bundle or self.bundle)])
        said = capsys.readouterr()
        return code, said.out, said.err

    def find(self, capsys, photo, *arguments):
        code, out, err = self.ask(
            capsys, "find", str(self.folder / photo), "--warehouse", self.uri, *arguments
        )
        assert code == 0, err
        return out


@pytest.fixture(scope="module")
def shop(tmp_path_factory, bundle):
    return Shop(tmp_path_factory.mktemp("shop"), bundle)


def test_find_gives_the_scores_of_the_job_and_orders_by_them(shop, capsys):
    out = shop.find(capsys, "shirt 0.jpg", "--json")
    found = {one["sku_id"]: one for one in json.loads(out)["found"]}
    assert set(found) == set(shop.photos)
    for sku in set(found) - {"shirt"}:
        cosine, score = shop.likeness_of_the_job("shirt", sku)
        assert found[sku]["score"] == pytest.approx(score, abs=1e-6)
        assert found[sku]["cosine"] == pytest.approx(cosine, abs=1e-5)
        assert found[sku]["is_match"] == (score >= MIN_SCORE)
    scores = [one["score"] for one in found.values()]
    assert scores == sorted(scores, reverse=True)
    matches = {sku for sku, one in found.items() if one["is_match"]}
    # Not the colourway, though its cosine is far above the floor.
    assert matches == {"shirt", "shirt again", "same file", "bag", "stamped"}
    assert found["red shirt"]["cosine"] > FLOOR_COSINE
    assert (found["same file"]["score"], found["same file"]["match_probability"]) == (1.0, 1.0)
    calibration = read_score_calibration(shop.bundle)
    [expected] = calibration.match_probability([found["red shirt"]["score"]])
    assert found["red shirt"]["match_probability"] == pytest.approx(expected)


def test_below_the_floor_there_is_no_score_and_no_match(shop, capsys):
    red_bag = shifted(draw_photo(1, 240, 320), 40, -20, -30)
    (shop.folder / "new.jpg").write_bytes(encode(red_bag))
    out = shop.find(capsys, "new.jpg", "--json")
    found = json.loads(out)["found"]
    below = [one for one in found if one["cosine"] < FLOOR_COSINE]
    assert below and all(one["score"] is None and not one["is_match"] for one in below)
    assert found[: -len(below)] and all(one["score"] is not None for one in found[: -len(below)])
    [expected] = read_calibration(shop.bundle).match_probability([below[0]["cosine"]])
    assert below[0]["match_probability"] == pytest.approx(expected)
    text = shop.find(capsys, "new.jpg").splitlines()
    assert text[0] == "not in the catalog: nothing reaches the threshold, score 0.750"
    assert text[1].split()[:3] == ["cosine", "score", "probability"]
    assert text[-1].split()[1] == "-" and text[2].split()[1] != "-"


def test_only_the_most_alike_are_verified(shop, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(SearchIndex, "pictures", lambda _, hits: asked.extend(hits) or {})
    shop.find(capsys, "shirt 0.jpg", "--top", "1")
    cosines = [cosine_of(shop.photos["shirt"][0], b) for of in shop.photos.values() for b in of]
    expected = sorted(set(np.round(cosines, 5)), reverse=True)[:5]
    assert [hit.cosine for hit in asked] == pytest.approx(expected, abs=1e-4)


def test_an_index_of_an_earlier_version_is_built_anew(shop, capsys):
    index = Folder(shop.uri).child(INDEX_FOLDER)
    index.create()
    for name in index.file_names():
        index.delete_file(name)
    index.replace_bytes("r1.parquet", b"as an earlier version wrote it")
    shop.find(capsys, "shirt 0.jpg")
    assert index.file_names() == ["r1.v2.parquet"]


def test_a_run_that_verified_nothing_is_asked_by_cosine(tmp_path, bundle, capsys):
    shop = Shop(tmp_path, bundle, verifies=False)
    found = json.loads(shop.find(capsys, "shirt 0.jpg", "--json"))["found"]
    assert all(one["score"] == one["cosine"] for one in found)
    assert [one["is_match"] for one in found] == [one["cosine"] >= 0.97 for one in found]
    assert "(threshold: cosine 0.970)" in shop.find(capsys, "shirt 0.jpg")
    code, out, err = shop.ask(capsys, "explain", "shirt", "red shirt", "--warehouse", shop.uri)
    assert code == 0, err
    assert "cosine 0.970" in out and "score" not in out


def test_another_verifier_is_refused(shop, tmp_path_factory, monkeypatch, capsys):
    other = verifying_bundle(tmp_path_factory.mktemp("other"), monkeypatch, name="trained anew")
    assert read_manifest(other).model_id == shop.manifest.model_id
    for command in (["find", str(shop.folder / "shirt 0.jpg")], ["explain", "shirt", "bag"]):
        code, _, err = shop.ask(capsys, *command, "--warehouse", shop.uri, bundle=other)
        assert code == 2 and len(err.splitlines()) == 1
        assert "verified pairs with verifier" in err and "--model BUNDLE" in err


def test_explain_takes_the_best_photos_by_score(shop, capsys):
    [shirt], (brighter, stamped) = shop.photos["shirt"], shop.photos["stamped"]
    assert cosine_of(shirt, brighter) > cosine_of(shirt, stamped)
    assert shop.likeness_of_the_job("shirt", "stamped")[0] == cosine_of(shirt, stamped)
    others = [sku for sku in shop.photos if sku != "shirt"]
    for sku_a, sku_b in [*(("shirt", sku) for sku in others), ("bag", "shoe")]:
        code, out, err = shop.ask(capsys, "explain", sku_a, sku_b, "--warehouse", shop.uri)
        assert code == 0, err
        cosine, score = shop.likeness_of_the_job(sku_a, sku_b)
        told = next(line for line in out.splitlines() if "best photos now" in line)
        if score is None:
            assert "not verified: below cosine 0.820" in told
        else:
            assert f"score {score:.4f}, cosine {cosine:.4f}, probability" in told
        assert "  threshold          score 0.750" in out


def test_compare_tells_cosine_score_and_probability(shop, capsys):
    photos = [str(shop.folder / name) for name in ("shirt 0.jpg", "red shirt 0.jpg")]
    cosine, score = shop.likeness_of_the_job("shirt", "red shirt")
    [probability] = read_score_calibration(shop.bundle).match_probability([score])
    _, out, _ = shop.ask(capsys, "compare", *photos, "--json")
    told = json.loads(out)
    assert told["cosine"] == pytest.approx(cosine) and told["score"] == pytest.approx(score)
    assert told["match_probability"] == pytest.approx(probability)
    _, out, _ = shop.ask(capsys, "compare", *photos)
    assert out.splitlines()[1] == f"  cosine {cosine:.4f}, score {score:.4f}"
    _, swapped, _ = shop.ask(capsys, "compare", *reversed(photos))
    assert swapped == out
