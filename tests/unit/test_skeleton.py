import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.kernels.skeleton import skeleton


@pytest.mark.parametrize(
    "other",
    [
        unicodedata.normalize("NFD", "Café-1"),
        "Café-1 ",
        "Caf\u200bé-1",
        "\ufeffCafé-1",
        "Café‑1",
        "Сafé-1",  # Cyrillic С
        "Ｃａｆé-１",
        "Café\ufe0f-1",
        "Café\u034f-\u31641",
        "Ca\U000e0100fé-\u28001\uffa0",
    ],
    ids=ascii,
)
def test_ids_that_look_alike_share_a_skeleton(other):
    assert other != "Café-1"
    assert skeleton(other) == skeleton("Café-1")


@pytest.mark.parametrize("other", ["Cafe-1", "café-1", "Café-01", "Café1", "Café_1"])
def test_ids_that_look_different_do_not(other):
    assert skeleton(other) != skeleton("Café-1")


def test_leading_zeros_and_case_are_visible():
    assert len({skeleton(text) for text in ("00123", "123", "1E5", "1e5", "O1", "01")}) == 6


@given(st.text())
def test_a_skeleton_is_its_own(text):
    once = skeleton(text)
    assert skeleton(once) == once
