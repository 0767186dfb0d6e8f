"""Text of strangers made safe for what reads it next: a terminal, or a spreadsheet."""

import re
import unicodedata

_UNSEEN_MARK = "\ufffd"
# Control (escape sequences), format (marks that turn the reading direction, zero width), surrogates,
# separators of lines and of paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What spreadsheets take for the start of a formula (OWASP, CSV injection).
_FORMULA = frozenset("=+-@")
# A spreadsheet that splits at semicolons, as those of many countries do, begins a cell after each.
_CELLS = re.compile("(;)")


def visible(text: str) -> str:
    """The text on one line, each character that cannot be seen itself replaced by U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_UNSEEN_MARK if unicodedata.category(c) in _UNSEEN else c for c in text)


def spreadsheet_text(text: str) -> str:
    """`visible` text that no spreadsheet takes for a formula.

    What would start one gets a leading apostrophe, also behind blanks, quotes and characters that
    are not seen, and in the wide or small forms that are folded to `= + - @`. A text that begins
    with a character that is not seen itself (TAB, CR, NUL) gets one too.
    """
    shown = visible(text)
    parts = _CELLS.split(shown)
    parts = [f"'{part}" if _starts_formula(part) else part for part in parts]
    is_hidden = shown.startswith(_UNSEEN_MARK) and not parts[0].startswith("'")
    return ("'" if is_hidden else "") + "".join(parts)


def _starts_formula(text: str) -> bool:
    for character in text:
        if unicodedata.normalize("NFKC", character)[:1] in _FORMULA:
            return True
        is_skipped = character.isspace() or character in "\"'`" or character == _UNSEEN_MARK
        if not is_skipped:
            return False
    return False
