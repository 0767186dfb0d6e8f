"""The order in which a group's products are ranked: what `--canonical-order` says."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from dedup_job.errors import ConfigError

_DIRECTIONS = {"asc": False, "desc": True}
_SETTING = "catalog.canonical_order"
# Stricter than float(): that takes "1_000", "nan" and digits of every script for numbers.
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\s*", re.ASCII)


@dataclass(frozen=True)
class OrderColumn:
    """One column of the order: best first. `descending`: the largest value is the best."""

    name: str
    descending: bool


def parse_canonical_order(text: str) -> tuple[OrderColumn, ...]:
    """Parse "in_stock desc, created_at asc" (SQL's ORDER BY; `asc` may be left out).

    Args:
        text: columns separated by commas, most important first; blank = no order. A column name
            may hold spaces, but no comma.

    Raises:
        ConfigError: in one line, for an empty item, a lone direction, a repeated column.
    """
    if not text.strip():
        return ()
    columns = tuple(_parse_item(item, text) for item in text.split(","))
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{_SETTING}: column {name!r} is named twice in {text!r}")
    return columns


def _parse_item(item: str, text: str) -> OrderColumn:
    words = item.split()
    if not words:
        raise ConfigError(
            f"{_SETTING}: empty column in {text!r}; expected 'column [asc|desc], ...'"
        )
    if words[-1].lower() not in _DIRECTIONS:
        return OrderColumn(item.strip(), descending=False)
    if len(words) == 1:
        raise ConfigError(
            f"{_SETTING}: {words[0]!r} in {text!r} names no column; expected 'column [asc|desc]'"
        )
    name = item.strip()[: -len(words[-1])].rstrip()
    return OrderColumn(name, _DIRECTIONS[words[-1].lower()])


@dataclass(frozen=True)
class Candidate:
    """What a product (or one SKU of it) brings to the choice of the survivor.

    `order_values` has one text or None a column of the canonical order; `n_pixels` is the
    resolution of its largest photo.
    """

    sku_id: str
    n_pixels: int
    order_values: Sequence[str | None] = ()


def rank_survivors(
    candidates: Iterable[Candidate], order: Sequence[OrderColumn]
) -> list[Candidate]:
    """Rank the candidates of one group, the survivor first.

    By the columns of `order`, then by resolution (largest first), then by SKU id. A column compares
    as numbers if every value it has in this group is a finite decimal number, else as text by code
    point ("2026-01-31" and "true" sort as one expects). A missing value ranks last, whatever the
    direction.

    Raises:
        ValueError: a candidate has not one value for each column of the order.
    """
    ranked = sorted(candidates, key=lambda c: (-c.n_pixels, c.sku_id))
    for candidate in ranked:
        if len(candidate.order_values) != len(order):
            raise ValueError(
                f"SKU {candidate.sku_id!r} has {len(candidate.order_values)} order values; "
                f"the canonical order has {len(order)} columns"
            )
    # Stable sorts, least important column first.
    for index in reversed(range(len(order))):
        ranked = _sort_by_column(ranked, index, order[index].descending)
    return ranked


def _sort_by_column(candidates: list[Candidate], index: int, descending: bool) -> list[Candidate]:
    known = [(c.order_values[index], c) for c in candidates]
    values = [(value, c) for value, c in known if value is not None]
    missing = [c for value, c in known if value is None]
    if all(_NUMBER.fullmatch(value) for value, _ in values):
        values.sort(key=lambda item: Decimal(item[0].strip()), reverse=descending)
    else:
        values.sort(key=lambda item: item[0], reverse=descending)
    return [c for _, c in values] + missing
