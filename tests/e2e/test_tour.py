"""The notebook `docs/tour.ipynb`, executed from its first cell to its last, and as it is committed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from scripts.execute_tour import DIGEST, TOUR, sources_digest

ROOT = Path(__file__).parents[2]
AGAIN = "execute it anew: .venv/bin/python scripts/execute_tour.py"
_LARGEST_BYTES = 600_000
# Two folders below the root: a place on somebody's machine.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.<:/])/[\w.~-]+/[\w.~-]+")


def _code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def _texts(cell):
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (text for kind, text in output.get("data", {}).items() if "text/" in kind)


def _shown(cell):
    """What a cell puts out, by kind: text, tables, pictures."""
    return [(one.output_type, sorted(one.get("data", {}))) for one in cell.outputs]


def _check_executed(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    cells = _code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), AGAIN
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
        assert not [text for text in _texts(cell) if _ABSOLUTE_PATH.search(text)]


@pytest.mark.spark
@pytest.mark.slow
def test_the_notebook_runs_from_start_to_end_and_shows_what_is_committed(tmp_path):
    executed, places = tmp_path / "tour.ipynb", tmp_path / "places"
    places.mkdir()
    # A process of its own: kernels leave threads and sockets, which are none of other tests'.
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/execute_tour.py", "--out", executed],
        env={**os.environ, "TMPDIR": str(places)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    _check_executed(executed)
    assert not [place for place in places.iterdir() if place.name.startswith("tour-")]
    shown = [_shown(cell) for cell in _code_cells(executed)]
    assert shown == [_shown(cell) for cell in _code_cells(TOUR)], AGAIN


def test_the_committed_notebook_is_executed_and_current():
    _check_executed(TOUR)
    notebook = nbformat.read(TOUR, as_version=4)
    assert notebook.metadata[DIGEST] == sources_digest(notebook), AGAIN
    kinds = [kind for cell in _code_cells(TOUR) for _, kinds in _shown(cell) for kind in kinds]
    assert len([kind for kind in kinds if kind.startswith("image/")]) >= 7


def test_the_committed_notebook_is_small():
    assert TOUR.stat().st_size < _LARGEST_BYTES


def test_the_notebook_carries_its_own_checks():
    asserts = [line for cell in _code_cells(TOUR) for line in cell.source.splitlines()]
    asserts = [line for line in asserts if line.startswith("assert ")]
    for words in ('groups["size"] >= 2', "precision >= ", "recall >= ", 'chance["planted"] < '):
        assert [line for line in asserts if words in line], words
