"""Execute `docs/tour.ipynb` and write it back with its outputs: `python scripts/execute_tour.py`.

Times of cells and versions of Python are left out, so that a change in the file is a change in the
notebook. The digest of the executed sources lets a test tell an edit that was not run.
"""

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

TOUR = Path(__file__).parents[1] / "docs/tour.ipynb"
DIGEST = "executed_sources_sha256"
_CELL_TIMEOUT_S = 300


def execute(notebook: NotebookNode) -> NotebookNode:
    """Execute all cells in a fresh kernel and a temporary folder.

    Returns:
        The notebook with its outputs and nothing of this machine.

    Raises:
        CellExecutionError: a cell failed.
        CellTimeoutError: a cell took longer than five minutes.
    """
    with tempfile.TemporaryDirectory() as home:
        client = NotebookClient(
            notebook,
            timeout=_CELL_TIMEOUT_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": home}},
        )
        executed = client.execute(env={**os.environ, "IPYTHONDIR": home})
    executed.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
        **{DIGEST: sources_digest(executed)},
    )
    return executed


def sources_digest(notebook: NotebookNode) -> str:
    """SHA-256 over the sources of the code cells, in order."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def main() -> None:
    """Execute the notebook of the documentation."""
    parser = argparse.ArgumentParser(description="Execute docs/tour.ipynb.")
    parser.add_argument("--out", type=Path, default=TOUR, help="file to write [the notebook]")
    out = parser.parse_args().out
    nbformat.write(execute(nbformat.read(TOUR, as_version=4)), out)


if __name__ == "__main__":
    main()
