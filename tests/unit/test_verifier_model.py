"""Bundles with a pair verifier: what names them, what is refused, what they answer."""

import json
import os
import shutil

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from dedup_job.errors import ModelContractError
from dedup_job.kernels.bundle import (
    MANIFEST,
    SCORE_CALIBRATION,
    VERIFIER,
    compute_model_id,
    read_manifest,
    write_manifest,
)
from dedup_job.kernels.calibration import (
    calibration_id_of,
    read_calibration,
    read_score_calibration,
)
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.verifier import describe
from dedup_job.kernels.verifier_model import load_verifier
from tests.bundles_with_verifier import (
    DEFAULT,
    RULE,
    difference_network,
    edit_manifest,
    write_bundle,
    write_plain_bundle,
)
from tests.photos import draw_photo


@pytest.fixture(scope="module")
def network():
    return difference_network(128)


@pytest.fixture(scope="module")
def sound(network, tmp_path_factory):
    """Not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("sound") / "bundle", network)


@pytest.fixture
def copy(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "bundle")


def refused(bundle):
    """The one line that `load_verifier` refuses a bundle with."""
    with pytest.raises(ModelContractError) as error:
        load_verifier(bundle)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewritten(bundle, **facts):
    old = read_manifest(DEFAULT)
    return write_manifest(
        bundle, dim=old.dim, input_px=old.input_px, blur_sigma_px=old.blur_sigma_px, facts=facts
    )


def test_a_bundle_without_a_verifier_verifies_nothing(tmp_path):
    plain = write_plain_bundle(tmp_path / "plain")
    assert read_manifest(plain).verifier_id is None
    assert load_verifier(plain) is None


def test_a_bundle_with_a_verifier_loads_and_answers_by_the_difference(sound):
    load_embedder(sound)
    verifier = load_verifier(sound)
    a, b = (describe(draw_photo(seed, 128, 128)) for seed in (1, 2))
    faded = describe((a.pixels.astype(int) * 9 // 10).astype(np.uint8))
    answers = [verifier.answer(a, other) for other in (a, faded, b)]
    assert answers[0] > 10 and answers == sorted(answers, reverse=True) and answers[2] < 0
    assert verifier.answer(b, a) == pytest.approx(answers[2], abs=0.5)
    scores = verifier.score(answers, [1.0, 0.9, 0.2])
    assert 0.9 < scores[0] <= 1 and scores[2] < 0.1 and list(scores) == sorted(scores)[::-1]


def test_a_verifier_changes_the_model_and_its_rule_only_the_verifier(
    sound, copy, network, tmp_path
):
    plain, one = read_manifest(write_plain_bundle(tmp_path / "plain")), read_manifest(sound)
    assert one.has_verifier and one.model_id != plain.model_id
    sha = one.files["embedder.tflite"]["sha256"]
    ids = [
        compute_model_id(sha, one.input_px, one.blur_sigma_px, with_verifier=verifies)
        for verifies in (False, True)
    ]
    assert ids == [compute_model_id(sha, one.input_px, one.blur_sigma_px), one.model_id]
    assert ids[0] != ids[1]
    facts = one.raw["verifier"]
    other_rule = rewritten(copy, verifier=facts | {"rule": RULE | {"bias": 0.5}})
    other_bytes = (copy / VERIFIER).write_bytes(network + b"\0") and rewritten(copy, verifier=facts)
    again = (copy / VERIFIER).write_bytes(network) and rewritten(copy, verifier=facts)
    assert {m.model_id for m in (other_rule, other_bytes, again)} == {one.model_id}
    assert again.verifier_id == one.verifier_id
    assert len({one.verifier_id, other_rule.verifier_id, other_bytes.verifier_id}) == 3
    assert all(len(m.verifier_id) == 64 for m in (one, other_rule, other_bytes))


def test_a_verifier_without_its_calibration_is_refused(copy):
    files = json.loads((copy / MANIFEST).read_text())["files"]
    edit_manifest(copy, files={n: f for n, f in files.items() if n != SCORE_CALIBRATION})
    assert f"lists {VERIFIER} without {SCORE_CALIBRATION}" in refused(copy)
    with pytest.raises(ModelContractError, match="model-training verifier"):
        read_manifest(copy)


def test_a_model_id_of_a_bundle_without_verifier_is_refused(copy, tmp_path):
    plain = read_manifest(write_plain_bundle(tmp_path / "plain"))
    edit_manifest(copy, model_id=plain.model_id)
    assert "model_id does not match" in refused(copy)


@pytest.mark.parametrize("name", [VERIFIER, SCORE_CALIBRATION])
def test_an_altered_or_missing_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (copy / name).write_bytes(data)
    assert f"{name} was altered" in refused(copy)
    (copy / name).unlink()
    assert f"file {name} is missing" in refused(copy)


def test_the_score_calibration_must_be_of_this_model(copy):
    manifest = read_manifest(copy)
    assert read_score_calibration(copy, manifest.model_id).model_id == manifest.model_id
    scores, cosines = read_score_calibration(copy), read_calibration(copy)
    assert scores.calibration_id != cosines.calibration_id
    with pytest.raises(ModelContractError, match=f"{SCORE_CALIBRATION} belongs to model"):
        read_score_calibration(copy, "0" * 64)
    old = json.loads((copy / SCORE_CALIBRATION).read_text())
    del old["unrelated"]["apart"]
    old["calibration_id"] = calibration_id_of(old)
    (copy / SCORE_CALIBRATION).write_text(json.dumps(old))
    with pytest.raises(
        ModelContractError, match=r"unrelated\.apart is missing; run `model-training calibrate`"
    ):
        read_score_calibration(copy)
    (copy / SCORE_CALIBRATION).write_text("{")
    with pytest.raises(ModelContractError, match=f"{SCORE_CALIBRATION} is damaged"):
        read_score_calibration(copy)
    (copy / SCORE_CALIBRATION).unlink()
    with pytest.raises(ModelContractError, match=f"has no {SCORE_CALIBRATION}"):
        read_score_calibration(copy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: None,
        lambda facts: "no facts",
        lambda facts: {"rule": facts["rule"]},
        lambda facts: {"golden_answers": facts["golden_answers"]},
        lambda facts: facts | {"rule": {"bias": 0.0, "answer_weight": 1.0}},
        lambda facts: facts | {"rule": RULE | {"bias": "much"}},
        lambda facts: facts | {"rule": RULE | {"bias": None}},
        lambda facts: facts | {"golden_answers": ["a"]},
        lambda facts: facts | {"golden_answers": [[1.0], [1.0, 2.0]]},
        lambda facts: facts | {"golden_answers": {"a": 1}},
        lambda facts: facts | {"floor_cosine": None},
        lambda facts: {k: v for k, v in facts.items() if k != "floor_cosine"},
    ],
)
def test_damaged_facts_of_a_verifier_are_refused(copy, damage):
    rewritten(copy, verifier=damage(read_manifest(copy).raw["verifier"]))
    assert f"{MANIFEST} does not describe its verifier" in refused(copy)


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_a_floor_that_no_cosine_has_is_refused(copy, floor):
    facts = read_manifest(copy).raw["verifier"]
    rewritten(copy, verifier=facts | {"floor_cosine": floor})
    assert "the verifier's floor_cosine is" in refused(copy)


def test_a_manifest_without_facts_of_its_verifier_is_refused(copy):
    rewritten(copy)
    assert f"{MANIFEST} does not describe its verifier ('verifier')" in refused(copy)


@pytest.mark.parametrize(
    "rule",
    [
        {"answer_weight": -0.1},
        {"cosine_weight": -1.0},
        {"bias": float("nan")},
        {"answer_weight": float("inf")},
    ],
    ids=str,
)
def test_weights_that_would_turn_scores_round_are_refused(copy, rule):
    facts = read_manifest(copy).raw["verifier"]
    rewritten(copy, verifier=facts | {"rule": RULE | rule})
    assert "the verifier's weights are" in refused(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda answers: [answers[0] + 1.5, *answers[1:]],
        lambda answers: answers[:-1],
        lambda answers: [],
        lambda answers: [float("nan"), *answers[1:]],
    ],
    ids=["another answer", "one too few", "none", "not a number"],
)
def test_wrong_golden_answers_are_refused(copy, change):
    facts = read_manifest(copy).raw["verifier"]
    answers = change(facts["golden_answers"])
    rewritten(copy, verifier=facts | {"golden_answers": answers})
    assert "on its golden pairs, expected" in refused(copy)


def test_other_roundings_are_no_damage(copy):
    facts = read_manifest(copy).raw["verifier"]
    answers = [answer + 0.9 for answer in facts["golden_answers"]]
    rewritten(copy, verifier=facts | {"golden_answers": answers})
    assert load_verifier(copy) is not None


def test_a_verifier_that_is_no_network_is_refused(copy):
    facts = read_manifest(copy).raw["verifier"]
    (copy / VERIFIER).write_bytes(os.urandom(2_000))
    rewritten(copy, verifier=facts)
    assert f"{VERIFIER} cannot be loaded" in refused(copy)


def test_a_verifier_of_another_input_is_refused(copy):
    """The embedder in its place: it takes three channels."""
    facts = read_manifest(copy).raw["verifier"]
    shutil.copy(copy / "embedder.tflite", copy / VERIFIER)
    rewritten(copy, verifier=facts)
    assert "the verifier cannot run its golden pairs" in refused(copy)
