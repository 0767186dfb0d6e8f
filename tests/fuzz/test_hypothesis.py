"""The same promises, on inputs that hypothesis builds and makes small when they break one."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import photos
from tests.fuzz.targets import open_target

OUTCOMES = {
    "photos": {"ok", *photos.ALLOWED},
    "uris": {"ok", "uri_refused", "not_found", "asked a bucket"},
    "catalogs": {"ok", "CatalogError"},
    "decisions": {"ok", "ConfigError"},
}


@pytest.fixture(scope="module")
def run():
    """Runs a case of a target; a broken promise raises."""
    targets = {
        "photos": open_target("photos", foreign=False),
        **{name: open_target(name) for name in ("uris", "catalogs", "decisions")},
    }

    def run_case(name, case):
        outcome = targets[name].run(case)
        assert outcome in OUTCOMES[name]
        return outcome

    return run_case


# Photos

EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6
)


@given(st.sampled_from(photos.own_seeds()), EDITS)
@settings(max_examples=300)
def test_edited_photos(run, seed, edits):
    data = bytearray(seed)
    for place, n_dropped, new in edits:
        at = int(place * len(data))
        data[at : at + n_dropped] = new
    run("photos", bytes(data))


@given(st.sampled_from([b"", *(seed[:12] for seed in photos.own_seeds())]), st.binary())
def test_anything_behind_the_mark_of_a_format(run, mark, rest):
    run("photos", mark + rest)


# URIs

PLAIN = st.text(st.characters(codec=None, categories=None, exclude_categories=()), max_size=30)
AUTHORITY = st.text("abu:@.[]%0127/\\?#é", max_size=20)
PATH = st.lists(st.sampled_from(["..", ".", "%2e%2e", "a.jpg", "link.jpg", "folder", "", "@IN@"]))
URIS = st.one_of(
    PLAIN,
    st.builds(
        "{}{}{}/{}{}".format,
        st.sampled_from(["", "file", "FILE", "s3", "gs", "http", "https", "x::file"]),
        st.sampled_from(["", ":", "://", ":///", "//"]),
        AUTHORITY,
        PATH.map("/".join),
        st.sampled_from(["", "?sig=s3cretq", "#s3cretq"]),
    ),
)


@given(st.integers(0, 7), URIS)
@settings(max_examples=300)
def test_uris(run, base, uri):
    run("uris", bytes([base]) + uri.encode("utf-8", "surrogatepass"))


# Files of rows

CELLS = st.one_of(st.sampled_from(["", " ", "1", "a.jpg", "same", '"', "\n"]), st.text(max_size=8))


def as_csv(names, rows):
    stream = io.StringIO()
    csv.writer(stream).writerows([names, *rows])
    return stream.getvalue().encode()


def rows_of(n_columns):
    return st.lists(st.lists(CELLS, min_size=n_columns, max_size=n_columns), max_size=6)


@given(rows_of(3))
def test_every_row_that_a_csv_writer_writes_is_read(run, rows):
    case = b"\x02" + as_csv(["sku_id", "image_uri", "title"], rows)
    assert run("catalogs", case) == "ok"


@given(st.lists(st.dictionaries(st.sampled_from(["sku_id", "image_uri", "x"]), CELLS), min_size=1))
def test_json_lines(run, rows):
    lines = "\n".join(json.dumps(row) for row in rows)
    outcome = run("catalogs", b"\x03" + lines.encode())
    keys = {key for row in rows for key in row}
    assert (outcome == "ok") == ({"sku_id", "image_uri"} <= keys)


@given(
    st.integers(0, 15), st.sampled_from([b"", b"PAR1", b"sku_id,image_uri\n", b"{"]), st.binary()
)
def test_any_catalog_file(run, how, beginning, rest):
    run("catalogs", bytes([how]) + beginning + rest)


@given(rows_of(3))
def test_decisions_that_a_csv_writer_writes(run, rows):
    assert run("decisions", as_csv(["sku_id_a", "sku_id_b", "decision"], rows)) == "ok"


@given(st.sampled_from([b"", b"PAR1", b"sku_id_a,sku_id_b,decision\n"]), st.binary())
def test_any_decisions_file(run, beginning, rest):
    run("decisions", beginning + rest)
