"""Which pairs and photos a report shows. Chosen by rank and name: the same ones every time."""

import numpy as np

from model_training.figures import MADE, Scored


def false_pairs(scored: Scored, n: int, among: np.ndarray | None = None) -> np.ndarray:
    """Rows of the n other-product pairs of highest cosine (or score), one of each two products.

    `among`: bool (p,), the pairs to choose from; all, if left out.
    """
    wanted = ~scored.same if among is None else ~scored.same & among
    order = np.argsort(np.where(wanted, -scored.value, np.inf), kind="stable")
    return _one_each(scored, order[: int(wanted.sum())], n, scored.views.product)


def missed_pairs(scored: Scored, n: int) -> np.ndarray:
    """Rows of the n duplicate pairs of lowest cosine (or score), one of each photo."""
    order = np.argsort(np.where(scored.same, scored.value, np.inf), kind="stable")
    return _one_each(scored, order[: int(scored.same.sum())], n, scored.views.family)


def recognised_pairs(scored: Scored, threshold: float | None, n: int) -> np.ndarray:
    """Rows of n duplicate pairs at or above the threshold: those edited most, one of each photo."""
    at = np.inf if threshold is None else threshold
    kind = scored.views.kind
    edits = np.char.count(kind, "+") + (kind != "original") - np.char.startswith(kind, MADE)
    n_edits = edits[scored.a] + edits[scored.b]
    rows = np.flatnonzero(scored.same & (scored.value >= at))
    order = rows[np.lexsort((-scored.value[rows], -n_edits[rows]))]
    return _one_each(scored, order, n, scored.views.family)


def told_apart_pairs(scored: Scored, threshold: float | None, n: int) -> np.ndarray:
    """Rows of n look-alike pairs below the threshold whose photos, as pixels, are most alike."""
    at = np.inf if threshold is None else threshold
    plain = np.char.count(scored.views.kind, "+") == 0
    rows = np.flatnonzero(scored.hard & (scored.value < at) & plain[scored.a] & plain[scored.b])
    views = scored.views.views
    apart = np.array([
        np.abs(views[a].astype(np.int16) - views[b]).mean()
        for a, b in zip(scored.a[rows], scored.b[rows], strict=True)
    ])  # fmt: skip
    return _one_each(scored, rows[np.argsort(apart, kind="stable")], n, scored.views.family)


def look_alike_examples(scored: Scored, n: int) -> list[tuple[int, int]]:
    """Photos spread over the set, n in all, each with its made look-alike: rows of views."""
    views = scored.views
    made = np.char.startswith(views.kind, MADE) & (np.char.count(views.kind, "+") == 0)
    pairs = np.flatnonzero(scored.hard & (views.kind == "original")[scored.a] & made[scored.b])
    name, other = views.identity[scored.a[pairs]], views.identity[scored.b[pairs]]
    pairs = pairs[np.char.startswith(other, np.char.add(name, "#"))]
    # Duplicates (of labelled pairs) share a name: a photo's own look-alike follows it first.
    pairs = pairs[np.unique(scored.a[pairs], return_index=True)[1]]
    of_source = [pairs[views.source[scored.a[pairs]] == name] for name in np.unique(views.source)]
    shares = _shares([len(rows) for rows in of_source], n)
    chosen: list[tuple[int, int]] = []
    for rows, share in zip(of_source, shares, strict=True):
        at = (2 * np.arange(share) + 1) * len(rows) // max(2 * share, 1)
        chosen += [(int(scored.a[p]), int(scored.b[p])) for p in rows[at]]
    return chosen


def _shares(sizes: list[int], n: int) -> list[int]:
    """How many of n each of some sets gives: one each in turn, until it is empty."""
    shares = [0] * len(sizes)
    while sum(shares) < min(n, sum(sizes)):
        for i, size in enumerate(sizes):
            shares[i] += shares[i] < size and sum(shares) < n
    return shares


def _one_each(scored: Scored, order: np.ndarray, n: int, label: np.ndarray) -> np.ndarray:
    """The first n pairs of an order whose two labels were not together before."""
    seen: set[tuple[str, str]] = set()
    chosen: list[int] = []
    for pair in order:
        x, y = str(label[scored.a[pair]]), str(label[scored.b[pair]])
        key = (min(x, y), max(x, y))
        if key not in seen:
            seen.add(key)
            chosen.append(int(pair))
        if len(chosen) == n:
            break
    return np.array(chosen, np.int64)
