import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.config import CatalogConfig
from dedup_job.errors import CatalogError, ConfigError
from dedup_job.io import catalog_formats as formats
from dedup_job.io.catalog import catalog_base, plan_catalog, read_part
from dedup_job.tables import RAW_CATALOG
from tests import servers

HEADER = b"sku_id,image_uri,title\n"


def read(path, **settings):
    """All rows of a catalog, as read by its parts one after the other."""
    rows = []
    for part in plan_catalog(CatalogConfig(path=str(path), **settings)):
        for batch in read_part(part):
            assert batch.schema.equals(RAW_CATALOG.arrow)
            rows += batch.to_pylist()
    assert [row["position"] for row in rows] == sorted({row["position"] for row in rows})
    return rows


def write(folder, content, name="catalog.csv"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pairs(rows):
    return [(row["sku_id"], row["image_uri"]) for row in rows]


def error_of(path, **settings):
    with pytest.raises(CatalogError) as caught:
        read(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


# CSV


def test_csv_ids_stay_text(tmp_path):
    content = HEADER + b"00123,a.jpg,x\n123,b.jpg,\n1E5,c.jpg,\n \xc3\xbc ,d.jpg,\n,,\n"
    rows = read(write(tmp_path, content))
    assert pairs(rows) == [
        ("00123", "a.jpg"),
        ("123", "b.jpg"),
        ("1E5", "c.jpg"),
        (" ü ", "d.jpg"),
        (None, None),
    ]
    assert [row["catalog_row"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["malformed"] for row in rows] == [None] * 5


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_csv_bom_quotes_and_newlines(tmp_path, newline):
    lines = [
        b"\xef\xbb\xbfsku_id,image_uri,title",
        b'1,"a,b.jpg","two\nlines ""quoted"""',
        b"2,c.jpg,x",
    ]
    rows = read(write(tmp_path, newline.join(lines)))
    assert pairs(rows) == [("1", "a,b.jpg"), ("2", "c.jpg")]


def test_csv_rows_that_cannot_be_read_keep_their_places(tmp_path):
    content = (
        HEADER
        + b"1,a.jpg,x\n"
        + b"2,b.jpg\n"  # a column too few
        + b"\n"  # blank: no row, but counted
        + b"3,c.jpg,x,y\n"  # a column too many
        + b"4,d.jpg,caf\xe9\n"  # Latin-1
        + b"5,e\x00.jpg,x\n"  # NUL is the URI checker's matter
        + b'6,f.jpg,"x"y\n'  # text after a closing quote
        + b'""\n'
        + b"7,g.jpg,x\n"
    )
    rows = read(write(tmp_path, content))
    assert [(row["catalog_row"], row["sku_id"]) for row in rows] == [
        ("0", "1"),
        ("1", None),
        ("3", None),
        ("4", None),
        ("5", "5"),
        ("6", None),
        ("7", None),
        ("8", "7"),
    ]
    problems = [row["malformed"] for row in rows]
    assert problems[1] == "line 3: expected 3 columns, got 2"
    assert problems[2] == "line 5: expected 3 columns, got 4"
    assert problems[3] == "line 6: column 'title' is not UTF-8"
    assert "lines 8-8" in problems[5]
    assert [bool(problem) for problem in problems] == [False, 1, 1, 1, False, 1, 1, False]


def test_csv_quote_that_is_never_closed_is_told_with_its_lines(tmp_path):
    rows = read(write(tmp_path, HEADER + b'1,a.jpg,x\n2,b.jpg,"oops\n3,c.jpg,x\n'))
    assert pairs(rows) == [("1", "a.jpg"), (None, None)]
    assert rows[1]["malformed"].startswith("lines 3-4: ")


def test_csv_value_over_the_limit_costs_its_row_only(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_VALUE_CHARS", 1000)
    long_line = b"2,b.jpg," + b"x" * 5000 + b"\n"
    rows = read(write(tmp_path, HEADER + b"1,a.jpg,x\n" + long_line + b"3,c.jpg,x\n"))
    assert pairs(rows) == [("1", "a.jpg"), (None, None), ("3", "c.jpg")]
    assert "longer than 1000" in rows[1]["malformed"]


def test_csv_with_a_title_of_ten_megabytes(tmp_path):
    rows = read(write(tmp_path, HEADER + b"1,a.jpg," + b"x" * 10_000_000 + b"\n2,b.jpg,y\n"))
    assert pairs(rows) == [("1", "a.jpg"), ("2", "b.jpg")]


def test_csv_optional_and_configured_columns(tmp_path):
    content = (
        b"shop,url,id,image_version,variant_group,colour,price,extra\n"
        b"A,a.jpg,1,v1,G,red,12.50,z\n"
        b"A,b.jpg,2,,,,,z\n"
    )
    settings = {
        "sku_column": "id",
        "uri_column": "url",
        "block_by": ("shop",),
        "conflict": ("colour", "shop"),
        "canonical_order": "price desc, id",
    }
    first, second = read(write(tmp_path, content), **settings)
    assert (first["image_version"], first["variant_group"]) == ("v1", "G")
    assert first["block_values"] == ["A"]
    assert first["conflict_values"] == ["red", "A"]
    assert first["order_values"] == ["12.50", "1"]
    assert (second["image_version"], second["variant_group"]) == (None, None)
    assert second["conflict_values"] == [None, "A"]
    assert second["order_values"] == [None, "2"]


CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(CELL, CELL), max_size=8))
def test_csv_round_trip(cells):
    import csv

    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("sku_id", "image_uri"), *cells])
    stream = io.BytesIO(text.getvalue().encode())
    records = list(formats.read_csv(stream, ",", ["sku_id", "image_uri"]))
    assert [(r.values["sku_id"], r.values["image_uri"]) for r in records] == [
        (sku or None, uri or None) for sku, uri in cells
    ]


@given(st.binary(max_size=200))
def test_csv_and_jsonl_readers_survive_any_bytes(data):
    csv_records = list(formats.read_csv(io.BytesIO(HEADER + data), ",", ["sku_id"]))
    json_records = list(formats.read_jsonl(io.BytesIO(data), ["sku_id"], ["sku_id"]))
    for records in (csv_records, json_records):
        positions = [record.position for record in records]
        assert positions == sorted(set(positions))
        for record in records:
            for text in (record.malformed, record.values.get("sku_id")):
                assert text is None or text.encode().decode() == text
            assert record.malformed is None or "\n" not in record.malformed


# JSON Lines


def test_jsonl(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"sku_id": "00123", "image_uri": "a.jpg", "price": 1.50, "new": true}',
        b'{"sku_id": 12345678901234567890123, "image_uri": "b.jpg"}',
        b"",
        b'{"sku_id": 1.5, "image_uri": "c.jpg"}',
        b'{"sku_id": true, "image_uri": "c.jpg"}',
        b'{"sku_id": ["x"], "image_uri": "c.jpg"}',
        b'["x"]',
        b'{"sku_id": "x"',
        b'{"sku_id": "\\ud800", "image_uri": "c.jpg"}',
        b'{"sku_id": "\xe9", "image_uri": "c.jpg"}',
        b"[" * 100_000,
        b'{"sku_id": null, "title": {"de": "x"}}',
    ]
    rows = read(
        write(tmp_path, b"\n".join(lines), "c.jsonl"), conflict=("new",), canonical_order="price"
    )
    assert [row["catalog_row"] for row in rows] == [str(n) for n in range(12) if n != 2]
    assert pairs(rows[:2]) == [("00123", "a.jpg"), ("12345678901234567890123", "b.jpg")]
    assert rows[0]["order_values"] == ["1.50"]
    assert rows[0]["conflict_values"] == ["true"]
    for row, part in zip(
        rows[2:-1],
        ["decimal", "true or false", "array", "an array", "not JSON", "Unicode", "UTF-8", "JSON"],
        strict=True,
    ):
        assert part in row["malformed"]
    assert (rows[-1]["sku_id"], rows[-1]["malformed"]) == (None, None)


def test_jsonl_line_over_the_limit_costs_its_row_only(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_JSON_BYTES", 100)
    line = json.dumps({"sku_id": "1", "image_uri": "a.jpg"}).encode()
    long_line = json.dumps({"sku_id": "2", "image_uri": "x" * 950}).encode()
    padded = line + b" " * 100 + line  # its beginning is an object, the rest would be lost
    blank = b" " * 100 + line
    content = b"\n".join([line, long_line, line, padded, blank, line])
    rows = read(write(tmp_path, content, "c.jsonl"))
    assert [row["sku_id"] for row in rows] == ["1", None, "1", None, None, "1"]
    assert {row["malformed"] for row in rows if row["malformed"]} == {
        f"line {number}: longer than 100 bytes" for number in (2, 4, 5)
    }


def test_jsonl_keys_may_be_missing_in_some_files(tmp_path):
    write(tmp_path, b'{"sku_id": "1", "image_uri": "a.jpg", "brand": "x"}', "c/1.jsonl")
    write(tmp_path, b'{"sku_id": "2", "image_uri": "b.jpg"}', "c/2.jsonl")
    rows = read(tmp_path / "c", block_by=("brand",))
    assert [row["block_values"] for row in rows] == [["x"], [None]]


# Parquet


def write_parquet(folder, columns, name="catalog.parquet", **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_ids_and_values_become_text(tmp_path):
    path = write_parquet(
        tmp_path,
        {
            "sku_id": pa.array([7, 2**63 - 1, None], pa.int64()),
            "image_uri": pa.array(["a.jpg", "b.jpg", None]).dictionary_encode(),
            "variant_group": pa.array([b"G", b"\xff", None], pa.binary()),
            "price": [1.5, None, 2.0],
            "day": pa.array([0, 1, None], pa.timestamp("ns", tz="Europe/Paris")),
            "new": [True, False, None],
            "nested": [[1], [2], [3]],
        },
    )
    rows = read(path, canonical_order="price, day desc, new")
    assert pairs(rows) == [("7", "a.jpg"), (None, None), (None, None)]
    assert rows[0]["order_values"] == ["1.5", "1970-01-01 00:00:00.000000", "true"]
    assert rows[0]["variant_group"] == "G"
    assert rows[1]["malformed"] == "column 'variant_group' is not UTF-8"
    assert rows[2]["malformed"] is None


def test_parquet_row_groups_are_read_in_parts_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("dedup_job.io.catalog._PART_ROWS", 250)
    ids = [str(n) for n in range(1000)]
    path = write_parquet(tmp_path, {"sku_id": ids, "image_uri": ids}, row_group_size=100)
    assert len(plan_catalog(CatalogConfig(path=str(path)))) == 4
    rows = read(path)
    assert [row["sku_id"] for row in rows] == ids
    assert [row["catalog_row"] for row in rows] == ids


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"sku_id": [1.5], "image_uri": ["a"]}, "'sku_id' is double"),
        ({"sku_id": [["x"]], "image_uri": ["a"]}, "'sku_id' is list"),
        ({"sku_id": ["x"], "image_uri": [{"a": 1}]}, "'image_uri' is struct"),
        ({"sku_id": ["x"], "image_uri": ["a"], "price": [[1]]}, "'price' is list"),
    ],
)
def test_parquet_types_that_are_no_text(tmp_path, columns, part):
    columns = {"price": [1], **columns}
    assert part in error_of(write_parquet(tmp_path, columns), canonical_order="price")


def test_parquet_that_is_truncated_or_damaged(tmp_path):
    data = write_parquet(tmp_path, {"sku_id": ["1"], "image_uri": ["a"]}).read_bytes()
    for content in (data[:-20], data[: len(data) // 2], b"", b"PAR1"):
        message = error_of(write(tmp_path, content, "broken.parquet"))
        assert "broken.parquet" in message and "Parquet" in message


def test_parquet_with_damaged_pages_is_an_error_not_fewer_rows(tmp_path):
    ids = [f"{n:08}" for n in range(1000)]
    path = write_parquet(tmp_path, {"sku_id": ids, "image_uri": ids}, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    assert "cannot be read" in error_of(path)


READ_AND_MEASURE = """
import re, sys
from pathlib import Path
from dedup_job.config import CatalogConfig
from dedup_job.io.catalog import plan_catalog, read_part
parts = plan_catalog(CatalogConfig(path=sys.argv[1]))
n_rows = sum(batch.num_rows for part in parts for batch in read_part(part))
print(n_rows, int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux for the peak")
def test_parquet_with_one_long_text_in_every_row_takes_little_memory(tmp_path):
    n_rows, uri = 1000, "data:image/png;base64," + "A" * 500_000
    columns = {"sku_id": [f"{n}" for n in range(n_rows)], "image_uri": [uri] * n_rows}
    path = write_parquet(tmp_path, columns)
    assert path.stat().st_size < 100_000
    command = [sys.executable, "-c", READ_AND_MEASURE, str(path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    n_read, peak_mb = map(int, told.split())
    assert n_read == n_rows
    assert peak_mb < 700  # 2,000 where a thousand rows are read at once


def test_parquet_without_rows_is_a_catalog_without_rows(tmp_path):
    path = write_parquet(
        tmp_path, {"sku_id": pa.array([], pa.string()), "image_uri": pa.array([], pa.string())}
    )
    assert read(path) == []


# Folders


def test_folder_of_catalog_files(tmp_path):
    write(tmp_path, HEADER + b"1,a.jpg,x\n2,b.jpg\n", "c/part-0.csv")
    write(tmp_path, b"title,image_uri,sku_id\nx,c.jpg,3\n", "c/sub/part-1.csv")
    write(tmp_path, b"ignored", "c/_SUCCESS")
    write(tmp_path, b"ignored", "c/.part-0.csv.crc")
    write(tmp_path, b"ignored", "c/_temporary/part-9.csv")
    rows = read(tmp_path / "c")
    assert [row["catalog_row"] for row in rows] == [
        "part-0.csv:0",
        "part-0.csv:1",
        "sub/part-1.csv:0",
    ]
    assert [row["sku_id"] for row in rows] == ["1", None, "3"]
    assert catalog_base(CatalogConfig(path=str(tmp_path / "c"))) == str(tmp_path / "c")


def test_folder_of_images(tmp_path):
    for name in ("b/red.JPG", "a.jpg", "a.PNG", "x:y.webp", "notes.txt.bak"):
        write(tmp_path, b"x", f"photos/{name}")
    folder = tmp_path / "photos"
    rows = read(folder)
    assert pairs(rows) == [
        ("a", "a.PNG"),
        ("a", "a.jpg"),
        ("b/red", "b/red.JPG"),
        ("x:y", "./x:y.webp"),
    ]
    assert read(folder, image_root=str(folder)) == rows
    assert "catalog.image_root" in error_of(folder, image_root="/elsewhere")
    assert "catalog.block_by" in error_of(folder, block_by=("brand",))


def test_image_whose_name_is_not_utf8_is_malformed(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert [row["malformed"] for row in read(tmp_path)] == ["file name is not UTF-8"]


def test_format_auto_looks_inside_when_the_suffix_says_nothing(tmp_path):
    assert read(write(tmp_path, HEADER + b"1,a.jpg,x\n", "catalog"))[0]["sku_id"] == "1"
    line = b'{"sku_id": "1", "image_uri": "a"}'
    assert read(write(tmp_path, b"\n " + line, "export"))[0]["sku_id"] == "1"
    parquet = write_parquet(tmp_path, {"sku_id": ["1"], "image_uri": ["a"]}, "catalog.csv")
    assert read(parquet)[0]["sku_id"] == "1"
    assert read(write(tmp_path, line, "c.csv"), format="jsonl")[0]["sku_id"] == "1"


# Errors of the whole catalog


def test_missing_catalogs(tmp_path):
    assert "--catalog" in error_of("")
    assert "not found" in error_of(tmp_path / "no.csv")
    assert "no catalog files and no photos" in error_of(tmp_path)
    assert "scheme 'ftp'" in error_of("ftp://host/catalog.csv")
    assert "scheme 'https'" in error_of("https://u:SECRET@host/catalog.csv")
    assert "needs a folder" in error_of(write(tmp_path, HEADER), format="images")


def test_a_folder_of_mixed_formats_must_be_chosen_from(tmp_path):
    write(tmp_path, HEADER, "a.csv")
    write(tmp_path, b"{}", "b.jsonl")
    assert "csv and jsonl" in error_of(tmp_path)
    assert read(tmp_path, format="csv") == []


@pytest.mark.parametrize(
    ("content", "settings", "parts"),
    [
        (b"", {}, ["empty", "header"]),
        (b"\n\n", {}, ["empty"]),
        (b"sku,image_uri\n", {}, ["'sku_id' not found", "'sku', 'image_uri'", "sku_column=sku"]),
        (b"id,IMAGE_URI\n", {"sku_column": "id"}, ["uri_column=IMAGE_URI"]),
        (b"x,y\n", {}, ["catalog.sku_column=COLUMN"]),
        (b"sku_id;image_uri\n", {}, ["delimiter", "';'"]),
        (b"sku_id,image_uri,sku_id\n", {}, ["'sku_id' stands 2 times"]),
        (HEADER, {"block_by": ("brand",)}, ["'brand' not found", "catalog.block_by"]),
        (HEADER, {"conflict": ("color",)}, ["'color' not found", "catalog.conflict"]),
        (HEADER, {"canonical_order": "tite"}, ["catalog.canonical_order=title"]),
        (HEADER, {"variant_column": "titel"}, ["there are: 'sku_id'", "variant_column=title"]),
        (HEADER, {"version_column": "etag"}, ["'etag' not found", "catalog.version_column"]),
        ("sku_id,größe\n".encode("latin-1"), {}, ["not UTF-8", "iconv"]),
        ("sku_id,image_uri\n".encode("utf-16"), {}, ["not UTF-8"]),
        (b'sku_id,"image_uri\n', {}, ["header is not CSV"]),
    ],
)
def test_headers_that_do_not_do(tmp_path, content, settings, parts):
    message = error_of(write(tmp_path, content), **settings)
    for part in [*parts, "catalog.csv"]:
        assert part in message


def test_jsonl_that_does_not_do(tmp_path):
    assert "empty" in error_of(write(tmp_path, b"\n", "a.jsonl"))
    assert "JSON object" in error_of(write(tmp_path, b"sku_id,image_uri\n1,a", "b.jsonl"))
    assert "'sku_id' not found" in error_of(write(tmp_path, b'{"sku": 1}', "c.jsonl"))


def test_duplicate_names_of_ignored_columns_do_no_harm(tmp_path):
    assert read(write(tmp_path, b"sku_id,image_uri,,,x,x\n1,a,,,,\n"))[0]["sku_id"] == "1"


def test_base_of_relative_uris(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, root, base in [
        ("/shop/catalog.csv", None, "/shop"),
        ("/catalog.csv", None, "/"),
        ("catalog.csv", None, str(tmp_path)),
        ("file:///shop%20x/catalog.csv", None, "/shop x"),
        ("/shop/catalog.csv", "photos", str(tmp_path / "photos")),
        ("/shop/catalog.csv", "s3://bucket/photos/", "s3://bucket/photos"),
        ("/shop/catalog.csv", "https://cdn.example/p/", "https://cdn.example/p"),
    ]:
        assert catalog_base(CatalogConfig(path=path, image_root=root)) == base
    with pytest.raises(ConfigError, match=r"catalog\.image_root: scheme 'ftp'"):
        catalog_base(CatalogConfig(path="/c.csv", image_root="ftp://x/y"))


@pytest.mark.parametrize(
    ("root", "part"),
    [
        ("https://cdn.example/p?sig=SECRET", "query"),
        ("HTTP://cdn.example/p/?SECRET", "query"),
        ("https://cdn.example/p#SECRET", "fragment"),
        ("https://u:SECRET@cdn.example/p", "user name"),
        ("https:///SECRET", "host"),
        ("https:SECRET", "HOST"),
    ],
)
def test_a_web_image_root_is_a_plain_prefix(root, part):
    with pytest.raises(ConfigError) as caught:
        catalog_base(CatalogConfig(path="/c.csv", image_root=root))
    message = str(caught.value)
    assert "catalog.image_root" in message
    assert part in message
    assert "SECRET" not in message
    assert "\n" not in message


# Object store


def test_catalogs_in_an_object_store(s3_server, tmp_path):
    parquet = write_parquet(tmp_path, {"sku_id": ["1"], "image_uri": ["a.jpg"]}).read_bytes()
    s3_server.create_bucket(
        "catalogs",
        {
            "one/catalog.csv": HEADER + b"1,a.jpg,x\n2,b.jpg\n",
            "one/images/a.jpg": b"x",
            "two/part-0.parquet": parquet,
            "two/part-1.parquet": parquet,
            "two/_SUCCESS": b"",
            "three/x/red.jpg": b"x",
        },
    )
    rows = read("s3://catalogs/one/catalog.csv")
    assert pairs(rows) == [("1", "a.jpg"), (None, None)]
    rows = read("s3://catalogs/two/")
    assert [row["catalog_row"] for row in rows] == ["part-0.parquet:0", "part-1.parquet:0"]
    assert pairs(read("s3://catalogs/three")) == [("x/red", "x/red.jpg")]
    config = CatalogConfig(path="s3://catalogs/one/catalog.csv")
    assert catalog_base(config) == "s3://catalogs/one"
    assert catalog_base(CatalogConfig(path="s3://catalogs/two/")) == "s3://catalogs/two"
    assert "not found" in error_of("s3://catalogs/no.csv")
    assert "not found" in error_of("s3://no-such-bucket/no.csv")


def test_an_object_store_that_does_not_answer_is_one_line(monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "SECRET",
        "AWS_SECRET_ACCESS_KEY": "SECRET",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    servers.forget_s3_filesystems()
    message = error_of("s3://catalogs/a.csv")
    servers.forget_s3_filesystems()
    assert "no connection to s3" in message and "SECRET" not in message
