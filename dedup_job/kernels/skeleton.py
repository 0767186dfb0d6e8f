"""What an id looks like: two ids with one skeleton are hard to tell apart by eye.

After Unicode Technical Standard 39, section 4 (skeletons of confusable strings), with the letters that
product ids meet instead of its whole table: composed and decomposed forms, full width, invisible
characters, spaces, and the Cyrillic and Greek letters that are drawn like Latin ones. Case, `O` and `0`
are told apart by eye in most fonts, and ids that use both are common: they stay apart.
"""

import re
import unicodedata

_CYRILLIC = dict(zip("АВЕЅІЈКМНОРСТУХЗаеорсухѕіј", "ABESIJKMHOPCTYX3aeopcyxsij", strict=True))
_GREEK = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧον", "ABEZHIKMNOPTYXov", strict=True))
_DASHES = dict.fromkeys("‐‑‒–—−", "-")
_DRAWN_ALIKE = str.maketrans({**_CYRILLIC, **_GREEK, **_DASHES})
_INVISIBLE = ("Cf", "Cc")  # zero-width spaces and joiners, direction marks, controls
# Letters and marks that are not drawn (Unicode: Default_Ignorable_Code_Point), variation selectors
# among them, and the Braille pattern without a dot.
_UNDRAWN = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_UNDRAWN |= {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_SPACES = re.compile(r"\s+")


def skeleton(text: str) -> str:
    """What `text` looks like; equal for texts that differ only in how they are written.

    `00123` and `123` look different and have different skeletons.
    """
    if text.isascii():
        return _SPACES.sub(" ", text.strip())
    seen = unicodedata.normalize("NFKC", text)
    seen = "".join(
        character
        for character in seen
        if unicodedata.category(character) not in _INVISIBLE and ord(character) not in _UNDRAWN
    )
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", seen.translate(_DRAWN_ALIKE))).strip()
