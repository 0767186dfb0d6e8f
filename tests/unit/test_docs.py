"""Documents that repeat what the code declares must not drift from it."""

import pytest

from dedup_job.docs import ROOT, fill_blocks, render_all, render_settings, render_tables
from dedup_job.errors import RejectReason
from dedup_job.settings import all_keys
from dedup_job.tables import REPORT_TABLES, STATE_TABLES


@pytest.mark.parametrize("path", render_all(), ids=lambda path: path.name)
def test_document_is_current(path):
    message = f"{path.relative_to(ROOT)} is stale; run: python -m dedup_job.docs"
    assert path.read_text(encoding="utf-8") == render_all()[path], message


def test_the_dictionary_has_every_column_and_reason():
    text = render_tables()
    for table in (*REPORT_TABLES, *STATE_TABLES):
        section = text.split(f"## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            null = " NULL" if column.nullable else ""
            assert f"| `{column.name}` | {column.type}{null} | {column.meaning} |" in section
    for reason in RejectReason:
        assert f"| `{reason}` |" in text


def test_every_setting_is_listed():
    text = render_settings()
    for key in all_keys():
        assert f"| `{key}` |" in text


def test_blocks_are_replaced_and_a_missing_one_is_an_error():
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"
    assert fill_blocks(text, {"x": ["new"]}) == "a\n<!-- x:begin -->\n\nnew\n\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="expected one block 'y'"):
        fill_blocks(text, {"y": ["new"]})
