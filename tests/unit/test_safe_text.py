"""Text of a catalog on a terminal and in a spreadsheet."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.commands.safe_text import spreadsheet_text, visible

# Written out here, not taken from the code: OWASP's starts, and what is folded to them.
STARTS = ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\ufe66", "\ufe62"]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "before", ["", " ", "\u00a0\u3000", '"', "'", " ' ", "\t", "\r", "\n", "\0"]
)
def test_what_starts_a_formula_gets_an_apostrophe(start, before):
    shown = spreadsheet_text(f"{before}{start}1+1")
    assert shown.startswith("'")
    assert shown.endswith(f"{start}1+1")


@pytest.mark.parametrize("text", ["\tx", "\rx", "\nx", "\0x", "\ufeffx"])
def test_a_text_that_begins_unseen_gets_an_apostrophe(text):
    assert spreadsheet_text(text) == "'\ufffdx"


def test_a_cell_that_begins_at_a_semicolon_is_no_formula_either():
    assert spreadsheet_text("red; =1+1;-2") == "red;' =1+1;'-2"


@pytest.mark.parametrize("text", ["", "A-1", "00123", "1E5", "a = b", "Größe 38", "x\u200a1", "👕"])
def test_other_text_stays_as_it_is(text):
    assert spreadsheet_text(text) == text
    assert visible(text) == text


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\u202ecod", "\u2066x", "\u200bx", "a\u2028b", "\x7f"],
)
def test_what_is_not_seen_is_shown(text):
    assert "\ufffd" in visible(text)
    assert not set(visible(text)) & set("\x1b\x07\x9b\u202e\u2066\u200b\u2028\x7f")


@given(st.text())
def test_every_text_becomes_one_line_without_commands_or_formulas(text):
    shown = spreadsheet_text(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not shown.lstrip().startswith(tuple(STARTS))
    assert len(visible(text)) == len(text)
