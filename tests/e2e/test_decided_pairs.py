"""What people decided is law, night after night, through every chain."""

import csv

import pytest

from tests.e2e.jobs import read_report, run_job, write_csv
from tests.photos import draw_photo, encode

pytestmark = pytest.mark.spark

# SKU -> (colour, photos). Only equal contents reach the threshold: who shares a photo matches.
SHOP = {
    "a": ("", [1]),
    "b": ("", [1, 2]),
    "c": ("", [2]),
    "d": ("", [3]),
    "e": ("", [4]),
    "f": ("", [5]),
    "g": ("", [6]),
    "h": ("", [7]),
    "i": ("red", [8]),
    "j": ("blue", [9]),
    "k": ("", [10]),
    "l": ("", [10]),
}
DECISIONS = [
    ("a", "c", "different"),  # they would meet through b
    ("e", "d", "same"),  # strangers
    ("f", "g", "same"),
    ("g", "h", "same"),
    ("f", "h", "different"),  # says no to what the two before it say together
    ("i", "j", "same"),  # in spite of their colours
    ("k", "l", "different"),  # in spite of their photos
    ("k", "nobody", "same"),
]


def write_photo(folder, number, seed):
    (folder / f"{number}.png").write_bytes(encode(draw_photo(seed, 64, 80), ".png"))


@pytest.fixture(scope="module")
def nights(spark, tmp_path_factory):
    """Reports of four nights: before, with decisions, with another photo of d, decided anew."""
    folder = tmp_path_factory.mktemp("decided")
    for number in range(1, 11):
        write_photo(folder, number, number)
    rows = [
        {"sku_id": sku, "colour": colour, "image_uri": f"{number}.png"}
        for sku, (colour, photos) in SHOP.items()
        for number in photos
    ]
    catalog = write_csv(folder / "catalog.csv", rows)
    decisions = folder / "decisions.csv"

    def night(day, said):
        settings = {}
        if said:
            with decisions.open("w", newline="") as stream:
                csv.writer(stream).writerows([HEADER, *said])
            settings["decisions"] = str(decisions)
        result = run_job(
            catalog,
            folder / "out",
            run_date=f"2026-01-0{day}",
            match__min_cosine=1.0,
            match__chaining="components",
            catalog__conflict=("colour",),
            **settings,
        )
        return result, {
            name: read_report(folder / "out", name)
            for name in ("duplicate_groups", "duplicate_pairs", "pair_decisions", "run_metrics")
        }

    first = [(*pair, "2026-01-01") for pair in DECISIONS]
    found = [night(1, None), night(2, first)]
    write_photo(folder, 3, 300)
    found.append(night(3, first))
    found.append(night(4, [*first, ("d", "e", "same", "2026-01-03"), ("x", "x", "same", "")]))
    return found


HEADER = ["sku_id_a", "sku_id_b", "decision", "decided_at"]


def sets(reports):
    groups = {}
    for row in reports["duplicate_groups"]:
        groups.setdefault(row["group_id"], set()).add(row["sku_id"])
    return sorted("".join(sorted(skus)) for skus in groups.values())


def outcomes(reports):
    return {row["sku_id_a"] + row["sku_id_b"]: row["outcome"] for row in reports["pair_decisions"]}


def pairs(reports):
    return {row["sku_id_a"] + row["sku_id_b"]: row for row in reports["duplicate_pairs"]}


def test_groups_follow_what_was_said(nights):
    assert sets(nights[0][1]) == ["abc", "kl"]
    assert sets(nights[1][1]) == ["ab", "de", "fg", "ij"]


def test_every_row_of_the_file_is_answered(nights):
    reports = nights[1][1]
    assert outcomes(reports) == {
        **dict.fromkeys(("ac", "de", "fg", "fh", "ij", "kl"), "applied"),
        "gh": "contradicted",
        "knobody": "absent",
    }
    (loser,) = (row for row in reports["pair_decisions"] if row["outcome"] == "contradicted")
    assert loser["detail"] == "row 4: 'f' and 'h' are different"
    metrics = {row["metric"]: row["value"] for row in reports["run_metrics"]}
    assert (metrics["decisions_applied"], metrics["decisions_contradicted"]) == (6, 1)
    assert "decisions      1 absent, 6 applied, 1 contradicted" in nights[1][0].summary()


def test_pairs_say_what_people_said_and_why_they_are_parted(nights):
    found = pairs(nights[1][1])
    said = {
        pair: (row["match_type"], row["decision"], row["parted_by"]) for pair, row in found.items()
    }
    assert said == {
        "ab": ("exact", None, None),
        "bc": ("exact", None, "decision"),  # it would bring a and c together
        "de": ("decision", "same", None),
        "fg": ("decision", "same", None),
        "gh": ("decision", "same", "decision"),
        "ij": ("decision", "same", None),
        "kl": ("exact", "different", "decision"),
    }
    assert found["de"]["cosine"] < 0.999 and found["de"]["n_matching_photos"] == 0
    assert found["ab"]["n_matching_photos"] == 1
    members = {row["sku_id"]: row["match_type"] for row in nights[1][1]["duplicate_groups"]}
    assert members == dict.fromkeys("ab", "exact") | dict.fromkeys("defgij", "decision")


def test_a_decision_reopens_when_its_photo_changes_until_somebody_decides_anew(nights):
    assert sets(nights[2][1]) == ["ab", "fg", "ij"]
    assert outcomes(nights[2][1])["de"] == "reopened"
    assert sets(nights[3][1]) == ["ab", "de", "fg", "ij"]
    told = {row["decision_row"]: row["outcome"] for row in nights[3][1]["pair_decisions"]}
    assert (told[1], told[8], told[9]) == ("superseded", "applied", "rejected")


def test_reviews_of_drawn_groups_tell_the_precision(nights):
    """All groups are drawn here: abc and kl of the first night are wrong, de, fg and ij are right."""
    reviewed = [(result.reviewed.n_groups, result.reviewed.n_right) for result, _ in nights]
    assert reviewed == [(0, 0), (2, 0), (5, 3), (5, 3)]
    result, reports = nights[2]
    metrics = {row["metric"]: row["value"] for row in reports["run_metrics"]}
    assert metrics["reviewed_precision"] == 0.6
    assert metrics["reviewed_precision_low"] < 0.2 < 0.9 < metrics["reviewed_precision_high"]
    assert "3 of 5 groups drawn at random are right: 0.600" in result.summary()
