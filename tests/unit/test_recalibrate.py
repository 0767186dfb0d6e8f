"""`model-training calibrate`: both calibrations measured anew, everything else of the bundle kept."""

import json

import numpy as np
import pytest

from dedup_job.errors import GateError
from dedup_job.kernels.bundle import CALIBRATION, SCORE_CALIBRATION, read_manifest
from dedup_job.kernels.calibration import read_calibration, read_score_calibration
from dedup_job.kernels.verifier_model import load_verifier
from model_training import bundling
from tests.bundles_with_verifier import write_plain_bundle
from tests.photos_for_training import held_out_garments
from tests.verifying_bundles import look_in_this_process, verifying_bundle


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return held_out_garments(tmp_path_factory.mktemp("held_out"))


def test_scores_are_calibrated_as_cosines_are(held_out, tmp_path, monkeypatch):
    look_in_this_process(monkeypatch)
    bundle = verifying_bundle(tmp_path, monkeypatch)
    before = read_manifest(bundle)
    bundling.recalibrate_bundle(bundle, held_out)
    after = read_manifest(bundle)
    changed = {name for name in after.files if after.files[name] != before.files[name]}
    assert changed == {CALIBRATION, SCORE_CALIBRATION}
    assert after.raw["verifier"] == before.raw["verifier"]
    assert after.verifier_id == before.verifier_id and load_verifier(bundle) is not None
    of_cosines = read_calibration(bundle, after.model_id)
    of_scores = read_score_calibration(bundle, after.model_id)
    assert of_cosines.n_true == of_scores.n_true == 12 * (3 + 1)
    # Nothing lies below score 0, much below cosine 0 or between them and one.
    shares = [c.true_survival(np.array([0.0, 1.0])).tolist() for c in (of_cosines, of_scores)]
    assert shares[0][0] == shares[1][0] == 1.0
    assert of_scores.calibration_id != of_cosines.calibration_id


def test_without_a_verifier_there_are_cosines_only(held_out, tmp_path):
    bundle = write_plain_bundle(tmp_path / "bundle")
    before = read_manifest(bundle)
    bundling.recalibrate_bundle(bundle, held_out)
    after = read_manifest(bundle)
    assert {n for n in after.files if after.files[n] != before.files[n]} == {CALIBRATION}
    assert after.raw["training"] == before.raw["training"]


def test_what_cannot_be_measured_leaves_the_bundle_as_it_was(held_out, tmp_path, monkeypatch):
    look_in_this_process(monkeypatch)
    bundle = verifying_bundle(tmp_path, monkeypatch)
    before = json.loads((bundle / CALIBRATION).read_text())

    def refuse(*_):
        raise GateError("the network tells nothing apart")

    monkeypatch.setattr(bundling, "calibrate_scores", refuse)
    with pytest.raises(GateError, match="tells nothing apart"):
        bundling.recalibrate_bundle(bundle, held_out)
    assert json.loads((bundle / CALIBRATION).read_text()) == before
    assert load_verifier(bundle) is not None
