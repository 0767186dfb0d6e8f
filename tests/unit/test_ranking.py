import pytest

from dedup_job.errors import ConfigError
from dedup_job.kernels.ranking import OrderColumn, parse_canonical_order


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  ", ()),
        ("price", (OrderColumn("price", False),)),
        (
            "in_stock desc, created_at ASC",
            (OrderColumn("in_stock", True), OrderColumn("created_at", False)),
        ),
        ("list price  DESC", (OrderColumn("list price", True),)),
        ("desc_rank", (OrderColumn("desc_rank", False),)),
    ],
)
def test_parses(text, expected):
    assert parse_canonical_order(text) == expected


@pytest.mark.parametrize("text", ["a,,b", "a,", "desc", "a, ASC", "a desc, a"])
def test_refuses_in_one_line_that_names_the_setting(text):
    with pytest.raises(ConfigError, match=r"catalog\.canonical_order") as caught:
        parse_canonical_order(text)
    assert "\n" not in str(caught.value)
