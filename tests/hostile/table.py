"""All cases of hostile input, and the page that lists them.

python -m tests.hostile.table > docs/hostile-input.md
"""

from importlib import import_module
from itertools import chain

from tests.hostile.cases import Case

# Section of the page -> its file of cases.
SECTIONS = {
    "Photos": "photos",
    "URIs": "uris",
    "Answers of web servers": "servers",
    "Catalogs": "catalogs",
    "Reports": "reports",
    "Models and indexes": "models",
}
_HEAD = """# What becomes of hostile and odd input

Every line is a test (`pytest tests/hostile`), and this page is made from them
(`python -m tests.hostile.table`). `reject` is a row of `rejected_images` with that reason; the other
rows of the catalog are not touched. `error` ends the command with that sentence before anything is
published.
"""


def load_cases() -> dict[str, tuple[Case, ...]]:
    """The cases by section."""
    return {title: import_module(f"tests.hostile.{name}").CASES for title, name in SECTIONS.items()}


def all_cases() -> list[tuple[str, Case]]:
    """Every case with its section."""
    return [(title, case) for title, cases in load_cases().items() for case in cases]


def render(outcomes: dict[tuple[str, str], str] | None = None) -> str:
    """The page; with `outcomes` ((section, what) -> got) also what a test run got."""
    lines = [_HEAD]
    for title, cases in load_cases().items():
        columns = ["input", "expected", *(["got"] if outcomes is not None else [])]
        lines += [f"## {title}", "", _row(columns), _row("---" for _ in columns)]
        for case in cases:
            got = [] if outcomes is None else [outcomes.get((title, case.what), "not run")]
            lines.append(_row([case.what, case.expected, *got]))
        lines.append("")
    return "\n".join(lines)


def _row(cells) -> str:
    return "| " + " | ".join(chain(cell.replace("|", "\\|") for cell in cells)) + " |"


if __name__ == "__main__":
    print(render(), end="")
