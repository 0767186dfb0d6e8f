"""The gate between a candidate and the champion's place."""

import numpy as np
import pytest

from dedup_job.errors import GateError
from dedup_job.kernels.bundle import CALIBRATION, MANIFEST
from dedup_job.kernels.metrics import uap
from model_training import verified_figures
from model_training.promote import (
    Comparison,
    RankedPairs,
    check_promotion,
    compare_bundles,
    promote,
)
from model_training.registry import Registry
from tests.broken_bundles import DEFAULT, copy_bundle, rehash
from tests.bundles_with_verifier import write_plain_bundle
from tests.photos_for_training import held_out_garments
from tests.verifying_bundles import look_in_this_process, verifying_bundle


def comparison(difference: float, low: float, candidate: str = "new") -> Comparison:
    return Comparison("old", candidate, 0.8, 0.8 + difference, difference, low, 0.1, 50, 100, 900)


def test_weights_count_as_repetitions_would():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(2, 40))
        score = rng.integers(0, 6, n) / 5  # many ties
        same = rng.random(n) < 0.4
        same[0] = True
        weight = rng.integers(0, 4, n)
        weight[0] = 1
        expected = uap(np.repeat(score, weight), np.repeat(same, weight))
        assert RankedPairs(score, same).uap(weight.astype(float)) == pytest.approx(expected)


def test_without_a_duplicate_pair_drawn_the_figure_is_zero():
    assert RankedPairs(np.array([0.5, 0.4]), np.array([True, False])).uap(np.array([0.0, 1])) == 0.0


@pytest.mark.parametrize(
    ("difference", "low", "candidate", "said"),
    [
        (-0.001, -0.01, "new", "the candidate is worse"),
        (0.01, -0.03, "new", "too few held-out products"),
        (0.0, 0.0, "old", "is the champion"),
    ],
)
def test_what_is_refused(difference, low, candidate, said):
    with pytest.raises(GateError, match=f"not promoted: .*{said}"):
        check_promotion(comparison(difference, low, candidate), margin=0.02)


def test_what_is_no_worse_is_let_through():
    check_promotion(comparison(0.0, -0.02), margin=0.02)
    check_promotion(comparison(0.05, 0.01), margin=0.0)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Twelve held-out garments."""
    return held_out_garments(tmp_path_factory.mktemp("held_out"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A bundle without a verifier."""
    return write_plain_bundle(tmp_path_factory.mktemp("plain") / "bundle")


@pytest.fixture
def grey(monkeypatch, plain):
    """Makes one bundle embed everything without colour, as a bad training might."""
    from model_training import promote as module

    real = module.load_embedder

    class Grey:
        def __init__(self, embedder):
            self._embedder = embedder
            self.manifest = embedder.manifest

        def embed(self, photos):
            grey = photos.mean(axis=3, keepdims=True).astype(np.uint8)
            return self._embedder.embed(np.repeat(grey, 3, axis=3))

    monkeypatch.setattr(
        module, "load_embedder", lambda b: Grey(real(plain)) if b.name == "grey" else real(b)
    )
    monkeypatch.setattr(verified_figures, "load_verifier", lambda bundle: None)


def test_one_model_differs_from_itself_by_nothing(held_out, plain):
    found = compare_bundles(plain, plain, held_out)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    # 12 photos: the photo, two edits and a look-alike with an edit of it
    assert found.n_products == 12 and found.n_duplicate_pairs == 12 * (3 + 1)
    assert 0.5 < found.champion_uap == found.candidate_uap <= 1


def test_each_is_judged_by_what_its_job_acts_on(held_out, plain, tmp_path, monkeypatch):
    look_in_this_process(monkeypatch)
    verifying = verifying_bundle(tmp_path, monkeypatch)
    found = compare_bundles(plain, verifying, held_out)
    by = found.as_dict()
    assert (by["champion_by"], by["candidate_by"]) == ("cosine", "score")
    assert "(by cosine) -> " in found.line() and "(by score), difference" in found.line()
    assert found.champion_uap == compare_bundles(plain, plain, held_out).champion_uap
    assert found.champion_uap != found.candidate_uap
    back = compare_bundles(verifying, plain, held_out)
    assert (back.difference, back.champion_uap) == (-found.difference, found.candidate_uap)
    assert back.low < back.difference < back.high
    assert (back.champion_verifier, back.candidate_verifier) == (found.candidate_verifier, None)


def test_another_verifier_of_one_model_is_another_candidate(held_out, tmp_path, monkeypatch):
    look_in_this_process(monkeypatch)
    (tmp_path / "other").mkdir()
    first = verifying_bundle(tmp_path, monkeypatch)
    other = verifying_bundle(tmp_path / "other", monkeypatch, name="trained anew")
    found = compare_bundles(first, other, held_out)
    assert found.champion == found.candidate and found.difference == 0
    assert (found.as_dict()["champion_by"], found.as_dict()["candidate_by"]) == ("score", "score")
    check_promotion(found, margin=0.02)
    with pytest.raises(GateError, match="is the champion"):
        check_promotion(compare_bundles(first, first, held_out), margin=0.02)


def test_a_colour_blind_candidate_is_worse_and_changes_nothing(held_out, tmp_path, plain, grey):
    registry = Registry(tmp_path / "registry")
    (tmp_path / "grey").mkdir()
    (tmp_path / "grey" / MANIFEST).write_text("{}")
    champion = registry.open(plain)
    found = compare_bundles(champion, tmp_path / "grey", held_out)
    assert found.difference < -0.05 and found.low < found.difference < found.high
    with pytest.raises(GateError, match="not promoted"):
        promote(registry, champion, tmp_path / "grey", held_out, margin=0.02)
    assert registry.champion == champion and registry.versions() == [champion.name]


def test_a_champion_that_changed_meanwhile_is_not_replaced(held_out, tmp_path, monkeypatch):
    registry = Registry(tmp_path / "registry")
    champion, other = registry.open(), registry.add(another(tmp_path))
    registry.point_at(other, {})
    better = comparison(0.1, 0.05)
    monkeypatch.setattr("model_training.promote.compare_bundles", lambda *_: better)
    with pytest.raises(GateError, match="the champion changed meanwhile"):
        promote(registry, champion, DEFAULT, held_out, margin=0.02)
    assert registry.champion.name == other


def another(folder):
    bundle = copy_bundle(folder)
    (bundle / CALIBRATION).write_text((bundle / CALIBRATION).read_text() + "\n")
    rehash(bundle)
    return bundle
