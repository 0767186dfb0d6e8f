"""The HTML of a report: one file that asks nobody for anything. Every text is escaped here."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dedup_job.kernels.images import Pixels

Cell = str | tuple[str, str]
_MAX_SIDE_PX = 160
_JPEG_QUALITY = 82
_STYLE = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 78rem; padding: 1rem; }
h2 { border-top: 1px solid GrayText; margin-top: 2.5rem; padding-top: 1rem; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { border-bottom: 1px solid color-mix(in srgb, CanvasText 25%, Canvas); padding: .25rem .8rem .25rem 0;
  text-align: right; vertical-align: top; }
th:first-child, td:first-child, .facts td { text-align: left; }
td { white-space: nowrap; }
.facts td { overflow-wrap: anywhere; white-space: normal; }
small { display: block; font-weight: normal; }
img { border-radius: 4px; display: block; height: auto; max-width: 100%; }
img.plot { background: white; }
.grid { --least: 18rem; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--least), 100%), 1fr)); }
.of3 { --least: 26rem; }
.of4 { --least: 35rem; }
figure { border: 1px solid color-mix(in srgb, CanvasText 25%, Canvas); border-radius: 6px; margin: 0;
  min-width: 0; padding: .6rem; }
figure div { display: flex; flex-wrap: wrap; gap: .5rem; }
figure div span { flex: 0 1 8rem; font-size: .8rem; line-height: 1.3; min-width: 0; overflow-wrap: anywhere; }
figure div img { width: 8rem; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page. `reading` is the one sentence that says how to read it; `body` is HTML."""

    anchor: str
    title: str
    reading: str
    body: str


def render_page(title: str, sections: Sequence[Section]) -> str:
    """The whole file."""
    contents = "\n".join(
        f'<li><a href="#{s.anchor}">{html.escape(s.title)}</a></li>' for s in sections
    )
    parts = "\n".join(
        f'<section id="{s.anchor}">\n<h2>{html.escape(s.title)}</h2>\n'
        f"<p>{html.escape(s.reading)}</p>\n{s.body}\n</section>"
        for s in sections
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
<h1>{html.escape(title)}</h1>
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
<main>
{parts}
</main>
</html>
"""


def table(head: Sequence[Cell], rows: Iterable[Sequence[Cell]], look: str = "") -> str:
    """A table; the first cell of a row names it. A pair of texts is a cell and its small print.

    `look` is "facts" for a table of texts, not of numbers.
    """

    def cell(value: Cell) -> str:
        if isinstance(value, str):
            return html.escape(value)
        return f"{html.escape(value[0])}<small>{html.escape(value[1])}</small>"

    heads = "".join(f"<th scope=col>{cell(name)}</th>" for name in head)
    lines = "\n".join(
        f"<tr><th scope=row>{cell(first)}</th>{''.join(f'<td>{cell(v)}</td>' for v in rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="wide"><table class="{look}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def plot(png: bytes, alt: str) -> str:
    """A drawn picture."""
    drawn = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None, "it was drawn just now"
    height, width = drawn.shape[:2]
    return _image(png, "png", alt, width, height, ' class="plot"')


def photo(rgb: Pixels, alt: str) -> str:
    """A photo as JPEG, scaled down if it is large."""
    scale = min(1.0, _MAX_SIDE_PX / max(rgb.shape[:2]))
    if scale < 1:
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done, "cv2 encodes any uint8 picture"
    return _image(data.tobytes(), "jpeg", alt, rgb.shape[1], rgb.shape[0], "")


def card(pictures: Iterable[tuple[str, str]], caption: str) -> str:
    """Pictures side by side, each an `<img>` and the text under it, and a caption for all."""
    spans = "".join(f"<span>{image}{html.escape(text)}</span>" for image, text in pictures)
    return f"<figure><div>{spans}</div><figcaption>{html.escape(caption)}</figcaption></figure>"


def grid(cards: Iterable[str], n_pictures: int = 2) -> str:
    """Cards of so many pictures each, in as many columns as fit."""
    return f'<div class="grid of{n_pictures}">{"".join(cards)}</div>'


def note(text: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(text)}</p>"


def _image(data: bytes, kind: str, alt: str, width: int, height: int, more: str) -> str:
    source = base64.b64encode(data).decode()
    return (
        f'<img loading="lazy" width="{width}" height="{height}" alt="{html.escape(alt)}"{more} '
        f'src="data:image/{kind};base64,{source}">'
    )
