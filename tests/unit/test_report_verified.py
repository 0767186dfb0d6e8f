"""What `evaluate` says of a bundle that verifies pairs: scores against cosines, and what was seen again."""

import contextlib
import io
import itertools
import json

import numpy as np
import pytest

from dedup_job.kernels.metrics import recall_at_precision, uap
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.pictures import pack_picture, unpack_picture
from model_training import report, report_photos
from model_training.bundling import network_of
from model_training.cli import main
from model_training.data import Photo, PhotoSet
from model_training.evaluate import build_validation, pair_labels
from tests.unit.test_report import SECTIONS, Page, write_photos
from tests.verifying_bundles import (
    grey_answer,
    grey_score,
    look_in_this_process,
    verifying_bundle,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page, the JSON, the bundle and its photos."""
    folder = tmp_path_factory.mktemp("report")
    photos = write_photos(folder / "photos", 12)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_photos, "_N_PHOTOS", 1)
        patch.setattr(report, "attention", lambda *_: [])  # TensorFlow, and nothing of pairs
        look_in_this_process(patch)
        bundle = verifying_bundle(folder, patch)
        with contextlib.redirect_stdout(out):
            assert main(["evaluate", "--bundle", str(bundle), "--photos", str(photos), "--html",
                         str(folder / "r.html"), "--cache-dir", str(folder / "cache")]) == 0  # fmt: skip
        yield (
            Page((folder / "r.html").read_text("utf-8")),
            json.loads(out.getvalue()),
            bundle,
            photos,
        )


def test_figures_by_score_are_those_of_scores_by_hand(made):
    _, figures, bundle, photos = made
    embedder = load_embedder(bundle)
    listed = [
        Photo(path, "folder", *[path.name] * 3, held_out=True) for path in sorted(photos.iterdir())
    ]
    held_out = PhotoSet(listed, [], [], np.ones(len(listed), bool))
    views = build_validation(held_out, network_of(embedder.manifest))
    a, b, same, _ = pair_labels(views)
    vectors = embedder.embed(views.views)
    seen = [unpack_picture(pack_picture(view)) for view in views.views]
    cosines = np.einsum("pd,pd->p", vectors[a], vectors[b])
    scores = [
        grey_score(grey_answer(seen[i], seen[j]), cosine) if cosine >= 0.6 else 0.0
        for i, j, cosine in zip(a, b, cosines, strict=True)
    ]
    verified = figures["verified"]
    got = verified["trained_kinds"]["all"]
    assert got["uap"] == pytest.approx(uap(scores, same), abs=1e-4)
    assert got["recall_at_p95"] == pytest.approx(recall_at_precision(scores, same, 0.95), abs=0.03)
    assert verified["floor_cosine"] == 0.6
    assert verified["n_verified"]["trained_kinds"] == pytest.approx((cosines >= 0.6).sum(), abs=1)
    # What is said of cosines stays.
    assert figures["trained_kinds"]["all"]["uap"] == pytest.approx(uap(cosines, same), abs=1e-4)


def test_the_json_has_all_of_both(made):
    verified = made[1]["verified"]
    assert verified.keys() == {
        "floor_cosine", "n_verified", "trained_kinds", "unseen_kinds", "calibration"
    }  # fmt: skip
    for name in ("trained_kinds", "unseen_kinds"):
        by_cosine, by_score = made[1][name], verified[name]
        assert by_score.keys() == by_cosine.keys() and by_score["all"]["intervals"]
        assert by_score["by_look_alike"].keys() == by_cosine["by_look_alike"].keys()
        assert by_score["all"].keys() < by_cosine["all"].keys()
        lost = by_cosine["all"].keys() - by_score["all"].keys()
        assert lost == {"recall_at_1", "recall_at_5", "recall_at_10"}
        assert by_score["all"]["n_duplicate_pairs"] == by_cosine["all"]["n_duplicate_pairs"]
    n_pairs = sum(point["n"] for point in verified["calibration"]["bins"])
    assert n_pairs == sum(point["n"] for point in made[1]["calibration"]["bins"])
    assert verified["calibration"]["error"] != made[1]["calibration"]["error"]


def test_the_page_sets_score_beside_cosine(made):
    page, figures = made[0], made[1]
    assert list(page.images) == [
        name
        for name in itertools.chain(
            *((n, "verified") if n == "reliability" else (n,) for n in SECTIONS)
        )
        if name not in ("gates", "erasure")
    ]
    assert len(page.images["verified"]) == 3
    text = " ".join(page.text)
    assert "Pairs seen again" in text
    for by in (figures, figures["verified"]):
        for name in ("trained_kinds", "unseen_kinds"):
            every = by[name]["all"]
            low, high = every["intervals"]["uap"]
            assert f"{every['uap']:.4f}" in text and f"{low:.4f} to {high:.4f}" in text


def test_pairs_to_look_at_are_ranked_by_score(made):
    text = made[0].text
    captions = [line for line in text if line.startswith("score ")]
    assert captions and all(" (cosine " in line for line in captions)
    assert any("with the highest score" in line for line in text)
    assert any("with the lowest score" in line for line in text)
    start = next(i for i, line in enumerate(text) if "with the highest score" in line)
    end = next(i for i, line in enumerate(text) if "The same without look-alikes" in line)
    scores = [float(x.split()[1]) for x in text[start:end] if x.startswith("score ")]
    assert len(scores) == 20 and scores == sorted(scores, reverse=True)
