"""The three chaining rules: how one connected component is cut into groups.

Everything here is integer arithmetic: nodes are numbered, scores are counted in units of 2^-30 (a
float32 cosine of at least 0.5 is exact in them). Sums are therefore exact in any order, and ties are
broken by the smallest node: the result depends on the edges alone, not on how they were listed.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add

Edge = tuple[int, int, int]
Pair = tuple[int, int]
Traits = tuple[int, ...]
Groups = list[list[int]]

# Edges that were decided, and that no average of cosines outweighs. They join first, in the order of
# their nodes, unless a pair that may not link would meet.
MUST_LINK_UNITS = 1 << 60


def cut_components(
    edges: Sequence[Edge], cannot_link: Iterable[Pair], traits: Mapping[int, Traits]
) -> Groups:
    """Join along edges from the strongest to the weakest, except where that is not allowed.

    Kruskal's order over a union-find (Tarjan 1975), each root carrying the roots it may not join.

    Args:
        edges: (a, b, units), each pair at most once; edges of equal score go by (a, b), a < b.
        cannot_link: pairs of nodes that may not end in one group.
        traits: codes of every node, -1 where unknown; nodes whose known codes differ in one place
            may not end in one group. Empty where no two nodes differ.

    Returns:
        Groups of two or more nodes, each sorted.
    """
    ordered = sorted(edges, key=lambda edge: (-edge[2], edge[0], edge[1]))
    return _as_groups(_join_along(ordered, _Barriers(cannot_link, traits)).values())


def _join_along(edges: Iterable[Edge], barriers: "_Barriers") -> dict[int, list[int]]:
    """Join the ends of each edge in turn, where that is allowed; clusters of two and more, by root."""
    parent: dict[int, int] = {}
    members: dict[int, list[int]] = {}

    def find(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = above
        return node

    for a, b, _ in edges:
        root, other = find(a), find(b)
        if root == other or not barriers.allow(root, other):
            continue
        if len(members.get(root, ())) < len(members.get(other, ())):
            root, other = other, root
        parent[other] = root
        members.setdefault(root, [root]).extend(members.pop(other, [other]))
        barriers.join(other, root)
    return members


def cut_stars(
    edges: Sequence[Edge], cannot_link: Iterable[Pair], traits: Mapping[int, Traits]
) -> Groups:
    """Let the best-connected free node take its free neighbours; repeat until none is left.

    Star clustering (Aslam et al. 2004), greedy: the centre is the free node with the most free
    neighbours, then the largest sum of scores to them, then the smallest number. It takes
    neighbours from the strongest on and leaves those that may not meet one already taken.

    Args and returns are those of `cut_components`.
    """
    barriers = _Barriers(cannot_link, traits)
    bundles, edges = _tie(edges, barriers)
    neighbours = _neighbours(edges, max)
    rank = {node: (-len(near), -sum(near.values()), node) for node, near in neighbours.items()}
    heap = sorted(rank.values())
    groups: Groups = [bundle for head, bundle in bundles.items() if head not in neighbours]
    while heap:
        entry = heapq.heappop(heap)
        centre = entry[2]
        if rank.get(centre) != entry:
            continue
        star = {centre}
        for node in sorted(neighbours[centre], key=lambda n: (-neighbours[centre][n], n)):
            if barriers.allow(centre, node):
                barriers.join(node, centre)
                star.add(node)
        groups.append([node for head in star for node in bundles.get(head, (head,))])
        _leave(star, neighbours, rank, heap)
    return _as_groups(groups)


def _tie(edges: Sequence[Edge], barriers: "_Barriers") -> tuple[dict[int, list[int]], list[Edge]]:
    """Join what must link into bundles, each named by one of its nodes, its head.

    Returns:
        The bundles of two and more; and the other edges, between heads, where two may have several.
    """
    must_link = [edge for edge in edges if edge[2] >= MUST_LINK_UNITS]
    if not must_link:
        return {}, list(edges)
    bundles = _join_along(must_link, barriers)
    head_of = {node: head for head, bundle in bundles.items() for node in bundle}
    between = (
        (*sorted((head_of.get(a, a), head_of.get(b, b))), units)
        for a, b, units in edges
        if units < MUST_LINK_UNITS
    )
    return bundles, [(a, b, units) for a, b, units in between if a != b]


def _leave(
    star: set[int],
    neighbours: dict[int, dict[int, int]],
    rank: dict[int, tuple[int, int, int]],
    heap: list[tuple[int, int, int]],
) -> None:
    """Take a finished star's nodes out of the graph and lower the rank of who knew them."""
    touched = set()
    for node in star:
        del rank[node]
        for other in neighbours.pop(node):
            if other in neighbours:
                del neighbours[other][node]
                touched.add(other)
    for node in touched - star:
        near = neighbours[node]
        rank[node] = (-len(near), -sum(near.values()), node)
        heapq.heappush(heap, rank[node])


def cut_averages(
    edges: Sequence[Edge],
    cannot_link: Iterable[Pair],
    traits: Mapping[int, Traits],
    threshold: int,
    floor: int,
) -> Groups:
    """Merge the two clusters of highest average score while that average reaches the threshold.

    Agglomerative average linkage (UPGMA, Sokal and Michener 1958) on a sparse graph: a pair without
    an edge counts as `floor`. Only clusters with an edge between them are ever looked at, so memory
    grows with the edges; of equal averages the clusters with the smallest nodes go first.

    Args:
        edges: (a, b, units), each pair at most once, a < b, units >= threshold.
        cannot_link: as in `cut_components`.
        traits: as in `cut_components`.
        threshold: units an average must reach.
        floor: units a missing edge counts as; below `threshold`.

    Returns:
        Groups of two or more nodes, each sorted; each is connected through its own edges, since an
        average above the floor needs one.
    """
    return _AverageLinkage(edges, _Barriers(cannot_link, traits), threshold, floor).run()


class _AverageLinkage:
    """State of one run. A cluster is named by the smallest node, or head of a bundle, in it.

    `excess[a][b]` is the sum of (score - floor) over the edges between clusters a and b. Missing
    edges add nothing to it, so the average is floor + excess / (|a| |b|).
    """

    def __init__(
        self, edges: Sequence[Edge], barriers: "_Barriers", threshold: int, floor: int
    ) -> None:
        self.margin = threshold - floor
        self.barriers = barriers
        bundles, edges = _tie(edges, barriers)
        self.excess = _neighbours(((a, b, units - floor) for a, b, units in edges), add)
        self.members = {node: [node] for node in self.excess} | bundles
        # (-excess per pair, a, b, |a|, |b|): a cluster only ever grows, so its size tells whether
        # an entry is still true.
        self.heap: list[tuple[float, int, int, int, int]] = []

    def run(self) -> Groups:
        for a, near in self.excess.items():
            for b in near:
                if a < b:
                    self._offer(a, b)
        while self.heap:
            _, a, b, size_a, size_b = heapq.heappop(self.heap)
            if self._size(a) == size_a and self._size(b) == size_b:
                self._merge(a, b)
        return _as_groups(self.members.values())

    def _size(self, cluster: int) -> int:
        return len(self.members.get(cluster, ()))

    def _offer(self, a: int, b: int) -> None:
        """Queue a merge of two neighbouring clusters if it is allowed."""
        a, b = min(a, b), max(a, b)
        size_a, size_b = self._size(a), self._size(b)
        excess, n_pairs = self.excess[a][b], size_a * size_b
        if excess >= self.margin * n_pairs and self.barriers.allow(a, b):
            heapq.heappush(self.heap, (-(excess / n_pairs), a, b, size_a, size_b))

    def _merge(self, a: int, b: int) -> None:
        """Put cluster b into cluster a, a < b."""
        self.members[a] += self.members.pop(b)
        self.barriers.join(b, a)
        del self.excess[a][b]
        for other, excess in self.excess.pop(b).items():
            if other != a:
                del self.excess[other][b]
                total = self.excess[a].get(other, 0) + excess
                self.excess[a][other] = self.excess[other][a] = total
        for other in self.excess[a]:
            self._offer(a, other)


def _neighbours(
    edges: Iterable[Edge], both: Callable[[int, int], int]
) -> dict[int, dict[int, int]]:
    """The neighbours of each node; `both` makes one of two edges between the same nodes."""
    near: dict[int, dict[int, int]] = defaultdict(dict)
    for a, b, units in edges:
        known = near[a].get(b)
        near[a][b] = near[b][a] = units if known is None else both(known, units)
    return dict(near)


class _Barriers:
    """Which clusters may not meet. A cluster is named by one of its nodes.

    `forbidden[a]` holds the clusters that a forbidden pair keeps from a; `traits[a]` what is known of
    any member of a, which costs one tuple a cluster where pairs would cost the product of two colours.
    """

    def __init__(self, cannot_link: Iterable[Pair], traits: Mapping[int, Traits]) -> None:
        self.traits = dict(traits)
        self.forbidden: dict[int, set[int]] = defaultdict(set)
        for a, b in cannot_link:
            self.forbidden[a].add(b)
            self.forbidden[b].add(a)

    def allow(self, a: int, b: int) -> bool:
        """Whether clusters a and b may become one."""
        if b in self.forbidden[a]:
            return False
        if not self.traits:
            return True
        both = zip(self.traits[a], self.traits[b], strict=True)
        return all(x == y or x < 0 or y < 0 for x, y in both)

    def join(self, gone: int, heir: int) -> None:
        """Put cluster `gone` into `heir`, which `allow` has allowed."""
        for other in self.forbidden.pop(gone, ()):
            self.forbidden[other].discard(gone)
            self.forbidden[other].add(heir)
            self.forbidden[heir].add(other)
        if self.traits:
            # Where both are known they are equal, and unknown is -1: the larger is what is known.
            self.traits[heir] = tuple(map(max, self.traits[heir], self.traits.pop(gone)))


def _as_groups(clusters: Iterable[list[int]]) -> Groups:
    return sorted(sorted(cluster) for cluster in clusters if len(cluster) > 1)
