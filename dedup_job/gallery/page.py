"""The gallery's one HTML file: data and code inside it, nothing asked of any server."""

import base64
import hashlib
import json
from importlib import resources
from string import Template
from typing import Any

_ASSETS = resources.files("dedup_job.gallery") / "assets"


def render_page(data: dict[str, Any]) -> str:
    """The page that shows `data`.

    Only the style and script that come with this package run: the page's content security policy
    names their hashes. Texts of the catalog lie in a JSON block, in which no `<` is left, and enter
    the page as text.

    Args:
        data: run_date, store (names the place where a browser keeps decisions), about, groups (see
            `cards.build_cards`), thumbnails (photo -> true, of those that are there).
    """
    style, script = _asset("gallery.css"), _asset("gallery.js")
    policy = (
        "default-src 'none'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    return Template(_asset("page.html")).substitute(
        policy=policy,
        run_date=data["run_date"],
        style=style,
        script=script,
        data=_json_in_html(data),
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _json_in_html(data: dict[str, Any]) -> str:
    """JSON that ends no element and begins no comment, whatever the texts in it are."""
    text = json.dumps(data, separators=(",", ":"))  # ASCII: no line separator is left either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
