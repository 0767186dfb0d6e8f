"""The calibration against oracles, and its tail against a known distribution."""

import numpy as np
import pytest

from dedup_job.errors import GateError, ModelContractError
from dedup_job.kernels.calibration import parse_calibration
from model_training.calibrate import (
    ParetoTail,
    calibrate,
    calibrate_scores,
    fit_tail,
    nearest_look_alikes,
    pool_adjacent_violators,
)
from model_training.evaluate import ValidationSet, pair_labels, rank_pairs


def isotonic_by_minimax(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Barlow et al. 1972: the largest, over starts, of the smallest weighted mean over ends."""
    n = len(value)
    mean = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i, n):
            mean[i, j] = np.average(value[i : j + 1], weights=weight[i : j + 1])
    return np.array(
        [max(min(mean[i, j] for j in range(k, n)) for i in range(k + 1)) for k in range(n)]
    )


@pytest.mark.parametrize("seed", range(6))
def test_isotonic_regression_equals_the_minimax_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value, weight = rng.random(12), rng.uniform(0.5, 3, 12)
    got = pool_adjacent_violators(value, weight)
    assert np.allclose(got, isotonic_by_minimax(value, weight))


@pytest.mark.parametrize(("shape", "scale"), [(-0.2, 0.1), (0.0, 0.03), (0.2, 0.02)])
def test_the_tail_of_a_known_distribution_is_found(shape: float, scale: float) -> None:
    uniform = np.random.default_rng(3).random(20_000)
    drawn = -np.log(uniform) if shape == 0 else (uniform**-shape - 1) / shape
    tail = fit_tail(drawn * scale, np.ones(20_000), threshold=0.6, rate=0.01)
    scores = 0.6 + scale * np.array([0.5, 1, 2, 3])
    expected = ParetoTail(0.6, 0.01, shape, scale).survival(scores)
    assert np.allclose(tail.survival(scores), expected, rtol=0.12)


def test_the_tail_never_ends_below_cosine_one() -> None:
    excess = np.random.default_rng(0).uniform(0, 0.1, 500)  # a hard end at .9 in the sample
    tail = fit_tail(excess, np.ones(500), threshold=0.8, rate=0.01)
    assert tail.survival(np.array([0.95]))[0] > 0


def draw_held_out(n_products: int = 60) -> tuple[np.ndarray, ValidationSet]:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(n_products, 16))
    rows, labels = [], []
    for i in range(n_products):
        for view, kind in enumerate(["original", "crop", "NEG:recolour"]):
            other = kind.startswith("NEG")
            rows.append(centre[i] + rng.normal(size=16) * (0.6 if other else 0.1 * view))
            name = f"p{i}" + ("#other" if other else "")
            labels.append((name, name, f"p{i}", kind, "shop" if i % 2 else "home"))
    vectors = np.array(rows, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pixels = np.zeros((len(rows), 1, 1, 3), np.uint8)
    return vectors, ValidationSet(pixels, *(np.array(c) for c in zip(*labels, strict=True)))


def test_a_calibration_is_what_the_job_reads() -> None:
    vectors, held_out = draw_held_out()
    content = calibrate(vectors, held_out, "f" * 64)
    read = parse_calibration(content)
    _, _, same, hard = pair_labels(held_out)
    assert read.n_true == same.sum() == 60
    # Each product and its look-alike count once, by their unedited photos; the crops do not.
    assert hard.sum() == 120
    assert read.n_hard_negatives == 60
    assert read.n_unrelated == content["unrelated"]["n_view_pairs"] // 4
    assert read.match_probability(0.999) > read.match_probability(0.3)
    assert read.true_survival(0.9) > read.hard_negative_survival(0.9)
    tail = content["unrelated"]["tail"]
    interval = tail["interval"]
    at = len(interval["scores"]) // 3
    point = float(read.unrelated_survival(interval["scores"][at]))
    assert interval["low"][at] < point < interval["high"][at]
    before, after = read.unrelated_survival(
        [read.tail.threshold - 1e-4, read.tail.threshold + 1e-4]
    )
    assert after == pytest.approx(before, rel=0.35)


def test_scores_know_how_many_near_strangers_they_hold_apart() -> None:
    vectors, held_out = draw_held_out(120)
    a, b, same, hard = pair_labels(held_out)
    cosine = (vectors @ vectors.T)[a, b].astype(np.float64)
    rng = np.random.default_rng(1)
    # The nearer, the more often taken for a match.
    score = np.where(rng.random(len(cosine)) < np.clip(cosine, 0, 1) ** 3, 0.9 + 0.1 * cosine, 0.2)
    content = calibrate_scores(score, cosine, held_out, "f" * 64)
    read = parse_calibration(content)
    tail = content["unrelated"]["tail"]["threshold"]
    for at in (0.2, 0.4):
        shares = []
        for source in ("home", "shop"):
            own = (held_out.source[a] == source) & (held_out.source[b] == source) & ~same & ~hard
            own &= ~np.char.startswith(held_out.kind[a], "NEG") & ~np.char.startswith(
                held_out.kind[b], "NEG"
            )
            near = cosine[own] >= at
            shares.append(((near & (score[own] < tail)).mean(), near.mean()))
        apart, near_share = np.sum(shares, axis=0)
        assert float(read.apart_share(at)) == pytest.approx(apart / near_share, abs=0.02)
    assert read.apart_share(0.99) <= read.apart_share(0.2)


def test_every_product_counts_by_all_views_of_its_nearest_look_alike() -> None:
    vectors, held_out = draw_held_out(12)
    # A second colourway of p0, nearer to it than the self-made look-alike is, in an unedited and an edited view.
    near = vectors[[0, 1]] + 0.01
    vectors = np.concatenate([vectors, near / np.linalg.norm(near, axis=1, keepdims=True)])
    columns = {
        "identity": ["p0-red"] * 2,
        "product": ["p0-red"] * 2,
        "family": ["p0"] * 2,
        "kind": ["original", "crop"],
        "source": ["home"] * 2,
    }
    added = {name: np.append(getattr(held_out, name), values) for name, values in columns.items()}
    held_out = ValidationSet(np.zeros((len(vectors), 1, 1, 3), np.uint8), **added)
    a, b, _, hard = pair_labels(held_out)
    rows, weight = nearest_look_alikes((vectors @ vectors.T)[a, b], a, b, hard, held_out)
    found: dict[tuple[str, str], float] = {}
    for row, w in zip(rows, weight, strict=True):
        ends = sorted((str(held_out.product[a[row]]), str(held_out.product[b[row]])))
        found[ends[0], ends[1]] = found.get((ends[0], ends[1]), 0.0) + w
    # 25 products: of each of eleven, it and its look-alike are each other's nearest; p0 and its red
    # colourway are, and p0's self-made look-alike is nearest to one of the two.
    assert weight.sum() == pytest.approx(1.0)
    for i in range(1, 12):
        assert found[f"p{i}", f"p{i}#other"] == pytest.approx(2 / 25)
    assert found["p0", "p0-red"] == pytest.approx(2 / 25)
    assert sum(w for pair, w in found.items() if "p0#other" in pair) == pytest.approx(1 / 25)
    of_p0 = [w for row, w in zip(rows, weight, strict=True)
             if {str(held_out.product[a[row]]), str(held_out.product[b[row]])} == {"p0", "p0-red"}]  # fmt: skip
    assert of_p0 == pytest.approx([2 / 25 / 4] * 4)


def test_a_calibration_of_cosines_says_nothing_of_scores() -> None:
    vectors, held_out = draw_held_out(20)
    with pytest.raises(ModelContractError, match="has no scores"):
        parse_calibration(calibrate(vectors, held_out, "m")).apart_share(0.5)


def test_a_calibration_repeats() -> None:
    vectors, held_out = draw_held_out(20)
    first = calibrate(vectors, held_out, "a" * 64)
    assert first["calibration_id"] == calibrate(vectors, held_out, "a" * 64)["calibration_id"]
    assert first["calibration_id"] != calibrate(vectors, held_out, "b" * 64)["calibration_id"]


def test_a_perfect_ranking() -> None:
    same, hard = np.array([True, True, False, False]), np.array([False, False, True, False])
    figures = rank_pairs(np.array([0.9, 0.8, 0.2, 0.1]), same, hard)
    assert set(figures.values()) == {1.0}


def test_a_collapsed_network_is_explained() -> None:
    vectors, held_out = draw_held_out()
    vectors[:] = vectors[0]
    with pytest.raises(GateError, match="tells nothing apart"):
        calibrate(vectors, held_out, "m")
