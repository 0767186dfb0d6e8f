"""Catalogs as they arrive: planned, read and judged row by row with the job's own code.

An answer names what became of every row, in order: `reject: REASONS; ok: IDS`. Where a case is about
one row, it stands between the rows `before` and `after`, which must keep their photos.
"""

import gzip
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup_job.config import CatalogConfig
from dedup_job.errors import CatalogError
from dedup_job.io import catalog_files
from dedup_job.io.catalog import catalog_base, plan_catalog, read_part
from dedup_job.stages.catalog import judge_row
from tests.hostile.cases import Case

_HEADER = b"sku_id,image_uri,title\n"
_NEIGHBOURS = ("before", "after")
_BEFORE, _AFTER = b"before,before.jpg,x\n", b"after,after.jpg,x\n"
_KEPT = "ok: before, after"
_MALFORMED, _NULL_SKU = f"reject: malformed_row; {_KEPT}", f"reject: null_sku; {_KEPT}"
_NOT_UTF8 = "its header is not UTF-8; convert it, for example with iconv -t UTF-8"
_NO_PARQUET = "error: catalog c.parquet: it is not a readable Parquet file"


def judge(path: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every row of a catalog with its verdict, as `classify_catalog` first gives it."""
    config = CatalogConfig(path=str(path), **settings)
    base = catalog_base(config)
    parts = plan_catalog(config)
    rows = [row for part in parts for batch in read_part(part) for row in batch.to_pylist()]
    judged = [judge_row(row, base) for row in rows]
    assert len({row["catalog_row"] for row in judged}) == len(judged)
    return judged


def outcome(path: Path, settings: Mapping[str, Any], show: str = "sku_id") -> str:
    """What becomes of a catalog; `show`: the column that stands for a usable row."""
    try:
        rows = judge(path, settings)
    except CatalogError as error:
        message = str(error)
        assert message.isprintable()
        message = message.replace(f"{path.parent}/", "")
        # What a library says behind the last colon changes with its release.
        return "error: " + re.sub(r"(Parquet file|cannot be read): .*", r"\1", message)
    for row in rows:
        if row["sku_id"] in _NEIGHBOURS and row["reason"] is None:
            assert row["source_uri"].endswith(f"/{row['sku_id']}.jpg"), "a row has shifted"
    rejects = ", ".join(row["reason"] for row in rows if row["reason"])
    usable = ", ".join(_shown(row[show]) for row in rows if not row["reason"])
    answers = {"reject: ": rejects, "ok: ": usable}
    return "; ".join(what + found for what, found in answers.items() if found) or "ok: no row"


def _shown(text: str) -> str:
    return ascii(text)[1:-1] if len(text) < 100 else f"{len(text)} characters"


def _files(what: str, expected: str, files: Mapping[str, bytes], **settings: Any) -> Case:
    """A catalog of some files: the first is its path, or the folder `c` where they lie in it."""

    def run(folder: Path) -> str:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return outcome(folder / next(iter(files)).split("/")[0], settings)

    return Case(what, expected, run)


def _csv(what: str, expected: str, content: bytes, **settings: Any) -> Case:
    return _files(what, expected, {"c.csv": content}, **settings)


def _row(what: str, expected: str, row: bytes, **settings: Any) -> Case:
    """A CSV row between two good ones."""
    return _csv(what, expected, _HEADER + _BEFORE + row + b"\n" + _AFTER, **settings)


def _ids(what: str, expected: str, *ids: str, **settings: Any) -> Case:
    rows = "".join(f"{sku},{n}.jpg,x\n" for n, sku in enumerate(ids))
    return _csv(what, expected, _HEADER + rows.encode(), **settings)


def _line(what: str, expected: str, line: bytes) -> Case:
    """A line of JSON between two good ones."""
    good = [json.dumps({"sku_id": s, "image_uri": f"{s}.jpg"}).encode() for s in _NEIGHBOURS]
    return _files(what, expected, {"c.jsonl": b"\n".join([good[0], line, good[1]]) + b"\n"})


def _parquet(
    what: str, expected: str, columns: Mapping[str, Any] | pa.Table, **options: Any
) -> Case:
    """A Parquet file; `damage` takes its bytes and gives others, the rest is for `write_table`."""
    return _files(what, expected, {"c.parquet": _parquet_bytes(columns, **options)})


def _parquet_bytes(
    columns: Mapping[str, Any] | pa.Table,
    damage: Callable[[bytes], bytes] = bytes,
    **options: Any,
) -> bytes:
    stream = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    pq.write_table(table, stream, **options)
    return damage(stream.getvalue())


def _flip_a_third_in(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _zip(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, "x")
    return stream.getvalue()


def _denied(folder: Path) -> str:
    """A file that this user may not read, whoever runs the tests."""

    def deny(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    (folder / "c.csv").write_bytes(_HEADER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_files, "open", deny, raising=False)
        return outcome(folder / "c.csv", {})


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "c.csv")
    return outcome(folder / "c.csv", {})


def _dangling(folder: Path) -> str:
    (folder / "c.csv").symlink_to("nowhere.csv")
    return outcome(folder / "c.csv", {})


def _photos(*names: str | bytes) -> Callable[[Path], str]:
    """A folder of photos with these names."""

    def run(folder: Path) -> str:
        (folder / "c").mkdir()
        for name in names:
            (folder / "c" / os.fsdecode(name)).write_bytes(b"x")
        return outcome(folder / "c", {})

    return run


def _blocks(folder: Path) -> str:
    content = b"sku_id,image_uri,brand,run_date\n1,a.jpg,../../evil,../../etc\n"
    (folder / "c.csv").write_bytes(content)
    settings = {"block_by": ("brand",), "conflict": ("run_date",)}
    shown = [outcome(folder / "c.csv", settings, show) for show in ("block", "conflict")]
    return "ok: " + " ".join(text.removeprefix("ok: ") for text in shown)


_IDS = (
    _ids("00123, 123 and 1E5", "ok: 00123, 123, 1E5", "00123", "123", "1E5"),
    _ids("1, 1.0, +1, 0x1 and 1_0", "ok: 1, 1.0, +1, 0x1, 1_0", *("1", "1.0", "+1", "0x1", "1_0")),
    _ids(
        "NaN, null, None and true are names",
        "ok: NaN, null, None, true",
        *("NaN", "null", "None", "true"),
    ),
    _ids("a digit of 40 places", "ok: " + "9" * 40, "9" * 40),
    _ids("composed and decomposed é", "ok: \\xe9, e\\u0301", "\u00e9", "e\u0301"),
    _ids("a trailing space", "ok: A, A ", "A", "A "),
    _ids("a zero-width space", "ok: A, A\\u200b", "A", "A\u200b"),
    _ids("a right-to-left override", "ok: A\\u202eB", "A\u202eB"),
    _ids("an emoji beyond 16 bits", "ok: \\U0001f457", "\U0001f457"),
    _ids(
        "a formula, a tag, a path",
        "ok: =1+1, <script>, ../../etc",
        *("=1+1", "<script>", "../../etc"),
    ),
    _ids("a quote of SQL", "ok: x'; DROP TABLE t; --", "x'; DROP TABLE t; --"),
    _row("a null id", _NULL_SKU, b",a.jpg,x"),
    _row('an id of "" in quotes', _NULL_SKU, b'"",a.jpg,x'),
    _row("an id of spaces", _NULL_SKU, b"   ,a.jpg,x"),
    _row("an id of a no-break space", _NULL_SKU, "\u00a0,a.jpg,x".encode()),
    _row("a tab in an id", _NULL_SKU, b"A\tB,a.jpg,x"),
    _row("a newline in an id", _NULL_SKU, b'"A\nB",a.jpg,x'),
    _row("an escape sequence in an id", _NULL_SKU, b"A\x1b[31m,a.jpg,x"),
    _row("a NUL in an id", _NULL_SKU, b"A\x00,a.jpg,x"),
    _row(
        "an id of 1 MB", "reject: malformed_row; ok: before, after", b"A" * 1_000_000 + b",a.jpg,x"
    ),
    _row("a null URI", f"reject: null_uri; {_KEPT}", b"A,,x"),
    _row("a URI of spaces", f"reject: null_uri; {_KEPT}", b"A,  ,x"),
    _row("a NUL in a URI", f"reject: uri_refused; {_KEPT}", b"A,a\x00.jpg,x"),
    _row("a URI of 10 MB", f"reject: uri_refused; {_KEPT}", b"A," + b"u" * 10_000_000 + b",x"),
)
_CSV = (
    _csv("a byte order mark", "ok: before, after", b"\xef\xbb\xbf" + _HEADER + _BEFORE + _AFTER),
    _csv("lines that end in CR LF", _KEPT, (_HEADER + _BEFORE + _AFTER).replace(b"\n", b"\r\n")),
    _csv("lines that end in CR", _KEPT, (_HEADER + _BEFORE + _AFTER).replace(b"\n", b"\r")),
    _csv("no newline at the end", _KEPT, (_HEADER + _BEFORE + _AFTER).rstrip()),
    _csv("no row, a header alone", "ok: no row", _HEADER),
    _csv(
        "an empty file",
        "error: catalog c.csv: it is empty: a header line with column names is expected",
        b"",
    ),
    _csv(
        "blank lines alone",
        "error: catalog c.csv: it is empty: a header line with column names is expected",
        b"\n\n\n",
    ),
    _row("blank lines between rows", _KEPT, b"\n\n"),
    _row("a newline in quotes", "ok: before, A, after", b'A,a.jpg,"two\nlines"'),
    _row("CR LF in quotes", "ok: before, A, after", b'A,a.jpg,"two\r\nlines"'),
    _row("a quote in the middle of a value", "ok: before, A, after", b'A,a.jpg,5" nails'),
    _row("doubled quotes", "ok: before, A, after", b'A,a.jpg,"5"" nails"'),
    _row("text behind a closing quote", _MALFORMED, b'A,a.jpg,"x"y'),
    _row(
        "a quote that is never closed takes the rest of the file",
        "reject: malformed_row; ok: before",
        b'A,a.jpg,"oops',
    ),
    _row("a column too many", _MALFORMED, b"A,a.jpg,x,y"),
    _row("a column too few", _MALFORMED, b"A,a.jpg"),
    _row("a thousand columns", _MALFORMED, b"," * 1_000),
    _row("another delimiter in one row", _MALFORMED, b"A;a.jpg;x"),
    _row("Latin-1 in a title", _MALFORMED, b"A,a.jpg,caf\xe9"),
    _row("Latin-1 in an id", _MALFORMED, b"caf\xe9,a.jpg,x"),
    _row("a lone surrogate as three bytes", _MALFORMED, b"A\xed\xa0\x80,a.jpg,x"),
    _row("a NUL in a title", "ok: before, A, after", b"A,a.jpg,x\x00y"),
    _row("a title of 10 MB", "ok: before, A, after", b"A,a.jpg," + b"x" * 10_000_000),
    _row(
        "a byte order mark in the middle", "ok: before, \\ufeffA, after", "\ufeffA,a.jpg,x".encode()
    ),
    _row("the header again", "ok: before, sku_id, after", b"sku_id,image_uri,title"),
    _csv(
        "a missing column",
        "error: catalog c.csv: column 'sku_id' not found; there are: 'sku', 'image_uri'. "
        "Did you mean 'sku'? Use --set catalog.sku_column=sku",
        b"sku,image_uri\n1,a.jpg\n",
    ),
    _csv(
        "no header, rows at once",
        "error: catalog c.csv: column 'sku_id' not found; there are: 'before', 'before.jpg', 'x'. "
        "Use --set catalog.sku_column=COLUMN",
        _BEFORE + _AFTER,
    ),
    _csv(
        "a delimiter that was not said",
        "error: catalog c.csv: column 'sku_id' not found; there are: 'sku_id;image_uri'. "
        "Is ';' the delimiter? Use --set catalog.delimiter=...",
        b"sku_id;image_uri\n1;a.jpg\n",
    ),
    _csv("a delimiter that was said", "ok: 1", b"sku_id;image_uri\n1;a.jpg\n", delimiter=";"),
    _csv(
        "the line sep=; that spreadsheets write",
        "error: catalog c.csv: column 'sku_id' not found; there are: 'sep=;'. "
        "Is ';' the delimiter? Use --set catalog.delimiter=...",
        b"sep=;\nsku_id;image_uri\n",
    ),
    _csv(
        "two columns of one name",
        "error: catalog c.csv: column 'sku_id' stands 2 times",
        b"sku_id,image_uri,sku_id\n1,a.jpg,2\n",
    ),
    _csv("two columns of a name that is not read", "ok: 1", b"sku_id,image_uri,x,x\n1,a.jpg,,\n"),
    _csv("UTF-16", f"error: catalog c.csv: {_NOT_UTF8}", _HEADER.decode().encode("utf-16")),
    _csv(
        "UTF-16 without a byte order mark",
        f"error: catalog c.csv: {_NOT_UTF8}",
        _HEADER.decode().encode("utf-16-le"),
    ),
    _csv(
        "a Latin-1 header", f"error: catalog c.csv: {_NOT_UTF8}", b"sku_id,image_uri,gr\xf6\xdfe\n"
    ),
    _csv("a NUL in the header", f"error: catalog c.csv: {_NOT_UTF8}", b"sku_id,image_uri,\x00\n"),
    _csv(
        "an open quote in the header",
        "error: catalog c.csv: its header is not CSV: unexpected end of data",
        b'sku_id,"image_uri\n',
    ),
    _csv("gzip, named .csv", f"error: catalog c.csv: {_NOT_UTF8}", gzip.compress(_HEADER, mtime=0)),
    _csv("a spreadsheet (.xlsx), named .csv", f"error: catalog c.csv: {_NOT_UTF8}", _zip("a.xml")),
)
_JSON = (
    _line(
        "JSON: an id that is a whole number",
        "ok: before, 123, after",
        b'{"sku_id": 123, "image_uri": "a"}',
    ),
    _line(
        "JSON: the id 00123 as text",
        "ok: before, 00123, after",
        b'{"sku_id": "00123", "image_uri": "a"}',
    ),
    _line("JSON: the id 00123 as a number", _MALFORMED, b'{"sku_id": 00123, "image_uri": "a"}'),
    _line(
        "JSON: an id of 5,000 digits",
        "reject: malformed_row; ok: before, after",
        b'{"sku_id": ' + b"9" * 5_000 + b', "image_uri": "a"}',
    ),
    _line("JSON: the id 1E5 as a number", _MALFORMED, b'{"sku_id": 1E5, "image_uri": "a"}'),
    _line("JSON: the id 1.0 as a number", _MALFORMED, b'{"sku_id": 1.0, "image_uri": "a"}'),
    _line("JSON: the id NaN as a number", _MALFORMED, b'{"sku_id": NaN, "image_uri": "a"}'),
    _line("JSON: the id true", _MALFORMED, b'{"sku_id": true, "image_uri": "a"}'),
    _line("JSON: an id that is an object", _MALFORMED, b'{"sku_id": {"a": 1}, "image_uri": "a"}'),
    _line("JSON: a URI that is an array", _MALFORMED, b'{"sku_id": "A", "image_uri": ["a", "b"]}'),
    _line("JSON: a null id", _NULL_SKU, b'{"sku_id": null, "image_uri": "a"}'),
    _line('JSON: the id ""', _NULL_SKU, b'{"sku_id": "", "image_uri": "a"}'),
    _line("JSON: an empty object", _NULL_SKU, b"{}"),
    _line("JSON: an escaped NUL in an id", _NULL_SKU, b'{"sku_id": "A\\u0000", "image_uri": "a"}'),
    _line("JSON: a lone surrogate", _MALFORMED, b'{"sku_id": "\\ud800", "image_uri": "a"}'),
    _line(
        "JSON: a surrogate pair",
        "ok: before, \\U0001f457, after",
        b'{"sku_id": "\\ud83d\\udc57", "image_uri": "a"}',
    ),
    _line(
        "JSON: a key that stands twice counts as it stands last",
        "ok: before, B, after",
        b'{"sku_id": "A", "sku_id": "B", "image_uri": "a"}',
    ),
    _line("JSON: a line that is cut", _MALFORMED, b'{"sku_id": "A", "image_'),
    _line("JSON: a line that is an array", _MALFORMED, b'["A", "a.jpg"]'),
    _line("JSON: 100,000 brackets", _MALFORMED, b"[" * 100_000),
    _line("JSON: 100,000 objects in each other", _MALFORMED, b'{"a":' * 100_000),
    _line("JSON: a line of 20 MB", _MALFORMED, b'{"a": "' + b"x" * 20_000_000 + b'"}'),
    _line("JSON: two objects in a line", _MALFORMED, b'{"sku_id": "A"} {"sku_id": "B"}'),
    _line("JSON: Latin-1", _MALFORMED, b'{"sku_id": "caf\xe9", "image_uri": "a"}'),
    _line(
        "JSON: a title of 10 MB",
        "ok: before, A, after",
        b'{"sku_id": "A", "image_uri": "a", "title": "' + b"x" * 10_000_000 + b'"}',
    ),
    _files(
        "JSON: one array over many lines",
        "error: catalog c.json: none of its first 3 lines is a JSON object",
        {"c.json": b'[\n{"sku_id": "A", "image_uri": "a"},\n]\n'},
    ),
    _files(
        "JSON: an empty file",
        "error: catalog c.jsonl: it is empty: one JSON object a line is expected",
        {"c.jsonl": b""},
    ),
)
_TEXT = {"sku_id": ["before", "A", "after"], "image_uri": ["before.jpg", "a.jpg", "after.jpg"]}
_URIS = {"image_uri": ["0.jpg", "1.jpg"]}
_MANY = {"sku_id": [f"{n:06}" for n in range(1000)], "image_uri": [f"{n}.jpg" for n in range(1000)]}
_PARQUET = (
    _parquet("Parquet: ids that are whole numbers", "ok: 7, -1", {"sku_id": [7, -1], **_URIS}),
    _parquet(
        "Parquet: ids that are texts of numbers", "ok: 007, 7", {"sku_id": ["007", "7"], **_URIS}
    ),
    _parquet(
        "Parquet: ids with a fraction",
        "error: catalog c.parquet: column 'sku_id' is double; ids must be text or whole numbers",
        {"sku_id": [1.0, 2.5], **_URIS},
    ),
    _parquet(
        "Parquet: ids that are true or false",
        "error: catalog c.parquet: column 'sku_id' is bool; ids must be text or whole numbers",
        {"sku_id": [True, False], **_URIS},
    ),
    _parquet(
        "Parquet: ids that are lists",
        "error: catalog c.parquet: column 'sku_id' is list<element: int64>; "
        "ids must be text or whole numbers",
        {"sku_id": [[1], [2]], **_URIS},
    ),
    _parquet("Parquet: a null id", _NULL_SKU, _TEXT | {"sku_id": ["before", None, "after"]}),
    _parquet('Parquet: the id ""', _NULL_SKU, _TEXT | {"sku_id": ["before", "", "after"]}),
    _parquet(
        "Parquet: bytes that are not UTF-8",
        _MALFORMED,
        _TEXT | {"sku_id": pa.array([b"before", b"\xff", b"after"])},
    ),
    _parquet("Parquet: a row group for every row", "ok: before, A, after", _TEXT, row_group_size=1),
    _parquet("Parquet: no row", "ok: no row", pa.table(_TEXT).slice(0, 0)),
    _parquet(
        "Parquet: a missing column",
        "error: catalog c.parquet: column 'image_uri' not found; there are: 'sku_id', 'url'. "
        "Use --set catalog.uri_column=COLUMN",
        {"sku_id": ["A"], "url": ["a"]},
    ),
    _parquet(
        "Parquet: two columns of one name",
        "error: catalog c.parquet: column 'sku_id' stands 2 times",
        pa.table([["A"], ["a"], ["B"]], names=["sku_id", "image_uri", "sku_id"]),
    ),
    _parquet("Parquet: cut at its end", _NO_PARQUET, _TEXT, damage=lambda data: data[:-20]),
    _parquet("Parquet: its first half", _NO_PARQUET, _TEXT, damage=lambda d: d[: len(d) // 2]),
    _parquet("Parquet: an empty file", _NO_PARQUET, _TEXT, damage=lambda _: b""),
    _parquet("Parquet: four bytes, PAR1", _NO_PARQUET, _TEXT, damage=lambda _: b"PAR1"),
    _parquet(
        "Parquet: a footer that claims 2 GB",
        _NO_PARQUET,
        _TEXT,
        damage=lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1",
    ),
    _parquet(
        "Parquet: a flipped byte in a page with a checksum",
        "error: catalog c.parquet: Parquet pages cannot be read",
        _MANY,
        damage=_flip_a_third_in,
        write_page_checksum=True,
    ),
    _files("Parquet, named .csv", "ok: before, A, after", {"c.csv": _parquet_bytes(_TEXT)}),
    _files("CSV, named .parquet", _NO_PARQUET, {"c.parquet": _HEADER + _BEFORE}),
)
_GOOD = _HEADER + _BEFORE
_FOLDERS = (
    Case("block and conflict values with ..", 'ok: ["../../evil"] ["../../etc"]', _blocks),
    _files(
        "a folder named brand=%2e%2e is no column",
        "error: catalog c/brand=%2e%2e/a.csv: column 'brand' not found; there are: 'sku_id', "
        "'image_uri', 'title'. Use --set catalog.block_by=COLUMN",
        {"c/brand=%2e%2e/a.csv": _GOOD},
        block_by=("brand",),
    ),
    _files(
        "a folder of two formats",
        "error: catalog folder c mixes csv and jsonl; choose with --set catalog.format=...",
        {"c/a.csv": _GOOD, "c/b.jsonl": b"{}"},
    ),
    _files(
        "one format of such a folder",
        "ok: before",
        {"c/a.csv": _GOOD, "c/b.jsonl": b"{}"},
        format="csv",
    ),
    _files(
        "a folder with a broken file",
        "error: catalog c/b.csv: it is empty: a header line with column names is expected",
        {"c/a.csv": _GOOD, "c/b.csv": b""},
    ),
    _files(
        "files of other programs beside",
        "ok: before",
        {"c/a.csv": _GOOD, "c/_SUCCESS": b"", "c/.a.csv.crc": b"\x00"},
    ),
    _files(
        "a folder of other files",
        "error: catalog folder c holds no catalog files and no photos",
        {"c/a.exe": b"MZ"},
    ),
    _files(
        "columns in another order in each file",
        "ok: before, after",
        {"c/a.csv": _GOOD, "c/b.csv": b"image_uri,sku_id\nafter.jpg,after\n"},
    ),
    Case("a file that may not be read", "error: catalog c.csv cannot be read", _denied),
    Case(
        "a link that leads nowhere", "error: catalog not found: c.csv (--catalog PATH)", _dangling
    ),
    Case("a FIFO", "error: catalog c.csv: it is not a regular file", _pipe),
    Case(
        "photos: a newline in a file name", "reject: null_sku; ok: a", _photos("a.jpg", "b\n.jpg")
    ),
    Case(
        "photos: a file name that is not UTF-8",
        "reject: malformed_row; ok: a",
        _photos("a.jpg", b"\xff.jpg"),
    ),
    Case("photos: :: in a file name", "reject: uri_refused; ok: a", _photos("a.jpg", "b::c.jpg")),
    Case("photos: a file name like a URI", "ok: a, http:b", _photos("a.jpg", "http:b.jpg")),
)

CASES: tuple[Case, ...] = (*_IDS, *_CSV, *_JSON, *_PARQUET, *_FOLDERS)
