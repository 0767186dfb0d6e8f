from fractions import Fraction
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.kernels.grouping import Edges, connected_components, group_nodes

RULES = ("components", "star", "average")
THRESHOLD, FLOOR = 0.75, 0.625


@st.composite
def graphs(draw, max_nodes=12):
    """(n, {(a, b): score}, cannot-link pairs, traits); few distinct scores, so ties are common."""
    n = draw(st.integers(1, max_nodes))
    every = list(combinations(range(n), 2))
    picked = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    scores = {pair: draw(st.sampled_from([0.75, 0.8125, 0.875, 1.0])) for pair in picked}
    apart = draw(st.lists(st.sampled_from(every), unique=True, max_size=4)) if every else []
    n_traits = draw(st.integers(0, 2))
    rows = st.lists(st.integers(-1, 2), min_size=n_traits, max_size=n_traits)
    traits = draw(st.lists(rows, min_size=n, max_size=n))
    return n, scores, apart, np.array(traits, np.int32).reshape(n, n_traits)


def as_edges(scores):
    ends = np.array(list(scores), dtype=np.int64).reshape(-1, 2)
    return Edges(ends[:, 0], ends[:, 1], np.array(list(scores.values()), dtype=np.float32))


def group(n, scores, rule, apart=(), traits=None):
    return group_nodes(
        n,
        as_edges(scores),
        chaining=rule,
        threshold=THRESHOLD,
        floor=FLOOR,
        cannot_link=np.array(list(apart)).reshape(-1, 2),
        traits=traits,
    )


def differing(traits):
    """All pairs of nodes that differ in a known trait, by a loop."""
    return [
        (a, b)
        for a, b in combinations(range(len(traits)), 2)
        if any(-1 not in (x, y) and x != y for x, y in zip(traits[a], traits[b], strict=True))
    ]


def sets_of(labels):
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@given(graphs())
def test_components_equal_networkx(graph):
    n, scores, _, _ = graph
    reference = nx.Graph(list(scores))
    reference.add_nodes_from(range(n))
    expected = {frozenset(nodes) for nodes in nx.connected_components(reference)}
    assert sets_of(group(n, scores, "components")) == expected
    ends = as_edges(scores)
    assert sets_of(connected_components(n, ends.left, ends.right)) == expected


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs())
def test_groups_refine_components_and_hold_together(rule, graph):
    n, scores, apart, traits = graph
    labels = group(n, scores, rule, apart, traits)
    whole = group(n, scores, "components")
    reference = nx.Graph(list(scores))
    reference.add_nodes_from(range(n))
    for nodes in sets_of(labels):
        assert {labels[node] for node in nodes} == {min(nodes)}
        assert len({whole[node] for node in nodes}) == 1
        assert nx.is_connected(reference.subgraph(nodes))


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs())
def test_a_forbidden_pair_never_meets(rule, graph):
    n, scores, apart, traits = graph
    labels = group(n, scores, rule, apart, traits)
    assert all(labels[a] != labels[b] for a, b in apart)


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs())
def test_known_traits_that_differ_never_meet(rule, graph):
    n, scores, apart, traits = graph
    labels = group(n, scores, rule, apart, traits)
    for nodes in sets_of(labels):
        for codes in traits[sorted(nodes)].T:
            assert len(set(codes.tolist()) - {-1}) <= 1


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs())
def test_traits_equal_every_differing_pair_forbidden(rule, graph):
    n, scores, apart, traits = graph
    expected = group(n, scores, rule, sorted({*apart, *differing(traits)}))
    assert group(n, scores, rule, apart, traits).tolist() == expected.tolist()


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs(), code=st.sampled_from([-1, 0, 7]))
def test_traits_that_do_not_differ_change_nothing(rule, graph, code):
    n, scores, apart, traits = graph
    expected = group(n, scores, rule, apart)
    same = np.where(traits < 0, traits, code)
    assert group(n, scores, rule, apart, same).tolist() == expected.tolist()
    assert group(n, scores, rule, apart, np.full_like(traits, -1)).tolist() == expected.tolist()


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs(), seed=st.integers(0, 2**32 - 1))
def test_order_and_direction_of_edges_do_not_matter(rule, graph, seed):
    n, scores, apart, traits = graph
    rng = np.random.default_rng(seed)
    shuffled = {}
    for index in rng.permutation(len(scores)):
        pair = list(scores)[index]
        shuffled[pair if rng.random() < 0.5 else pair[::-1]] = scores[pair]
    turned = [pair[::-1] for pair in apart[::-1]]
    expected = group(n, scores, rule, apart, traits)
    recoded = np.where(traits < 0, -1, 2 - traits)
    assert group(n, shuffled, rule, turned, recoded).tolist() == expected.tolist()


@pytest.mark.parametrize("rule", RULES)
@given(graph=graphs(), n_before=st.integers(0, 5))
def test_strangers_do_not_matter(rule, graph, n_before):
    """Other products in the catalog shift the numbers, not the groups."""
    n, scores, apart, traits = graph
    moved = {(a + n_before, b + n_before): score for (a, b), score in scores.items()}
    moved_apart = [(a + n_before, b + n_before) for a, b in apart]
    moved_traits = np.pad(traits, ((n_before, 0), (0, 0)))
    labels = group(n + n_before, moved, rule, moved_apart, moved_traits)
    assert labels[:n_before].tolist() == list(range(n_before))
    expected = group(n, scores, rule, apart, traits)
    assert (labels[n_before:] - n_before).tolist() == expected.tolist()


def slow_average_linkage(n, scores, apart):
    """Every pair of clusters, every step, in exact fractions."""
    known = {frozenset(p): Fraction(s) for p, s in scores.items() if p not in set(apart)}
    never = {frozenset(pair) for pair in apart}
    clusters = [[node] for node in range(n)]
    while True:
        offers = []
        for one, other in combinations(sorted(clusters), 2):
            across = [frozenset((a, b)) for a in one for b in other]
            average = sum(known.get(p, Fraction(FLOOR)) for p in across) / len(across)
            if average >= Fraction(THRESHOLD) and never.isdisjoint(across):
                offers.append((-average, one, other))
        if not offers:
            return {frozenset(cluster) for cluster in clusters}
        _, one, other = min(offers)
        clusters = [c for c in clusters if c not in (one, other)] + [sorted(one + other)]


@given(graphs(max_nodes=9))
def test_average_linkage_equals_a_slow_dense_oracle(graph):
    n, scores, apart, traits = graph
    expected = slow_average_linkage(n, scores, [*apart, *differing(traits)])
    assert sets_of(group(n, scores, "average", apart, traits)) == expected


def test_a_chain_is_cut_where_the_rules_say():
    chain = {(0, 1): 1.0, (1, 2): 0.8125, (2, 3): 1.0}
    assert group(4, chain, "components").tolist() == [0, 0, 0, 0]
    assert group(4, chain, "average").tolist() == [0, 0, 2, 2]
    assert group(4, chain, "star").tolist() == [0, 0, 0, 3]


def test_a_forbidden_pair_splits_a_chain_at_its_weakest_edge():
    chain = {(0, 1): 1.0, (1, 2): 0.8125, (2, 3): 1.0}
    assert group(4, chain, "components", [(0, 3)]).tolist() == [0, 0, 2, 2]


def test_a_star_leaves_out_the_weaker_of_two_that_may_not_meet():
    star = {(0, 1): 0.8, (0, 2): 0.9, (0, 3): 1.0}
    assert group(4, star, "star", [(1, 2)]).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("rule", RULES)
def test_a_large_sparse_component(rule):
    """A tree of 20,000 nodes with a hub of 10,000: dense storage would take gigabytes."""
    n = 20_000
    scores = {(0, node): 0.9 for node in range(1, n // 2)}
    scores |= {(node - n // 2 + 1, node): 0.95 for node in range(n // 2, n)}
    labels = group(n, scores, rule)
    largest = np.bincount(labels).max()
    assert largest == {"components": n, "star": n // 2, "average": 3}[rule]


@pytest.mark.parametrize("rule", RULES)
def test_red_and_blue_do_not_meet_through_unknown(rule):
    """red - unknown - unknown - blue: the weakest link goes."""
    red, blue, unknown = [0], [1], [-1]
    chain = {(0, 1): 1.0, (1, 2): 1.0, (2, 3): 0.8125}
    traits = np.array([red, unknown, unknown, blue])
    assert group(4, chain, rule, (), traits).tolist() == [0, 0, 0, 3]


@pytest.mark.parametrize("rule", RULES)
def test_a_hub_between_two_colours(rule):
    """10,000 red and 10,000 blue leaves: as pairs that may not meet, a hundred million."""
    n = 20_001
    traits = np.arange(n).reshape(-1, 1) % 2
    traits[0] = -1
    labels = group(n, {(0, node): 0.9 for node in range(1, n)}, rule, (), traits)
    sizes = np.bincount(labels)
    assert sizes.max() == {"components": 10_001, "star": 10_001, "average": 3}[rule]
    in_hub = np.flatnonzero(labels == labels[0])[1:]
    assert set(traits[in_hub, 0].tolist()) == {1}


@pytest.mark.parametrize("rule", RULES)
def test_a_clique_with_a_tail(rule):
    clique = {pair: 0.9 for pair in combinations(range(300), 2)}
    labels = group(302, clique | {(299, 300): 0.76, (300, 301): 1.0}, rule)
    assert (labels[:299] == 0).all()
    assert (labels[300] == 0) == (rule != "average")


def test_nothing_to_group():
    assert group(0, {}, "average").tolist() == []
    assert group(2, {}, "average").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("n", "scores", "threshold", "floor"),
    [
        (2, {(0, 2): 0.9}, 0.75, 0.6),
        (2, {(-1, 0): 0.9}, 0.75, 0.6),
        (2, {(1, 1): 0.9}, 0.75, 0.6),
        (2, {(0, 1): 0.7}, 0.75, 0.6),
        (2, {(0, 1): np.nan}, 0.75, 0.6),
        (2, {(0, 1): 0.9, (1, 0): 0.9}, 0.75, 0.6),
        (2, {(0, 1): 0.9}, 0.75, 0.75),
    ],
)
def test_edges_that_break_the_contract_are_refused(n, scores, threshold, floor):
    with pytest.raises(ValueError):
        group_nodes(n, as_edges(scores), chaining="average", threshold=threshold, floor=floor)


def test_traits_of_other_nodes_are_refused():
    with pytest.raises(ValueError, match="a row for each of 2 nodes; got 3"):
        group(2, {(0, 1): 0.9}, "average", (), np.zeros((3, 1), int))
