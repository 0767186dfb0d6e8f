"""The demo's verdict: a grouping of listings against the drawn truth."""

import pyarrow as pa
import pytest
from PIL import Image

from dedup_job.commands.demo import draw_group
from dedup_job.commands.verdict import judge_groups, read_rows_of
from dedup_job.sample.catalog import write_sample_catalog


def _fact(sku, product, kind="original", look_alike_of=None):
    return {
        "sku_id": sku,
        "product_id": product,
        "look_alike_of": look_alike_of or product,
        "kind": kind,
    }


# P1 is sold in two sizes (S1, S2), listed again as S3; P1v is its other colourway.
CATALOG = [
    {"sku_id": "S1", "variant_group": "V1"},
    {"sku_id": "S2", "variant_group": "V1"},
    {"sku_id": "S3", "variant_group": ""},
    {"sku_id": "S4", "variant_group": ""},
    {"sku_id": "S5", "variant_group": ""},
    {"sku_id": "S6", "variant_group": ""},
]
TRUTH = [
    _fact("S1", "P1"),
    _fact("S2", "P1", "size"),
    _fact("S3", "P1", "crop"),
    _fact("S4", "P1v", "NEG:colourway", "P1"),
    _fact("S5", "H1", "placeholder"),
    _fact("S6", "B1", "broken:missing"),
]


def _groups(*rows):
    names = ("sku_id", "variant_group", "group_id")
    return pa.table(
        {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)}
    )


def test_sizes_count_once_and_their_representative_stands_for_them():
    verdict = judge_groups(CATALOG, TRUTH, _groups(("S2", "V1", "g"), ("S3", None, "g")))
    assert verdict.n_products == 4
    assert verdict.metrics.pair_precision == verdict.metrics.pair_recall == 1.0
    assert verdict.metrics.bcubed_f1 == 1.0
    assert (verdict.metrics.hard_merged, verdict.metrics.hard_negative_pairs) == (0, 2)


def test_a_merged_look_alike_costs_precision():
    groups = _groups(("S1", "V1", "g"), ("S3", None, "g"), ("S4", None, "g"))
    metrics = judge_groups(CATALOG, TRUTH, groups).metrics
    assert metrics.pair_precision == pytest.approx(1 / 3)
    assert metrics.pair_recall == 1.0
    assert metrics.hard_merged == 2


def test_no_groups_is_no_recall():
    metrics = judge_groups(CATALOG, TRUTH, _groups()).metrics
    assert metrics.pair_recall == 0.0
    assert metrics.bcubed_precision == 1.0


def test_lines_fit_a_terminal_and_give_all_figures():
    lines = judge_groups(CATALOG, TRUTH, _groups(("S2", "V1", "g"), ("S3", None, "g"))).lines()
    assert max(map(len, lines)) <= 80
    for words in ("pair precision", "pair recall", "B-cubed F1", "look-alikes merged  0 of 2"):
        assert any(words in line for line in lines)


def test_the_picture_shows_the_most_varied_group(tmp_path):
    sample = write_sample_catalog(tmp_path, 12, seed=2)
    catalog, truth = read_rows_of(sample.catalog), read_rows_of(sample.truth)
    by_product = {}
    for row in truth:
        if not row["kind"].startswith(("broken", "placeholder", "size")):
            by_product.setdefault(row["product_id"], []).append(row["sku_id"])
    rows = [
        {
            "group_id": product,
            "sku_id": sku,
            "is_canonical": index == 0,
            "cosine_to_canonical": 0.9,
        }
        for product, skus in by_product.items()
        if len(skus) > 1
        for index, sku in enumerate(skus)
    ]
    target = draw_group(pa.Table.from_pylist(rows), catalog, truth, tmp_path, tmp_path / "g.png")
    assert target is not None and target.stat().st_size < 150_000
    with Image.open(target) as picture:
        n_photos = max(len(skus) for skus in by_product.values())
        assert picture.size == (190 * min(n_photos, 4), 292)
    nothing = pa.Table.from_pylist(rows).slice(0, 0)
    assert draw_group(nothing, catalog, truth, tmp_path, tmp_path / "none.png") is None
