"""What the gallery shows, and that no text of a catalog can be more than text in it."""

import base64
import hashlib
import json
import re
from datetime import date
from html.parser import HTMLParser

import pytest

from dedup_job.gallery.cards import build_cards
from dedup_job.gallery.page import render_page
from dedup_job.gallery.writing import least_certain
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import DUPLICATE_GROUPS, DUPLICATE_PAIRS, PAIR_DECISIONS
from tests.unit.warehouses import row_of

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "=cmd()",
    "\u2028\u0000&amp;",
    "$data ${policy}",
]


def member(group, sku, survivor, lowest, match_type="near"):
    return row_of(
        DUPLICATE_GROUPS,
        group_id=group,
        sku_id=sku,
        canonical_sku_id=survivor,
        is_canonical=sku == survivor,
        min_pair_cosine=lowest,
        match_type=match_type,
        member_since=date(2026, 1, 1),
    )


def pair(group, a, b, probability, decision=None):
    return row_of(
        DUPLICATE_PAIRS,
        group_id=group,
        sku_id_a=a,
        sku_id_b=b,
        match_probability=probability,
        decision=decision,
    )


GROUPS = [
    member("g1", "a", "b", 0.9),
    member("g1", "b", "b", 0.9),
    member("g1", "c", "b", 0.9, "exact"),
    member("g2", "d", "d", 0.8),
    member("g2", "e", "d", 0.8),
    member("g3", "f", "f", 0.7),
    member("g3", "g", "f", 0.7),
]
PAIRS = [
    pair("g1", "a", "b", 0.95),
    pair("g1", "a", "c", 0.85),
    pair("g2", "d", "e", 0.9),
    pair("g3", "f", "g", 0.6, "same"),
]


def test_cards_the_least_certain_first_and_what_was_decided_last():
    reopened = row_of(PAIR_DECISIONS, sku_id_a="d", sku_id_b="x", outcome="reopened")
    cards = build_cards(
        GROUPS, PAIRS, {"g1": "grown"}, [reopened], {"a": ["1", "2"]}, frozenset({"g1"})
    )
    assert [card["id"] for card in cards] == ["g2", "g1", "g3"]
    first = cards[1]
    assert [m["sku"] for m in first["members"]] == ["b", "a", "c"]
    assert [m["p"] for m in first["members"]] == [None, 0.95, None]
    assert [m["photos"] for m in first["members"]] == [[], ["1", "2"], []]
    assert (first["p"], first["type"], first["change"], first["sample"]) == (
        0.85,
        "near",
        "grown",
        True,
    )
    assert [m["score"] for m in first["members"]] == [None, None, None]
    assert [card["settled"] for card in cards] == [False, False, True]
    assert [card["reopened"] for card in cards] == [True, False, False]


def test_cards_of_a_run_that_verified_pairs_tell_their_scores():
    pairs = [{**PAIRS[0], "score": 0.98765}, *PAIRS[1:]]
    [card] = build_cards(GROUPS[:3], pairs, {}, [], {}, with_scores=True)
    assert [m["score"] for m in card["members"]] == [None, 0.9877, None]


def test_of_many_groups_the_least_alike_are_chosen(tmp_path):
    stored = write_rows(GROUPS, DUPLICATE_GROUPS, Folder(str(tmp_path)))
    assert least_certain(stored, 2) == {"g2", "g3"}
    assert least_certain(stored, 10) == {"g1", "g2", "g3"}


class Elements(HTMLParser):
    """Scripts and styles with their content, and every element's name."""

    def __init__(self):
        super().__init__()
        self.names, self.texts, self.policy, self._open = [], {}, "", "before"

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        known = dict(attributes)
        assert not any(name.startswith("on") for name in known)
        assert not {"src", "srcset"} & known.keys()
        if known.get("http-equiv") == "Content-Security-Policy":
            self.policy = known["content"]
        self._open = known.get("id") or tag

    def handle_data(self, data):
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def handle_endtag(self, tag):
        self._open = "after"


def page_of(text):
    data = {"run_date": "2026-01-01", "store": text, "about": text, "thumbnails": {}}
    card = {"id": "g1", "members": [{"sku": text}]}
    elements = Elements()
    elements.feed(render_page({**data, "groups": [card]}))
    return elements


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_the_catalog_is_no_markup(text):
    elements = page_of(text)
    assert elements.names == page_of("plain").names
    assert json.loads(elements.texts["data"])["groups"][0]["members"][0]["sku"] == text


def test_only_our_own_style_and_script_run():
    elements = page_of("plain")
    for name in ("style", "script"):
        digest = hashlib.sha256(elements.texts[name].encode()).digest()
        assert f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'" in elements.policy
    assert elements.policy.startswith("default-src 'none'; img-src 'self';")
    assert not re.search(
        r"innerHTML|insertAdjacent|document\.write|https?:", elements.texts["script"]
    )
