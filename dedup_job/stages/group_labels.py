"""Which group every product is in: connected components first, then the chaining rule on open ones.

Finding components is quick, and most of them are done with that. Those that the chaining rule could cut
are refined in buckets of whole components, which executors may do, for that is Python, pair by pair
(docs/adr/0019). `nightly.labelling` reads and stores what is needed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.kernels.grouping import (
    MUST_LINK,
    Chaining,
    Edges,
    connected_components,
    differ,
    find_components,
    group_nodes,
)
from dedup_job.kernels.ranking import OrderColumn
from dedup_job.stages.inheritance import name_groups
from dedup_job.tables import (
    NAMED_MEMBERS,
    OPEN_PAIRS,
    PAIR_PLACES,
    PRODUCT_PAIRS,
    REFINED_NODES,
)

Array = npt.NDArray[Any]
_MISSING_SHARE, _LEAST_GAP = 0.25, 0.001
_PAIRS_PER_BUCKET = 100_000
PAIR_COLUMNS = ["sku_id_a", "sku_id_b", "score", "match_type", "in_conflict", "decision"]
PRODUCT_COLUMNS = ["sku_id", "conflict"]
_NO_PAIRS = PRODUCT_PAIRS.arrow.empty_table()
_IDS = pa.large_string()  # a column of ids may pass 2 GB
_CODES = pa.list_(pa.int32())


@dataclass(frozen=True)
class GroupRules:
    """How groups are made.

    Attributes:
        chaining: the chaining rule, see `kernels.grouping`.
        order: the canonical order that ranks survivors.
        min_score: the threshold of the pairs, at most 1.
        run_date: the date on which groups are born.
        n_conflict_columns: how many columns `--conflict` names.
    """

    chaining: Chaining
    order: tuple[OrderColumn, ...]
    min_score: float
    run_date: date
    n_conflict_columns: int = 0

    @property
    def missing_score(self) -> float:
        """What a pair that did not match counts as in an average: a little below the threshold.

        Relative to the room above the threshold, so that it means the same for every model, and
        not the floor of the search, so that groups do not depend on how deep was searched.
        Measured in docs/adr/0008.
        """
        return self.min_score - max(_MISSING_SHARE * (1.0 - self.min_score), _LEAST_GAP)


@dataclass(frozen=True)
class Matches:
    """PRODUCT_PAIRS as arrays: `a` and `b` number the sorted `sku_ids`.

    Behind them stand the pairs that people called different, `cannot_link` as those `in_conflict`.

    Attributes:
        sku_ids: large_string (n,).
        a: int64 (m,).
        b: int64 (m,).
        score: float32 (m,); MUST_LINK where people called the two the same.
        is_exact: bool (m,), whether the two share a photo file.
        is_near: bool (m,), whether they match by likeness alone.
        cannot_link: bool (m,), whether the two may not end in one group.
        is_apart: bool (m,), whether people called the two different.
        traits: int32 (n, conflict columns), codes of values, -1 where unknown.
    """

    sku_ids: pa.Array
    a: Array
    b: Array
    score: Array
    is_exact: Array
    is_near: Array
    cannot_link: Array
    is_apart: Array
    traits: Array


@dataclass(frozen=True)
class Members:
    """NAMED_MEMBERS, and the row in it of each SKU of `Matches` that is in a group: int64 (n,)."""

    row: Array
    table: pa.Table


def number_products(
    pairs: Iterable[pa.Table],
    products: Iterable[pa.Table],
    rules: GroupRules,
    decided: pa.Table | None = None,
) -> Matches:
    """Number the SKUs of all pairs in the order of their ids: that makes every tie a matter of ids.

    Args:
        pairs: `PAIR_COLUMNS` of PRODUCT_PAIRS, part by part.
        products: `PRODUCT_COLUMNS` of PRODUCTS, part by part; only read with conflict columns.
        rules: says how many conflict columns there are.
        decided: what people said, see `stages.decided.decided_products`; pairs that they called the
            same are in `pairs` too.
    """
    table = pa.concat_tables([_slim(part) for part in (*pairs, _apart(decided))])
    ends = pa.chunked_array([*table["sku_id_a"].chunks, *table["sku_id_b"].chunks], _IDS)
    seen = ends.combine_chunks().dictionary_encode()
    order = pc.sort_indices(seen.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    a, b = np.split(rank[seen.indices.to_numpy()], 2)
    sku_ids = seen.dictionary.take(order)
    is_same, is_apart = table["is_same"].to_numpy(), table["is_apart"].to_numpy()
    traits = _traits(sku_ids, products, rules.n_conflict_columns)
    conflicts = table["in_conflict"].to_numpy()
    if is_same.any() and rules.n_conflict_columns:
        traits = _agreed(traits, a[is_same], b[is_same])
        conflicts = conflicts & differ(traits[a], traits[b])
    return Matches(
        sku_ids,
        a,
        b,
        score=np.where(is_same, np.float32(MUST_LINK), table["score"].to_numpy()),
        is_exact=table["is_exact"].to_numpy(),
        is_near=table["is_near"].to_numpy(),
        cannot_link=conflicts | is_apart,
        is_apart=is_apart,
        traits=traits,
    )


def _slim(part: pa.Table) -> pa.Table:
    def says(column: str, value: str) -> pa.ChunkedArray:
        return pc.fill_null(pc.equal(part[column], value), False)

    return pa.table(
        {
            "sku_id_a": part["sku_id_a"].cast(_IDS),
            "sku_id_b": part["sku_id_b"].cast(_IDS),
            "score": part["score"],
            "is_exact": says("match_type", "exact"),
            "is_near": says("match_type", "near"),
            "in_conflict": part["in_conflict"],
            "is_same": says("decision", "same"),
            "is_apart": says("decision", "different"),
        }
    )


def _apart(decided: pa.Table | None) -> pa.Table:
    """Pairs that people called different, as `PAIR_COLUMNS`."""
    if decided is None:
        return _NO_PAIRS
    apart = decided.filter(pc.equal(decided["decision"], "different"))
    nothing = {"score": 0.0, "match_type": "", "in_conflict": False}
    fields = [PRODUCT_PAIRS.arrow.field(name) for name in PAIR_COLUMNS]
    columns = [
        pa.repeat(pa.scalar(nothing[field.name], field.type), apart.num_rows)
        if field.name in nothing
        else apart[field.name]
        for field in fields
    ]
    return pa.table(columns, schema=pa.schema(fields))


def _agreed(traits: Array, a: Array, b: Array) -> Array:
    """Traits where products that people called the same, in a chain or at once, do not differ.

    As with the sizes of one product: a value on which they differ is unknown.
    """
    bundle = connected_components(len(traits), a, b)
    agreed = traits.copy()
    for column in agreed.T:
        lowest = np.full(len(traits), np.iinfo(np.int32).max, np.int32)
        highest = np.full(len(traits), -1, np.int32)
        known = column >= 0
        np.minimum.at(lowest, bundle[known], column[known])
        np.maximum.at(highest, bundle[known], column[known])
        column[lowest[bundle] < highest[bundle]] = -1
    return agreed


def _traits(sku_ids: pa.Array, products: Iterable[pa.Table], n_columns: int) -> Array:
    """Codes of the conflict values: int32 (n, n_columns), -1 where null."""
    traits = np.full((len(sku_ids), n_columns), -1, np.int32)
    if not n_columns:
        return traits
    codes: dict[str, int] = {}
    for part in products:
        nodes = pc.index_in(part["sku_id"].cast(_IDS), value_set=sku_ids)
        matched = part.append_column("node", nodes).filter(pc.is_valid(nodes))
        seen = matched["conflict"].combine_chunks().dictionary_encode()
        values = [json.loads(text) for text in seen.dictionary.to_pylist()]
        coded = [
            [-1 if value is None else codes.setdefault(value, len(codes)) for value in row]
            for row in values
        ]
        if coded:
            rows = np.array(coded, np.int32)[seen.indices.to_numpy()]
            traits[matched["node"].to_numpy()] = rows
    return traits


def find_open(matches: Matches, rules: GroupRules) -> tuple[Array, Array]:
    """Components, and the pairs of those that the chaining rule could cut.

    Returns:
        int64 (n,), the component of each SKU, named by its smallest; and the rows of the pairs within
        open components, forbidden ones included, component by component.
    """
    a, b, together = matches.a, matches.b, ~matches.cannot_link
    component, is_open = find_components(
        len(matches.sku_ids),
        Edges(a[together], b[together], matches.score[together]),
        chaining=rules.chaining,
        threshold=rules.min_score,
        floor=rules.missing_score,
        cannot_link=np.c_[a, b][~together],
        traits=matches.traits,
    )
    rows = np.flatnonzero(is_open[a] & (component[a] == component[b]))
    return component, rows[np.argsort(component[a[rows]], kind="stable")]


def open_pairs(matches: Matches, rows: Array) -> pa.Table:
    """OPEN_PAIRS of some rows of pairs."""
    a, b = matches.a[rows], matches.b[rows]
    columns = [
        pa.array(a, pa.int64()),
        pa.array(b, pa.int64()),
        pa.array(matches.score[rows]),
        pa.array(matches.cannot_link[rows]),
        _as_lists(matches.traits[a]),
        _as_lists(matches.traits[b]),
    ]
    return pa.Table.from_arrays(columns, schema=OPEN_PAIRS.arrow)


def _as_lists(rows: Array) -> pa.Array:
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(rows.ravel(), pa.int32()))


def cut_into_buckets(owner: Array) -> list[slice]:
    """Slices of whole components with about `_PAIRS_PER_BUCKET` pairs; a larger component is one.

    Args:
        owner: the component of each pair, pairs of a component side by side.
    """
    if not len(owner):
        return []
    firsts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    starts = firsts[np.unique(firsts // _PAIRS_PER_BUCKET, return_index=True)[1]]
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(owner)], strict=True)]


def refine(pairs: pa.Table, rules: GroupRules) -> pa.Table:
    """Apply the chaining rule to whole components: OPEN_PAIRS to REFINED_NODES. Runs on executors."""
    ends = np.r_[pairs["a"].to_numpy(), pairs["b"].to_numpy()]
    nodes, first_seen, numbers = np.unique(ends, return_index=True, return_inverse=True)
    a, b = np.split(numbers, 2)
    together = ~pairs["cannot_link"].to_numpy()
    lists = pa.chunked_array([*pairs["traits_a"].chunks, *pairs["traits_b"].chunks], _CODES)
    codes = lists.combine_chunks().flatten().to_numpy()
    traits = codes.reshape(len(ends), rules.n_conflict_columns)[first_seen]
    group = group_nodes(
        len(nodes),
        Edges(a[together], b[together], pairs["score"].to_numpy()[together]),
        chaining=rules.chaining,
        threshold=rules.min_score,
        floor=rules.missing_score,
        cannot_link=np.c_[a, b][~together],
        traits=traits,
    )
    return pa.Table.from_arrays(
        [pa.array(nodes), pa.array(nodes[group])], schema=REFINED_NODES.arrow
    )


def name_members(
    matches: Matches, group: Array, previous: pa.Table | None, run_date: date
) -> Members:
    """Name the groups of all SKUs that are not alone.

    Args:
        matches: all pairs.
        group: int64 (n,), the group of each SKU, named by its smallest.
        previous: see `stages.inheritance.name_groups`.
        run_date: the date on which groups are born.
    """
    match_type = np.full(len(group), "decision", object)
    together = ~matches.cannot_link & (group[matches.a] == group[matches.b])
    # The last counts most.
    for name, is_it in (("near", matches.is_near), ("exact", matches.is_exact)):
        rows = together & is_it
        match_type[matches.a[rows]] = match_type[matches.b[rows]] = name
    is_grouped = np.bincount(group, minlength=len(group))[group] > 1
    nodes = np.flatnonzero(is_grouped)
    row = np.cumsum(is_grouped) - 1
    first = row[group[nodes]]
    named = name_groups(matches.sku_ids.take(pa.array(nodes)), first, previous, run_date)
    named = named.append_column("match_type", pa.array(match_type[nodes], pa.string()))
    return Members(row, named.select(NAMED_MEMBERS.column_names))


def place_pairs(matches: Matches, group: Array, members: Members, rows: slice) -> pa.Table:
    """PAIR_PLACES of some pairs.

    A pair that ended in two groups was parted by what people said of it, else by the conflict columns,
    else by what people said of others in the two groups, else by chaining.

    Args:
        matches: all pairs.
        group: int64 (n,), the group of each SKU, named by its smallest.
        members: the members of these groups.
        rows: of `matches`.
    """
    a, b = matches.a[rows], matches.b[rows]
    together = group[a] == group[b]
    is_apart = matches.is_apart[rows]
    conditions = [is_apart, matches.cannot_link[rows], _are_parted(matches, group, a, b)]
    reason = pa.array(np.select(conditions, ["decision", "conflict", "decision"], "chaining"))
    member = pa.array(members.row[a], mask=~together)
    group_id = members.table["group_id"].take(member)
    parted_by = pc.if_else(pa.array(together), pa.scalar(None, pa.string()), reason)
    return pa.table({"group_id": group_id, "parted_by": parted_by}).cast(PAIR_PLACES.arrow)


def _are_parted(matches: Matches, group: Array, a: Array, b: Array) -> Array:
    """Whether people called different two products of which one is grouped with a, one with b."""

    def ends(a: Array, b: Array) -> Array:
        return np.minimum(group[a], group[b]) * len(group) + np.maximum(group[a], group[b])

    apart = matches.is_apart
    return np.isin(ends(a, b), ends(matches.a[apart], matches.b[apart]))
