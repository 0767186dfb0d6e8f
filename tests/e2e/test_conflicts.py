"""No group of a published run mixes the known values of a --conflict column."""

import pytest

from tests.e2e.jobs import read_report, run_job, write_csv
from tests.photos import draw_photo, encode

pytestmark = pytest.mark.spark


def test_red_and_blue_do_not_meet_through_a_product_of_unknown_colour(spark, tmp_path):
    for seed, name in enumerate(("front", "back")):
        (tmp_path / f"{name}.png").write_bytes(encode(draw_photo(seed, 64, 80), ".png"))
    rows = [("a", "red", "front"), ("b", "", "front"), ("b", "", "back"), ("c", "blue", "back")]
    catalog = write_csv(
        tmp_path / "catalog.csv",
        [{"sku_id": s, "colour": colour, "image_uri": f"{p}.png"} for s, colour, p in rows],
    )
    # Only equal contents can reach this threshold: a and c meet through b alone.
    run_job(
        catalog,
        tmp_path / "out",
        match__min_cosine=1.0,
        match__chaining="components",
        catalog__conflict=("colour",),
    )
    groups = read_report(tmp_path / "out", "duplicate_groups")
    assert sorted(row["sku_id"] for row in groups) == ["a", "b"]
    pairs = read_report(tmp_path / "out", "duplicate_pairs")
    assert {row["sku_id_a"] + row["sku_id_b"]: row["parted_by"] for row in pairs} == {
        "ab": None,
        "bc": "chaining",
    }
