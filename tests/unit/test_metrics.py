import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.kernels import metrics

# Few distinct scores, so that ties are the rule and not the exception.
pairs = st.lists(
    st.tuples(st.integers(-3, 3).map(lambda x: x / 3), st.booleans()), min_size=1, max_size=30
).filter(lambda rows: any(label for _, label in rows))
items = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.one_of(st.none(), st.integers(0, 2))),
    min_size=1,
    max_size=14,
)


def slow_points(rows):
    n_true = sum(label for _, label in rows)
    for threshold in sorted({score for score, _ in rows}, reverse=True):
        taken = [label for score, label in rows if score >= threshold]
        yield sum(taken) / len(taken), sum(taken) / n_true


@given(pairs)
def test_pair_metrics_equal_loops(rows):
    scores, labels = zip(*rows, strict=True)
    area, previous, f1 = 0.0, 0.0, 0.0
    for precision, recall in slow_points(rows):
        area += (recall - previous) * precision
        previous = recall
        f1 = max(f1, 2 * precision * recall / (precision + recall) if recall else 0.0)
    assert metrics.uap(scores, labels) == pytest.approx(area, abs=1e-6)
    assert metrics.best_f1(scores, labels) == pytest.approx(f1, abs=1e-6)
    for target in (0.5, 0.95, 0.99):
        best = max((r for p, r in slow_points(rows) if p >= target), default=0.0)
        assert metrics.recall_at_precision(scores, labels, target) == pytest.approx(best, abs=1e-6)


@given(pairs.filter(lambda rows: not all(label for _, label in rows)))
def test_auc_equals_loops(rows):
    true = [score for score, label in rows if label]
    other = [score for score, label in rows if not label]
    wins = [(a > b) + 0.5 * (a == b) for a in true for b in other]
    expected = sum(wins) / len(wins)
    assert metrics.roc_auc(*zip(*rows, strict=True)) == pytest.approx(expected, abs=1e-6)
    assert metrics.hard_negative_auc(true, other) == pytest.approx(expected, abs=1e-6)


@given(items)
def test_grouping_metrics_equal_loops(rows):
    groups, products, looks = zip(*rows, strict=True)
    pairs_of = list(itertools.combinations(range(len(rows)), 2))
    same = {p for p in pairs_of if products[p[0]] == products[p[1]]}
    joined = {p for p in pairs_of if groups[p[0]] == groups[p[1]]}
    hard = {
        (a, b) for a, b in set(pairs_of) - same if looks[a] is not None and looks[a] == looks[b]
    }
    precision, recall = (
        len(same & joined) / max(len(joined), 1),
        len(same & joined) / max(len(same), 1),
    )
    found = metrics.grouping_metrics(groups, products, looks)
    assert found.pair_precision == pytest.approx(precision, abs=1e-6)
    assert found.pair_recall == pytest.approx(recall, abs=1e-6)
    assert found.hard_merged == len(joined & hard)
    assert found.hard_negative_pairs == len(hard)
    assert found.largest_group == max(groups.count(g) for g in groups)
    assert found.groups_of_two_or_more == sum(groups.count(g) > 1 for g in set(groups))
    mine = [
        sum(groups[i] == groups[j] and products[i] == products[j] for j in range(len(rows)))
        for i in range(len(rows))
    ]
    bp = np.mean([m / groups.count(g) for m, g in zip(mine, groups, strict=True)])
    br = np.mean([m / products.count(p) for m, p in zip(mine, products, strict=True)])
    assert found.bcubed_precision == pytest.approx(bp, abs=1e-6)
    assert found.bcubed_recall == pytest.approx(br, abs=1e-6)
    assert found.bcubed_f1 == pytest.approx(2 * bp * br / (bp + br), abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_recall_at_k_equals_loops(seed, k):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(12, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.r_[rng.integers(0, 5, size=10), 7, 7]
    found = []
    for i in range(12):
        if (labels == labels[i]).sum() > 1:
            others = sorted(
                (j for j in range(12) if j != i), key=lambda j: -(vectors[i] @ vectors[j])
            )
            found.append(any(labels[j] == labels[i] for j in others[:k]))
    assert metrics.recall_at_k(vectors, labels, k) == pytest.approx(np.mean(found))


def test_order_of_tied_pairs_does_not_matter():
    assert metrics.uap([0.5, 0.5], [1, 0]) == metrics.uap([0.5, 0.5], [0, 1]) == 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.uap([0.1, 0.2], [0, 0]),
        lambda: metrics.uap([np.nan, 0.2], [0, 1]),
        lambda: metrics.uap([0.1], [0, 1]),
        lambda: metrics.roc_auc([0.1], [1]),
        lambda: metrics.recall_at_k(np.eye(2), [0, 1], 1),
        lambda: metrics.recall_at_k(np.eye(2), [0, 0], 0),
        lambda: metrics.bcubed([], []),
    ],
)
def test_undefined_figures_are_errors(call):
    with pytest.raises(ValueError):
        call()
