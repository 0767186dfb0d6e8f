import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dedup_job.errors import ModelContractError
from dedup_job.kernels.calibration import (
    calibration_id_of,
    parse_calibration,
    read_calibration,
)
from tests.unit.synthetic_calibration import HARD, RATE, SCALE, TRUE, U, raw_calibration

CALIBRATION = parse_calibration(raw_calibration())
COSINES = np.linspace(-1, 1, 4001)


@pytest.mark.parametrize(
    "survival",
    [
        CALIBRATION.true_survival,
        CALIBRATION.hard_negative_survival,
        CALIBRATION.unrelated_survival,
        lambda t: CALIBRATION.unrelated_survival_interval(t)[0],
        lambda t: CALIBRATION.unrelated_survival_interval(t)[1],
    ],
)
def test_survivals_fall_within_zero_and_one(survival):
    values = survival(COSINES)
    assert (np.diff(values) <= 1e-12).all()
    assert values[0] > 0.99
    assert values[-1] >= 0


def test_match_probability_rises_and_interpolates():
    values = CALIBRATION.match_probability(COSINES)
    assert (np.diff(values) >= 0).all()
    assert values[-1] == 0.99
    assert CALIBRATION.match_probability(0.65) == pytest.approx((0.01 + 0.6) / 2)


# scipy itself is wrong for shapes near 0 (5e-324 overflows); 0 is the exponential.
@given(st.floats(0.46, 0.99), st.floats(-0.5, 0.5).map(lambda shape: round(shape, 6)))
def test_the_tail_is_the_generalised_pareto_of_scipy(cosine, shape):
    raw = raw_calibration()
    raw["unrelated"]["tail"]["shape"] = shape
    raw["calibration_id"] = calibration_id_of(raw)
    expected = RATE * stats.genpareto.sf(cosine - U, shape, scale=SCALE)
    got = parse_calibration(raw).unrelated_survival(cosine)
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_curves_give_back_the_distributions_they_were_made_from():
    cosines = np.linspace(0.5, 0.99, 50)
    np.testing.assert_allclose(CALIBRATION.true_survival(cosines), TRUE.sf(cosines), atol=1e-4)
    np.testing.assert_allclose(
        CALIBRATION.hard_negative_survival(cosines), HARD.sf(cosines), atol=1e-4
    )


def test_the_interval_encloses_the_estimate_and_stays_up_beyond_its_scores():
    low, high = CALIBRATION.unrelated_survival_interval(COSINES)
    point = CALIBRATION.unrelated_survival(COSINES)
    assert ((low <= point) & (point <= high)).all()
    assert high[-1] == pytest.approx(CALIBRATION.unrelated_survival_interval(0.99)[1], rel=1e-6)


def test_an_interval_that_ends_in_zero_stays_wide_until_there():
    raw = raw_calibration()
    interval = raw["unrelated"]["tail"]["interval"]
    interval.update(scores=[U, 0.8, 1.0], low=[1e-3, 0.0, 0.0], high=[1e-3, 1e-4, 0.0])
    raw["calibration_id"] = calibration_id_of(raw)
    _, high = parse_calibration(raw).unrelated_survival_interval([0.625, 0.9])
    assert high == pytest.approx([10**-3.5, 10**-5.5])


def change(path, value):
    def edit(raw):
        *parents, last = path
        target = raw
        for key in parents:
            target = target[key]
        target[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(["format"], 2), "format 2"),
        (change(["true_pairs", "n_pairs"], 0), "true_pairs.n_pairs"),
        (change(["true_pairs", "survival"], [0.5]), "one length"),
        (change(["hard_negatives"], {"scores": [0, 1], "survival": [0, 1], "n_pairs": 3}), "fall"),
        (change(["match_probability", "probabilities"], [0, 0.5, 0.4, 1]), "rise"),
        (change(["match_probability", "scores"], [0, 0.5, 0.5, 1]), "rise strictly"),
        (change(["match_probability", "scores"], [0, 0.5, float("nan"), 1]), "rise strictly"),
        (change(["match_probability", "prior"], float("nan")), "prior"),
        (change(["match_probability"], []), "list"),
        (change(["unrelated", "tail"], {}), "'interval' is missing"),
        (change(["unrelated", "tail", "scale"], 0), "scale"),
        (change(["unrelated", "tail", "exceed_rate"], 1.5), "exceed_rate"),
    ],
)
def test_a_contradictory_calibration_is_refused_with_its_field(edit, message):
    raw = raw_calibration()
    edit(raw)
    raw["calibration_id"] = calibration_id_of(raw)
    with pytest.raises(ModelContractError, match=message) as error:
        parse_calibration(raw)
    assert "\n" not in str(error.value)


def test_an_altered_calibration_is_refused():
    raw = raw_calibration()
    raw["true_pairs"]["n_pairs"] += 1
    with pytest.raises(ModelContractError, match="altered"):
        parse_calibration(raw)


def test_reading_from_a_bundle(tmp_path):
    raw = raw_calibration()
    with pytest.raises(ModelContractError, match=r"has no calibration\.json"):
        read_calibration(tmp_path)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(raw, indent=2))
    assert read_calibration(tmp_path, raw["model_id"]).calibration_id == raw["calibration_id"]
    with pytest.raises(ModelContractError, match="belongs to model"):
        read_calibration(tmp_path, "x" * 64)
    path.write_text(json.dumps(raw)[:-9])
    with pytest.raises(ModelContractError, match="damaged"):
        read_calibration(tmp_path)
