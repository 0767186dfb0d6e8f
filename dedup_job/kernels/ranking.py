"""The order in which a group's products are ranked: what `--canonical-order` says."""

from dataclasses import dataclass

from dedup_job.errors import ConfigError

_DIRECTIONS = {"asc": False, "desc": True}
_SETTING = "catalog.canonical_order"


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
