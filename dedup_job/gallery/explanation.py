"""Two photos explained: what the model looks at, and where they differ. As PNG, or as HTML with facts."""

import base64
import html
from collections.abc import Iterable

import cv2
import numpy as np

from dedup_job.kernels.images import Pixels
from dedup_job.kernels.occlusion import Comparison, overlay

_SIDE, _GAP, _HEAD = 320, 12, 28
_TITLES = (
    ("photo A, as the model sees it", "photo B"),
    ("what counts in A", "what counts in B"),
    ("where they differ, on A", "where they differ, on B"),
)
_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem; }
img { max-width: 100%; } th { text-align: left; padding-right: 1rem; vertical-align: top; }
"""


def draw_explanation(a: Pixels, b: Pixels, comparison: Comparison) -> bytes:
    """A PNG of three rows: the photos, what counts in each, and where the two differ.

    Args:
        a: uint8 (size, size, 3) RGB, as the model takes it.
        b: the same of the other photo.
        comparison: of the two.
    """
    rows = (
        (a, b),
        (overlay(a, comparison.attention_a), overlay(b, comparison.attention_b)),
        (overlay(a, comparison.difference), overlay(b, comparison.difference)),
    )
    sheet = np.full((len(rows) * (_SIDE + _HEAD + _GAP), 2 * _SIDE + 3 * _GAP, 3), 255, np.uint8)
    for i, (pictures, titles) in enumerate(zip(rows, _TITLES, strict=True)):
        top = i * (_SIDE + _HEAD + _GAP)
        for j, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
            left = _GAP + j * (_SIDE + _GAP)
            scaled = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
            sheet[top + _HEAD : top + _HEAD + _SIDE, left : left + _SIDE] = scaled
            place = (left, top + _HEAD - 9)
            cv2.putText(
                sheet, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA
            )
    done, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert done, "cv2 encodes any uint8 picture"
    return data.tobytes()


def render_explanation(title: str, facts: Iterable[tuple[str, str]], png: bytes) -> str:
    """The picture and what is known, as one HTML file that asks nobody for anything.

    Args:
        title: of the page; any text.
        facts: name and text of each fact; any text.
        png: from `draw_explanation`.
    """
    rows = "\n".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in facts
    )
    picture = base64.b64encode(png).decode()
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
<h1>{html.escape(title)}</h1>
<table>{rows}</table>
<p><img alt="Both photos; what counts in each; where they differ" src="data:image/png;base64,{picture}"></p>
</html>
"""
