"""Pairs that must be one group, under every chaining rule, against joining them by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.kernels.grouping import MUST_LINK, Edges, group_nodes

RULES = ["components", "star", "average"]
THRESHOLD, FLOOR = 0.875, 0.84375


@st.composite
def graphs(draw, max_nodes=9):
    """(nodes, edges by pair, pairs that must link, pairs that may not, a colour for each node or -1)."""
    n = draw(st.integers(2, max_nodes))
    pairs = list(combinations(range(n), 2))
    some = st.sets(st.sampled_from(pairs), max_size=2 * n)
    alike, must = draw(some), draw(some)
    apart = draw(some) - must
    scores = st.floats(THRESHOLD, 1.0, width=32)
    edges = {pair: draw(scores) for pair in sorted(alike)} | dict.fromkeys(must, MUST_LINK)
    colours = draw(st.lists(st.integers(-1, 1), min_size=n, max_size=n))
    return n, edges, sorted(must), sorted(apart), colours


def grouped(n, edges, apart, colours, chaining):
    ends = np.array(sorted(edges), int).reshape(-1, 2)
    return group_nodes(
        n,
        Edges(ends[:, 0], ends[:, 1], np.array([edges[tuple(pair)] for pair in ends.tolist()])),
        chaining=chaining,
        threshold=THRESHOLD,
        floor=FLOOR,
        cannot_link=np.array(apart, int).reshape(-1, 2),
        traits=np.array(colours, np.int32)[:, None],
    ).tolist()


def may_meet(nodes, apart, colours):
    known = {colours[node] for node in nodes} - {-1}
    return len(known) < 2 and not any(a in nodes and b in nodes for a, b in apart)


def joined_by_hand(n, must, apart, colours):
    """The set of each node: pair by pair in order, where the union is allowed."""
    home = {node: frozenset([node]) for node in range(n)}
    for a, b in must:
        union = home[a] | home[b]
        if may_meet(union, apart, colours):
            home |= dict.fromkeys(union, union)
    return home


@pytest.mark.parametrize("chaining", RULES)
@given(graph=graphs())
def test_what_must_link_does_and_what_may_not_never_does(chaining, graph):
    n, edges, must, apart, colours = graph
    groups = grouped(n, edges, apart, colours, chaining)
    for name in set(groups):
        members = {node for node in range(n) if groups[node] == name}
        assert name == min(members) and may_meet(members, apart, colours)
    for bundle in joined_by_hand(n, must, apart, colours).values():
        assert len({groups[node] for node in bundle}) == 1


@pytest.mark.parametrize("chaining", RULES)
def test_strangers_are_joined_and_their_neighbours_are_not_forgotten(chaining):
    edges = {(0, 1): MUST_LINK, (1, 2): 0.99, (0, 2): 0.99}
    assert grouped(4, edges, [], [-1] * 4, chaining) == [0, 0, 0, 3]


@pytest.mark.parametrize("chaining", RULES)
def test_a_contradiction_keeps_the_first_pair(chaining):
    edges = {(0, 1): MUST_LINK, (1, 2): MUST_LINK}
    assert grouped(3, edges, [(0, 2)], [-1] * 3, chaining) == [0, 0, 2]


def test_a_star_takes_what_is_tied_to_its_centre_before_a_stronger_stranger():
    """2 would be the centre, and 3 its neighbour; but 3 may not meet 0, and 0 must be with 2."""
    edges = {(0, 2): MUST_LINK, (1, 2): 0.95, (2, 3): 0.99}
    assert grouped(4, edges, [(0, 3)], [-1] * 4, "star") == [0, 0, 0, 3]
