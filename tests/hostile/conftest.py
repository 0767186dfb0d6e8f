"""Keeps what every case got, and writes it down as a table when the tests have run."""

from pathlib import Path

import pytest

from tests.hostile.table import render

REPORT = Path(__file__).parents[2] / "build" / "hostile-input.md"


@pytest.fixture(scope="session")
def outcomes():
    """(section, what) -> what became of it; written to build/hostile-input.md at the end."""
    got: dict[tuple[str, str], str] = {}
    yield got
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(render(got), encoding="utf-8")
