"""The groups of a run as the gallery shows them: pure, from report rows to plain dictionaries."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Pair = tuple[str, str]


def build_cards(
    groups: Iterable[Row],
    pairs: Iterable[Row],
    changes: Mapping[str, str],
    decisions: Iterable[Row],
    photos: Mapping[str, Sequence[str]],
    sample: frozenset[str] = frozenset(),
    *,
    with_scores: bool = False,
) -> list[Row]:
    """One card a group, the least certain first.

    Args:
        groups: rows of DUPLICATE_GROUPS.
        pairs: rows of DUPLICATE_PAIRS within these groups.
        changes: group_id -> change since the last run.
        decisions: rows of PAIR_DECISIONS; they name any SKU of a product.
        photos: SKU -> its product's photos, the first of the catalog first, by PHOTO_DIGITS.
        sample: groups drawn at random for review.
        with_scores: whether the run verified pairs; otherwise their scores are the cosines again.

    Returns:
        Of each group: id, type, p (the lowest probability of its pairs, None without any), change,
        sample, settled, reopened, and members, the survivor first: sku, cosine, score (None
        where there is none), p, type, said, photos.
    """
    members: dict[str, list[Row]] = defaultdict(list)
    for row in groups:
        members[row["group_id"]].append(row)
    known: dict[str, dict[Pair, Row]] = defaultdict(dict)
    for row in pairs:
        known[row["group_id"]][row["sku_id_a"], row["sku_id_b"]] = row
    reopened = {
        sku
        for row in decisions
        if row["outcome"] == "reopened"
        for sku in (row["sku_id_a"], row["sku_id_b"])
    }
    cards = [
        {
            **_card(group_id, rows, known[group_id], photos, with_scores),
            "change": changes.get(group_id),
            "sample": group_id in sample,
            "reopened": any(row["sku_id"] in reopened for row in rows),
        }
        for group_id, rows in members.items()
    ]
    return sorted(cards, key=_uncertainty)


def _card(
    group_id: str,
    rows: list[Row],
    pairs: Mapping[Pair, Row],
    photos: Mapping[str, Sequence[str]],
    with_scores: bool,
) -> Row:
    survivor = rows[0]["canonical_sku_id"]
    ordered = sorted(rows, key=lambda row: (not row["is_canonical"], row["sku_id"]))
    with_survivor = [
        pairs.get((min(survivor, row["sku_id"]), max(survivor, row["sku_id"]))) for row in ordered
    ]
    shown = [
        {
            "sku": row["sku_id"],
            "cosine": round(float(row["cosine_to_canonical"]), 4),
            "score": _rounded(pair["score"]) if pair and with_scores else None,
            "p": _rounded(pair["match_probability"]) if pair else None,
            "type": row["match_type"],
            "said": pair["decision"] if pair else None,
            "photos": list(photos.get(row["sku_id"], ())),
        }
        for row, pair in zip(ordered, with_survivor, strict=True)
    ]
    probabilities = [_rounded(pair["match_probability"]) for pair in pairs.values()]
    types = {row["match_type"] for row in rows}
    return {
        "id": group_id,
        "type": next(name for name in ("decision", "near", "exact") if name in types),
        "p": min(probabilities, default=None),
        "lowest": round(float(rows[0]["min_pair_cosine"]), 4),
        "settled": all(member["said"] == "same" for member in shown[1:]),
        "members": shown,
    }


def _rounded(share: float) -> float:
    return round(float(share), 4)


def _uncertainty(card: Row) -> tuple[object, ...]:
    """What nobody decided comes first, then what is least likely one product."""
    p = 0.0 if card["p"] is None else card["p"]
    return card["settled"], not card["reopened"], p, card["lowest"], card["id"]
