"""What must hold for every graph: names do not matter, grouping twice is grouping once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_grouping import RULES, THRESHOLD, graphs, group, sets_of


def without_ties(scores, seed):
    """Other scores for the same edges, no two alike, nor their sums in practice."""
    drawn = np.random.default_rng(seed).uniform(THRESHOLD, 1, len(scores))
    return dict(zip(scores, drawn.tolist(), strict=True))


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs(), seed=st.integers(0, 2**32 - 1))
def test_names_of_nodes_do_not_matter_where_scores_decide(rule, graph, seed):
    n, scores, apart, traits = graph
    scores = without_ties(scores, seed)
    renamed = np.random.default_rng(seed).permutation(n)
    moved = {(int(renamed[a]), int(renamed[b])): score for (a, b), score in scores.items()}
    moved_apart = [(int(renamed[a]), int(renamed[b])) for a, b in apart]
    moved_traits = np.empty_like(traits)
    moved_traits[renamed] = traits
    expected = {
        frozenset(renamed[sorted(nodes)].tolist())
        for nodes in sets_of(group(n, scores, rule, apart, traits))
    }
    assert sets_of(group(n, moved, rule, moved_apart, moved_traits)) == expected


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs())
def test_grouping_the_groups_again_changes_nothing(rule, graph):
    n, scores, apart, traits = graph
    labels = group(n, scores, rule, apart, traits)
    inside = {(a, b): score for (a, b), score in scores.items() if labels[a] == labels[b]}
    assert group(n, inside, rule, apart, traits).tolist() == labels.tolist()


@given(graph=graphs(), data=st.data())
def test_a_lost_edge_splits_components_and_never_merges_any(graph, data):
    n, scores, _, _ = graph
    kept = data.draw(st.lists(st.sampled_from(sorted(scores)), unique=True)) if scores else []
    whole = group(n, scores, "components")
    fewer = group(n, {pair: scores[pair] for pair in kept}, "components")
    for nodes in sets_of(fewer):
        assert len({whole[node] for node in nodes}) == 1
    # and the lost edges, put back between the pieces, give the whole again
    lost = {pair: scores[pair] for pair in scores if pair not in kept}
    between = {tuple(sorted((fewer[a], fewer[b]))): s for (a, b), s in lost.items()}
    between = {(int(a), int(b)): s for (a, b), s in between.items() if a != b}
    assert group(n, between, "components")[fewer].tolist() == whole.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_components_of_a_large_random_graph_equal_a_walk_along_its_edges(seed):
    rng = np.random.default_rng(seed)
    n = 3_000
    ends = np.unique(np.sort(rng.integers(0, n, (n // 2 + 200 * seed, 2)), axis=1), axis=0)
    pairs = [(int(a), int(b)) for a, b in ends if a != b]
    near = {node: [] for node in range(n)}
    for a, b in pairs:
        near[a].append(b)
        near[b].append(a)
    expected = np.full(n, -1)
    for start in range(n):
        if expected[start] < 0:
            expected[start], walk = start, [start]
            for node in walk:
                fresh = [other for other in near[node] if expected[other] < 0]
                expected[fresh] = start
                walk.extend(dict.fromkeys(fresh))
    labels = group(n, dict.fromkeys(pairs, 0.9), "components")
    assert labels.tolist() == expected.tolist()
    assert 2 < np.bincount(labels).max() < n
