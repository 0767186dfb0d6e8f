"""From pairs that matched to groups: connected components, then the chaining rule.

Chains are the disease of grouping by pairs: a looks like b, b like c, and a and c are strangers.
Components alone would merge them; `star` and `average` ask for more (docs/adr/0008).

Nodes are numbered 0 to n-1 **in the order of their keys** (product names, SKU ids). That is the whole
tie rule: whatever is undecided by scores goes to the smaller number, so the same catalog gives the
same groups whatever the order of its edges or the number of its partitions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from dedup_job.kernels.linkage import (
    MUST_LINK_UNITS,
    Groups,
    Traits,
    cut_averages,
    cut_components,
    cut_stars,
)

Chaining = Literal["components", "star", "average"]
Array = npt.NDArray[Any]

_UNITS = 2.0**30  # scores are summed as integers of this fineness: exact, in any order
# Score of an edge whose ends were said to be one: they are joined before anything else, under every
# rule, unless a pair that may not link would meet.
MUST_LINK = MUST_LINK_UNITS / _UNITS


@dataclass(frozen=True)
class Edges:
    """Undirected edges: `left`, `right` int (m,) node numbers, `score` float (m,).

    A score is within -1 to 1, or MUST_LINK. Each unordered pair at most once, no loops.
    """

    left: Array
    right: Array
    score: Array


def connected_components(n_nodes: int, left: Array, right: Array) -> Array:
    """Component of each node: int64 (n,), named by its smallest node (scipy.sparse.csgraph)."""
    if n_nodes == 0:
        return np.zeros(0, np.int64)
    graph = sparse.coo_array((np.ones(len(left), np.int8), (left, right)), (n_nodes, n_nodes))
    _, code = csgraph.connected_components(graph, directed=False)
    _, first = np.unique(code, return_index=True)
    return first[code].astype(np.int64)


def group_nodes(
    n_nodes: int,
    edges: Edges,
    *,
    chaining: Chaining,
    threshold: float,
    floor: float,
    cannot_link: Array | None = None,
    traits: Array | None = None,
) -> Array:
    """Put nodes into groups.

    Args:
        n_nodes: number of nodes; numbers follow the order of their keys (see the module).
        edges: pairs at or above the threshold. An edge whose ends may not link is left out.
        chaining: `components` (every chain joins), `star` (direct neighbours of a centre) or
            `average` (average linkage within the component).
        threshold: what the average of two clusters must reach under `average`.
        floor: what a missing edge counts as under `average`: the score down to which pairs were
            searched. Below `threshold`.
        cannot_link: int (c, 2), pairs that never end in one group, through no chain either.
        traits: int (n, k), what is known of each node in k respects (colour, gender), as codes; -1 is
            unknown and fits every code. Nodes whose known codes differ in one respect never end in
            one group, through no chain either.

    Returns:
        int64 (n,): the group of each node, named by its smallest member; a node alone is its own.

    Raises:
        ValueError: an edge names no node, joins a node to itself, occurs twice or scores below the
            threshold, floor >= threshold, or `traits` has not n rows.
    """
    graph = _check(n_nodes, edges, threshold, floor, cannot_link, traits)
    labels, is_open = graph.components(chaining)
    for component in graph.components_to_refine(labels, is_open):
        for group in _cut(component, chaining, threshold, floor):
            labels[group] = group[0]
    return labels


def find_components(
    n_nodes: int,
    edges: Edges,
    *,
    chaining: Chaining,
    threshold: float,
    floor: float,
    cannot_link: Array | None = None,
    traits: Array | None = None,
) -> tuple[Array, Array]:
    """Do the first half of `group_nodes`, for graphs whose second half is done in parts.

    Args and errors are those of `group_nodes`.

    Returns:
        int64 (n,), the component of each node, named by its smallest node; and bool (n,), whether the
        node lies in a component that the rule could cut. A component that is not open is a group.
        `group_nodes` on any set of whole open components, nodes renumbered in their order, gives
        the groups in them.
    """
    graph = _check(n_nodes, edges, threshold, floor, cannot_link, traits)
    labels, is_open = graph.components(chaining)
    return labels, is_open[labels]


@dataclass(frozen=True)
class _Component:
    edges: list[tuple[int, int, int]]
    cannot_link: list[tuple[int, int]]
    traits: dict[int, Traits]


def _cut(graph: _Component, chaining: Chaining, threshold: float, floor: float) -> Groups:
    if chaining == "components":
        return cut_components(graph.edges, graph.cannot_link, graph.traits)
    if chaining == "star":
        return cut_stars(graph.edges, graph.cannot_link, graph.traits)
    units = round(threshold * _UNITS), round(floor * _UNITS)
    return cut_averages(graph.edges, graph.cannot_link, graph.traits, *units)


@dataclass(frozen=True)
class _Graph:
    """Checked input: edges between nodes that may link, sorted; forbidden pairs; codes of traits."""

    n_nodes: int
    a: Array
    b: Array
    score: Array
    apart: Array
    traits: Array

    def components(self, chaining: Chaining) -> tuple[Array, Array]:
        """Component of each node; and, by its name, whether a rule could cut it.

        A component in which every pair has an edge stays whole under every rule, unless a forbidden
        pair or two known traits are in it. Most components are such (pairs above all), and cost no
        Python loop.
        """
        labels = connected_components(self.n_nodes, self.a, self.b)
        n_members = np.bincount(labels, minlength=self.n_nodes)
        n_edges = np.bincount(labels[self.a], minlength=self.n_nodes)
        is_open = n_edges < n_members * (n_members - 1) // 2
        if chaining == "components":
            is_open[:] = False
        is_open[labels[self._apart_within(labels)[:, 0]]] = True
        return labels, is_open | _mixed(labels, self.traits)

    def components_to_refine(self, labels: Array, is_open: Array) -> Iterator[_Component]:
        """The open components; their nodes are set apart in `labels` on the way."""
        apart = self._apart_within(labels)
        apart_owner, owner = labels[apart[:, 0]], labels[self.a]
        kept = is_open[owner]
        units = np.rint(self.score[kept] * _UNITS).astype(np.int64)
        edges, owner = np.c_[self.a[kept], self.b[kept], units], owner[kept]
        is_mixed = _mixed(labels, self.traits)
        pieces = zip(np.unique(owner), _by_owner(edges, owner), strict=True)
        forbidden = dict(zip(np.unique(apart_owner), _by_owner(apart, apart_owner), strict=True))
        open_nodes = np.flatnonzero(is_open[labels])
        labels[open_nodes] = open_nodes
        for name, piece in pieces:
            nodes = np.unique(piece[:, :2]) if is_mixed[name] else np.zeros(0, np.int64)
            yield _Component(
                [tuple(row) for row in piece.tolist()],
                [tuple(row) for row in forbidden[name].tolist()] if name in forbidden else [],
                dict(zip(nodes.tolist(), map(tuple, self.traits[nodes].tolist()), strict=True)),
            )

    def _apart_within(self, labels: Array) -> Array:
        return self.apart[labels[self.apart[:, 0]] == labels[self.apart[:, 1]]]


def _check(
    n_nodes: int,
    edges: Edges,
    threshold: float,
    floor: float,
    cannot_link: Array | None,
    traits: Array | None,
) -> _Graph:
    apart = _sorted_pairs(np.zeros((0, 2)) if cannot_link is None else cannot_link)
    traits = np.zeros((n_nodes, 0), np.int32) if traits is None else traits
    if len(traits) != n_nodes:
        raise ValueError(f"traits must have a row for each of {n_nodes} nodes; got {len(traits)}")
    a, b, score = _canonical(n_nodes, edges, threshold, floor)
    allowed = ~differ(traits[a], traits[b])
    if len(apart):
        allowed &= ~np.isin(a * n_nodes + b, apart[:, 0] * n_nodes + apart[:, 1])
    return _Graph(n_nodes, a[allowed], b[allowed], score[allowed], apart, traits)


def differ(one: Array, other: Array) -> Array:
    """Whether rows of traits differ where both are known: bool (m,) of int (m, k)."""
    return ((one != other) & (one >= 0) & (other >= 0)).any(axis=1)


def _mixed(labels: Array, traits: Array) -> Array:
    """Whether a component holds two known codes of one trait: bool (n,), by component name."""
    is_mixed = np.zeros(len(labels), bool)
    for codes in traits.T:
        known = np.flatnonzero(codes >= 0)
        one_of_them = np.full(len(labels), -1, codes.dtype)
        one_of_them[labels[known]] = codes[known]
        is_mixed[labels[known][one_of_them[labels[known]] != codes[known]]] = True
    return is_mixed


def _by_owner(rows: Array, owner: Array) -> list[Array]:
    """Rows of each owner, owners ascending, rows in their order."""
    order = np.argsort(owner, kind="stable")
    starts = np.unique(owner[order], return_index=True)[1]
    return np.split(rows[order], starts[1:]) if len(rows) else []


def _canonical(
    n_nodes: int, edges: Edges, threshold: float, floor: float
) -> tuple[Array, Array, Array]:
    """(smaller, larger, score) of each edge, sorted by (smaller, larger), checked."""
    score = np.asarray(edges.score, np.float64)
    left, right = (np.asarray(end, np.int64) for end in (edges.left, edges.right))
    a, b = np.minimum(left, right), np.maximum(left, right)
    if not floor < threshold:
        raise ValueError(f"floor must be below threshold; got {floor} and {threshold}")
    if len(a) and (a.min() < 0 or b.max() >= n_nodes or (a == b).any()):
        raise ValueError(f"an edge must join two different nodes of 0 to {n_nodes - 1}")
    if not (score >= threshold).all():
        raise ValueError(f"an edge must score at least the threshold {threshold}")
    key = a * n_nodes + b  # one sort of numbers takes a third of the time of two
    order = np.argsort(key)
    if (np.diff(key[order]) == 0).any():
        raise ValueError("each pair of nodes may have one edge only")
    return a[order], b[order], score[order]


def _sorted_pairs(pairs: Array) -> Array:
    return np.sort(np.asarray(pairs, np.int64).reshape(-1, 2), axis=1)
