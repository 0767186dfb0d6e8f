"""Figures of an evaluation against oracles that count pair by pair."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from dedup_job.kernels.calibration import read_calibration
from dedup_job.kernels.metrics import hard_negative_auc, recall_at_precision, roc_auc, uap
from model_training.evaluate import ValidationSet
from model_training.figures import (
    Scored,
    by_look_alike,
    intervals,
    look_alike_kinds,
    measure,
    operating_point,
    reliability,
    score,
)
from model_training.resampling import RankedPairs, draw_products, interval, weigh_pairs
from tests.broken_bundles import DEFAULT

KINDS = ("original", "crop", "badge+pad", "NEG:trim", "NEG:trim+crop")


def draw_scored(seed: int, n_products: int = 14) -> Scored:
    """Two photos of different products a family, five views each, on a coarse grid: many ties."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(n_products, 4))
    rows, labels = [], []
    for i in range(n_products):
        for kind in KINDS:
            made = kind.startswith("NEG")
            rows.append(np.round(centre[i] * 2 + rng.normal(size=4) * 0.7 + made))
            name = f"p{i}" + (f"#other{i}" if made else "")
            labels.append((name, name, f"f{i // 2}", kind, "shop" if i % 4 else "home"))
    vectors = np.array(rows, np.float32) + np.float32(0.25)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = [np.array(column) for column in zip(*labels, strict=True)]
    return score(vectors, ValidationSet(np.zeros((len(rows), 1, 1, 3), np.uint8), *columns))


def pairs_by_hand(scored: Scored) -> list[tuple[float, bool, bool, str]]:
    """Cosine, same, hard, kind of every pair, with no array in sight."""
    v, found = scored.views, []
    for i, j in itertools.combinations(range(len(v.identity)), 2):
        same = v.identity[i] == v.identity[j]
        hard = not same and v.family[i] == v.family[j]
        made = [str(v.kind[r]).split("+")[0][4:] for r in (i, j) if v.kind[r].startswith("NEG:")]
        kind = ["other colour", f"made: {made[0]}" if made else "", "both made"][len(made)]
        cosine = float((scored.vectors @ scored.vectors.T)[i, j])
        found.append((cosine, same, hard, kind if hard else ""))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_operating_point_is_the_best_of_all_thresholds(seed):
    scored = draw_scored(seed, n_products=7)
    pairs = pairs_by_hand(scored)
    for precision in (0.5, 0.95, 0.99):
        best = (0.0, 0, 0)
        for at in sorted({p[0] for p in pairs}):
            n_true = sum(c >= at and same for c, same, *_ in pairs)
            n_false = sum(c >= at and not same for c, same, *_ in pairs)
            if n_true / (n_true + n_false) >= precision:
                best = max(best, (n_true / scored.same.sum(), n_true, n_false))
        got = operating_point(scored, precision)
        assert (got.recall, got.n_true, got.n_false) == pytest.approx(best)
        if got.threshold is not None:
            assert (scored.value >= got.threshold).sum() == got.n_true + got.n_false


def test_no_threshold_where_the_highest_pair_is_false():
    scored = draw_scored(0)
    worst = Scored(**{**vars(scored), "value": np.where(scored.same, 0.1, 0.2)})
    got = operating_point(worst, 0.95)
    assert (got.threshold, got.recall, got.n_true, got.n_false) == (None, 0.0, 0, 0)
    assert all(figures["merged"] == 0 for figures in by_look_alike(worst).values())


def test_look_alikes_are_sorted_by_what_they_are():
    scored = draw_scored(1)
    pairs = pairs_by_hand(scored)
    assert list(look_alike_kinds(scored)) == [kind for *_, kind in pairs]
    at = operating_point(scored, 0.95).threshold
    for kind, figures in by_look_alike(scored).items():
        cosines = [c for c, _, _, k in pairs if k == kind]
        duplicates = [c for c, same, *_ in pairs if same]
        wins = [(d > c) + (d == c) / 2 for d in duplicates for c in cosines]
        assert figures["n"] == len(cosines) and figures["auc"] == pytest.approx(np.mean(wins))
        merged = 0.0 if at is None else np.mean([c >= at for c in cosines])
        assert figures["merged"] == pytest.approx(merged)
    assert set(by_look_alike(scored)) == {"other colour", "made: trim", "both made"}


def test_neighbours_counts_and_names_that_others_read():
    scored = draw_scored(2)
    found = measure(scored)
    assert {"uap", "recall_at_p95", "recall_at_p99", "hard_auc"} < found["all"].keys()
    assert found.keys() == {"all", "home", "shop", "by_kind", "by_look_alike"}
    cosine = scored.vectors @ scored.vectors.T
    np.fill_diagonal(cosine, -2)
    identity = scored.views.identity
    for k in (1, 5, 10):
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        hits = [identity[i] in identity[row] for i, row in enumerate(nearest)]
        assert found["all"][f"recall_at_{k}"] == pytest.approx(np.mean(hits))
    every = found["all"]
    n_pairs = sum(every[f"n_{kind}_pairs"] for kind in ("duplicate", "look_alike", "unrelated"))
    assert n_pairs == len(scored.a) == 70 * 69 // 2


def test_a_source_is_what_it_is_alone():
    scored = draw_scored(4)
    by_source = scored.by_source()
    assert by_source.keys() == {"home", "shop"}
    for name, one in by_source.items():
        rows = np.flatnonzero(scored.views.source == name)
        alone = score(scored.vectors[rows], scored.views.take(rows))
        for column in ("a", "b", "same", "hard"):
            assert np.array_equal(getattr(one, column), getattr(alone, column))
        assert np.allclose(one.value, alone.value, atol=1e-6)
        assert one.views.identity.tolist() == alone.views.identity.tolist()
    assert by_source["home"].by_source() == {}


def test_figures_by_score_are_of_the_scores_and_say_nothing_of_neighbours():
    by_cosine = draw_scored(6, n_products=24)
    values = np.random.default_rng(1).integers(0, 40, len(by_cosine.a)) / 80 + by_cosine.same / 4
    scored = replace(by_cosine, value=values, quantity="score")
    found = measure(scored)
    for name, one in (("all", scored), *scored.by_source().items()):
        assert found[name]["uap"] == uap(one.value, one.same) != measure(by_cosine)[name]["uap"]
        assert not any(key.startswith("recall_at_1") for key in found[name])
    every = found["all"]
    assert every["intervals"].keys() == {
        "uap", "roc_auc", "hard_auc", "recall_at_p95", "recall_at_p99"
    }  # fmt: skip
    found_at = values >= every["threshold_at_p95"]
    assert every["false_pairs_at_p95"] == (found_at & ~scored.same).sum()
    value_of = dict(zip(zip(scored.a, scored.b, strict=True), values, strict=True))
    crops = [value_of[i, i + 1] for i in range(0, 120, 5)]  # beside its original, see KINDS
    assert found["by_kind"]["crop"] == {
        "recall": np.mean(np.array(crops) >= every["threshold_at_p95"]), "n": 24
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_weighed_figures_are_those_of_repeated_pairs(seed):
    rng = np.random.default_rng(seed)
    n = 40
    points, same = rng.integers(0, 7, n) / 6, rng.random(n) < 0.4
    hard = ~same & (rng.random(n) < 0.5)
    weight = rng.integers(0, 4, n)
    weight[[np.argmax(same), np.argmax(hard)]] = 1
    got = RankedPairs(points, same, hard).figures(weight.astype(float))
    s, d, h = (np.repeat(column, weight) for column in (points, same, hard))
    expected = {
        "uap": uap(s, d), "roc_auc": roc_auc(s, d), "hard_auc": hard_negative_auc(s[d], s[h]),
        "recall_at_p95": recall_at_precision(s, d, 0.95),
        "recall_at_p99": recall_at_precision(s, d, 0.99),
    }  # fmt: skip
    assert got == pytest.approx(expected)


def test_an_auc_of_no_look_alike_is_not_a_number():
    got = RankedPairs(np.array([0.2, 0.1]), np.array([True, False])).figures(np.ones(2))
    assert got["roc_auc"] == 1 and np.isnan(got["hard_auc"])
    assert np.isnan(interval(np.array([np.nan, np.nan]))).all()
    assert interval(np.array([np.nan, 3.0])) == (3.0, 3.0)


def test_pairs_are_drawn_as_their_products_are():
    a, b = np.array([0, 0, 1]), np.array([0, 1, 2])
    for count in draw_products(3, 5):
        assert count.sum() == 3
        expected = [count[0], count[0] * count[1], count[1] * count[2]]
        assert list(weigh_pairs(count, a, b)) == expected


def test_intervals_hold_the_figure_and_need_ten_families():
    scored = draw_scored(3, n_products=20)
    limits = intervals(scored)
    names = {"uap", "roc_auc", "hard_auc", "recall_at_p95", "recall_at_p99",
             "recall_at_1", "recall_at_5", "recall_at_10"}  # fmt: skip
    assert limits.keys() == names
    for name, (low, high) in limits.items():
        assert 0 <= low <= high <= 1, name
    assert limits["uap"][0] < uap(scored.value, scored.same) < limits["uap"][1]
    assert intervals(draw_scored(3, n_products=18)) == {}


def test_reliability_counts_pairs_by_what_was_promised():
    scored = draw_scored(5, n_products=30)
    calibration = read_calibration(DEFAULT)
    found = reliability(scored, calibration)
    promised = [float(calibration.match_probability(c)) for c in scored.value]
    error = 0.0
    seen = 0
    for number in range(10):
        members = [i for i, p in enumerate(promised) if min(int(p * 10), 9) == number]
        if not members:
            continue
        got = found["bins"][seen]
        seen += 1
        mean = np.mean([promised[i] for i in members])
        share = np.mean([scored.same[i] for i in members])
        assert (got["promised"], got["found"], got["n"]) == pytest.approx(
            (mean, share, len(members))
        )
        assert got["low"] <= got["high"]
        error += abs(mean - share) * len(members) / len(promised)
    assert seen == len(found["bins"]) and found["error"] == pytest.approx(error)
    brier = np.mean([(p - s) ** 2 for p, s in zip(promised, scored.same, strict=True)])
    assert found["brier"] == pytest.approx(brier)
