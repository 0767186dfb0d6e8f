"""Every case of hostile and odd input (RELIABILITY 1.4 and 1.5), one test each."""

from pathlib import Path

import pytest

from tests.hostile.table import all_cases, render

PAGE = Path(__file__).parents[2] / "docs" / "hostile-input.md"
CASES = all_cases()


@pytest.mark.parametrize(
    ("section", "case"), [pytest.param(s, c, id=f"{s}: {c.what}") for s, c in CASES]
)
def test_what_becomes_of(section, case, tmp_path, outcomes):
    got = case.run(tmp_path)
    outcomes[section, case.what] = got
    assert got == case.expected


def test_the_cases_differ():
    assert len({(section, case.what) for section, case in CASES}) == len(CASES)


def test_the_page_lists_them():
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "run: python -m tests.hostile.table > docs/hostile-input.md"
    )
