"""What a case of hostile or odd input is: one row of docs/hostile-input.md, checked by one test.

A case file (`photos.py`, `uris.py`, ...) holds a tuple `CASES`; `table.py` collects them, renders
the page and is what `test_cases.py` runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One input and what becomes of it.

    Attributes:
        what: the input in words, unique within its file of cases.
        expected: what must become of it, in the words that `run` answers with: `ok` or
            `ok: DETAIL`, `reject: REASON` (a reject reason), `error: WORDS` (a DedupError whose
            message holds WORDS).
        run: takes an empty folder, does the real thing with the real code, and says what became
            of the input. It must not answer from `expected`.
    """

    what: str
    expected: str
    run: Callable[[Path], str]
