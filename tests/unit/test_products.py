"""A product's conflict values do not depend on which of its SKUs stands for it."""

import json
from itertools import permutations

import pyarrow as pa
import pytest

from dedup_job.stages.products import agreed_values, choose_representatives
from dedup_job.tables import PRODUCTS


@pytest.mark.parametrize(
    ("skus", "product"),
    [
        ([["red", "adult"], ["red", "adult"]], ["red", "adult"]),
        ([["red", "adult"], ["blue", "adult"]], [None, "adult"]),
        ([["red", None], [None, None], ["red", "kids"]], ["red", "kids"]),
        ([["red"], ["blue"], [None]], [None]),
        ([["red"]], ["red"]),
        ([['"', "ü"]], ['"', "ü"]),
    ],
)
def test_values_are_kept_where_all_skus_that_know_them_agree(skus, product):
    for order in permutations(skus):
        assert json.loads(agreed_values(json.dumps(values) for values in order)) == product


def test_without_conflict_columns_there_is_nothing_to_agree_on():
    assert agreed_values(["", ""]) == ""


@pytest.mark.parametrize("best", ["a", "b"])
def test_a_style_of_two_colours_has_none_whoever_represents_it(best):
    def sku(name, colour):
        return {
            "sku_id": name,
            "variant_group": "style",
            "conflict": json.dumps([colour]),
            "order_values": [],
            "n_pixels": 2 if name == best else 1,
            "position": 0 if name == "a" else 1,
            "main_sha256": name,
            "contents": [name],
        }

    product = {"block": "", "product": "v:style", "skus": [sku("a", "red"), sku("b", "blue")]}
    (batch,) = choose_representatives([pa.RecordBatch.from_pylist([product])], ())
    (row,) = batch.to_pylist()
    assert list(row) == PRODUCTS.column_names
    assert (row["sku_id"], row["conflict"]) == (best, "[null]")
