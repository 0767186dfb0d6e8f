"""Two photos explained: what the model looks at, and where they differ. As PNG, or as HTML with facts."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dedup_job.kernels.alignment import LaidOver, lay_over
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.occlusion import Comparison, Embed, compare_places, overlay

_SIDE, _GAP, _HEAD = 320, 12, 28
_TITLES = (
    ("photo A, as the model sees it", "photo B"),
    ("what counts in A", "what counts in B"),
)
_APART = ("where they differ, on A", "where they differ, on B (not the same shot)")
_OVER = ("what parts them for the model, on A", "what differs in colour, B laid over A")
# CIE76 units: how much above the cold ones is as hot as it gets; a photo saved anew differs by 2 or 3.
_HOT_COLOUR, _COLD_COLOUR = 20.0, 6.0
_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem; }
img { max-width: 100%; } th { text-align: left; padding-right: 1rem; vertical-align: top; }
"""


@dataclass(frozen=True)
class Explained:
    """Two photos, compared place by place.

    Attributes:
        places: what the model sees; its difference is of b as it lies over a, where it does.
        laid_over: b over a; None where the two are not the same shot.
    """

    places: Comparison
    laid_over: LaidOver | None

    @property
    def fact(self) -> tuple[str, str]:
        """Whether the photos lie over each other, for a table of facts."""
        if self.laid_over is None:
            return (
                "shots",
                "they do not lie over each other: taken apart, or too little to hold on to",
            )
        return "shots", f"one lies over the other: {self.laid_over.n_matches} details agree"


def explain_photos(a: Pixels, b: Pixels, embed: Embed) -> Explained:
    """Compare two photos: what the model sees in them, and what differs once b lies over a.

    Args:
        a: uint8 (size, size, 3) RGB, as the model takes it.
        b: the same of the other photo.
        embed: uint8 (n, size, size, 3) to float32 (n, d) unit rows.
    """
    laid_over = lay_over(a, b)
    places = compare_places(a, b, embed, laid_over.pixels if laid_over else None)
    return Explained(places, laid_over)


def draw_explanation(a: Pixels, b: Pixels, explained: Explained) -> bytes:
    """A PNG of three rows: the photos, what counts in each, and where the two differ.

    Args:
        a: uint8 (size, size, 3) RGB, as the model takes it.
        b: the same of the other photo.
        explained: the two compared.
    """
    places = explained.places
    pictures = [(a, b), (overlay(a, places.attention_a), overlay(b, places.attention_b))]
    if explained.laid_over is None:
        pictures.append((overlay(a, places.difference), overlay(b, places.difference)))
    else:
        apart = np.clip(explained.laid_over.difference - _COLD_COLOUR, 0, _HOT_COLOUR)
        colours = overlay(explained.laid_over.pixels, apart / _HOT_COLOUR, own_scale=False)
        pictures.append((overlay(a, places.difference), colours))
    titles = (*_TITLES, _APART if explained.laid_over is None else _OVER)
    done, data = cv2.imencode(".png", cv2.cvtColor(_sheet(pictures, titles), cv2.COLOR_RGB2BGR))
    assert done, "cv2 encodes any uint8 picture"
    return data.tobytes()


def _sheet(
    pictures: Sequence[tuple[Pixels, Pixels]], titles: Sequence[tuple[str, str]]
) -> NDArray[np.uint8]:
    """Rows of two pictures, a title over each."""
    height, width = len(pictures) * (_SIDE + _HEAD + _GAP), 2 * _SIDE + 3 * _GAP
    sheet = np.full((height, width, 3), 255, np.uint8)
    for i, row in enumerate(zip(pictures, titles, strict=True)):
        top = i * (_SIDE + _HEAD + _GAP)
        for j, (picture, title) in enumerate(zip(*row, strict=True)):
            left = _GAP + j * (_SIDE + _GAP)
            scaled = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
            sheet[top + _HEAD : top + _HEAD + _SIDE, left : left + _SIDE] = scaled
            cv2.putText(
                sheet,
                title,
                (left, top + _HEAD - 9),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.5,
                (20, 20, 20),
                1,
                cv2.LINE_AA,
            )
    return sheet


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
