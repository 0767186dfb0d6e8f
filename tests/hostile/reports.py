"""Names from a catalog in what this job writes and prints: never a formula, a command, SQL or a path."""

import csv
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import duckdb

from dedup_job.commands.export_csv import export_csv
from dedup_job.commands.runs import show_runs
from dedup_job.commands.show import show
from dedup_job.commands.views import view_statements
from dedup_job.errors import DedupError
from dedup_job.io.manifests import RunManifest, write_manifest
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.stages.catalog import judge_row
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    RAW_CATALOG,
    REPORT_TABLES,
    STATE_TABLES,
)
from tests.hostile.cases import Case
from tests.unit.warehouses import image, publish, row_of

# Where a line of `show` names the survivor: after the size and the weakest cosine.
_KEEP = slice(17, 35)


def _publish(folder: Path, sku: str) -> Folder:
    """A warehouse whose tables name one SKU wherever they name any."""
    warehouse = Folder(str(folder))
    stored = {}
    for table in REPORT_TABLES:
        row = row_of(table, run_id="r1")
        row |= {name: sku for name in row if name.startswith(("sku_id", "canonical_sku"))}
        row |= {"is_canonical": True} if table is DUPLICATE_GROUPS else {}
        place = warehouse.child("_runs", "r1", table.name)
        stored[table.name] = write_rows([row], table, place)
    images = [image(sku, "photo")]
    stored[CATALOG_IMAGES.name] = write_rows(
        images, CATALOG_IMAGES, warehouse.child("_state", CATALOG_IMAGES.name)
    )
    publish(warehouse, "r1", stored)
    return warehouse


def _shown(text: str) -> str:
    """Text for a page: what is not plain is escaped."""
    return text.encode("unicode_escape").decode()


def csv_cell_of(sku: str) -> Callable[[Path], str]:
    """The cell that a spreadsheet reads for a SKU."""

    def run(folder: Path) -> str:
        warehouse, out = _publish(folder / "warehouse", sku), folder / "groups.csv"
        export_csv(warehouse.uri, DUPLICATE_GROUPS.name, str(out))
        text = out.read_bytes().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if len(rows) != 1 or None in rows[0]:
            return f"{len(rows)} rows, cells too many: {rows[0].get(None)}"
        return f"ok: cell {_shown(rows[0]['sku_id'])}"

    return run


def csv_number(folder: Path) -> str:
    """What stands in the file for a negative number."""
    warehouse = Folder(str(folder / "warehouse"))
    row = row_of(DUPLICATE_GROUPS, cosine_to_canonical=-0.25)
    stored = write_rows([row], DUPLICATE_GROUPS, warehouse.child("t"))
    publish(warehouse, "r1", {DUPLICATE_GROUPS.name: stored})
    export_csv(warehouse.uri, DUPLICATE_GROUPS.name, str(folder / "x.csv"))
    cells = (folder / "x.csv").read_text(encoding="utf-8-sig").splitlines()[1].split(",")
    return f"ok: {cells[DUPLICATE_GROUPS.column_names.index('cosine_to_canonical')]}"


def shown_as(sku: str, **options: bool) -> Callable[[Path], str]:
    """How `dedup-job show` prints a SKU."""

    def run(folder: Path) -> str:
        warehouse = _publish(folder, sku)
        plain = _printed(lambda: show(_publish(folder / "plain", "S").uri, **options))
        printed = _printed(lambda: show(warehouse.uri, **options))
        if len(printed) != len(plain):
            return f"{len(printed) - len(plain)} lines more"
        if any(not c.isprintable() for line in printed for c in line):
            return f"raw: {printed}"
        (line,) = [new for new, old in zip(printed, plain, strict=True) if new != old]
        name = line.split(": ")[-1].strip(" ,") if options else line[_KEEP]
        return f"ok: {_shown(name.strip())}"

    return run


def error_of_a_run(text: str) -> Callable[[Path], str]:
    """How `dedup-job runs` prints the error of a failed run."""

    def run(folder: Path) -> str:
        failed = RunManifest("r1", "2026-11-23", "failed", "", "", "0", {}, {}, {}, error=text)
        write_manifest(Folder(str(folder)), failed)
        return f"ok: {_shown(_printed(lambda: show_runs(str(folder)))[-1].strip())}"

    return run


def _printed(command: Callable[[], None]) -> list[str]:
    with redirect_stdout(io.StringIO()) as out:
        command()
    return out.getvalue().removesuffix("\n").split("\n")


def viewed(name: str, sku: str = "S-1") -> Callable[[Path], str]:
    """What DuckDB answers through the printed views of a warehouse of this name."""

    def run(folder: Path) -> str:
        try:
            statements = view_statements(str(folder / name), "duckdb")
        except DedupError as error:
            return (
                "error: mean something else" if "mean something else" in str(error) else str(error)
            )
        _publish(folder / name, sku)
        connection = duckdb.connect()
        connection.execute("CREATE TABLE kept (i INT)")
        for statement in statements:
            connection.execute(statement)
        rows = connection.execute("SELECT sku_id FROM current_duplicates").fetchall()
        connection.execute("FROM kept")  # an error if it was dropped
        connection.close()
        return "ok" if rows == [(sku,)] else f"{rows}"

    return run


def named_on_disk(sku: str) -> Callable[[Path], str]:
    """Whether any file or folder is called after a SKU."""

    def run(folder: Path) -> str:
        home = folder / "a" / "b" / "c"
        export_csv(_publish(home, sku).uri, DUPLICATE_GROUPS.name, str(folder / "x.csv"))
        places = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        astray = {p for p in places if not p.startswith("a/b/c/")} - {"a", "a/b", "a/b/c", "x.csv"}
        called = {p for p in places if any(len(part) > 1 and part in p for part in _words(sku))}
        return "ok: no path" if not astray | called else f"{astray | called}"

    return run


def _words(sku: str) -> list[str]:
    return [part for part in sku.replace("..", "/").split("/") if part]


def published_uri(uri: str) -> Callable[[Path], str]:
    """What tables keep of an image URI; `source_uri`, which is fetched, is in none of them."""

    def run(folder: Path) -> str:
        raw = dict.fromkeys(RAW_CATALOG.column_names) | {
            "catalog_row": "0", "position": 0, "sku_id": "S", "image_uri": uri,
            "block_values": [], "conflict_values": [], "order_values": [],
        }  # fmt: skip
        row = judge_row(raw, str(folder))
        kept = {
            name: value
            for table in (*REPORT_TABLES, *STATE_TABLES)
            for name, value in row.items()
            if name in table.column_names
        }
        leaks = [name for name, value in kept.items() if "s3cret" in str(value)]
        return f"leaks in {leaks}" if leaks else f"ok: {row['image_uri']}"

    return run


CASES: tuple[Case, ...] = (
    Case(
        "CSV: SKU `=HYPERLINK(...)`", 'ok: cell \'=HYPERLINK("x")', csv_cell_of('=HYPERLINK("x")')
    ),
    Case("CSV: SKU `+1+1`", "ok: cell '+1+1", csv_cell_of("+1+1")),
    Case("CSV: SKU `-1+1`", "ok: cell '-1+1", csv_cell_of("-1+1")),
    Case("CSV: SKU `@SUM(1)`", "ok: cell '@SUM(1)", csv_cell_of("@SUM(1)")),
    Case("CSV: SKU that begins with TAB", "ok: cell '\\ufffd=1", csv_cell_of("\t=1")),
    Case("CSV: SKU that begins with CR", "ok: cell '\\ufffd=1", csv_cell_of("\r=1")),
    Case("CSV: SKU that begins with LF", "ok: cell '\\ufffd=1", csv_cell_of("\n=1")),
    Case("CSV: SKU that begins with NUL", "ok: cell '\\ufffd=1", csv_cell_of("\0=1")),
    Case("CSV: SKU ` =1` behind a blank", "ok: cell ' =1", csv_cell_of(" =1")),
    Case('CSV: SKU `"=1` behind a quote', "ok: cell '\"=1", csv_cell_of('"=1')),
    Case("CSV: full-width `=1` (U+FF1D)", "ok: cell '\\uff1d1", csv_cell_of("\uff1d1")),
    Case("CSV: full-width `@` (U+FF20)", "ok: cell '\\uff20A", csv_cell_of("\uff20A")),
    Case(
        "CSV: `A;=1`, for a spreadsheet that splits at `;`", "ok: cell A;'=1", csv_cell_of("A;=1")
    ),
    Case('CSV: `A",=1,"`, to break out of its cell', 'ok: cell A",=1,"', csv_cell_of('A",=1,"')),
    Case("CSV: a line break within a SKU", "ok: cell A\\ufffd\\ufffdB", csv_cell_of("A\r\nB")),
    Case("CSV: a negative number stays a number", "ok: -0.25", csv_number),
    Case("CSV: SKU `00123` stays a text", "ok: cell 00123", csv_cell_of("00123")),
    Case("show: SKU `<script>`", "ok: <script>x()", shown_as("<script>x()")),
    Case("show: an escape sequence (ESC [2J)", "ok: \\ufffd[2JA", shown_as("\x1b[2JA")),
    Case("show: a new window title (ESC ]0;)", "ok: \\ufffd]0;A\\ufffd", shown_as("\x1b]0;A\x07")),
    Case("show: one-byte control (U+009B)", "ok: \\ufffd31mA", shown_as("\x9b31mA")),
    Case("show: reading direction (U+202E)", "ok: A\\ufffdgpj", shown_as("A\u202egpj")),
    Case("show: isolated direction (U+2066)", "ok: A\\ufffdB", shown_as("A\u2066B")),
    Case("show: a zero-width space", "ok: A\\ufffdB", shown_as("A\u200bB")),
    Case("show: a line break, to forge a line", "ok: A\\ufffdRun", shown_as("A\nRun")),
    Case(
        "show --json: an escape sequence", 'ok: "\\\\u001b[2J"', shown_as("\x1b[2J", as_json=True)
    ),
    Case(
        "runs: an error that quotes an escape sequence",
        "ok: \\ufffd[2Jx",
        error_of_a_run("\x1b[2Jx"),
    ),
    Case("views: warehouse `a; DROP TABLE kept; --`", "ok", viewed("a; DROP TABLE kept; --")),
    Case('views: warehouse `a "b" c`', "ok", viewed('a "b" c')),
    Case("views: warehouse `100%`", "ok", viewed("100%")),
    Case(
        "views: warehouse `a'; DROP TABLE kept`",
        "error: mean something else",
        viewed("a'; DROP TABLE kept"),
    ),
    Case("views: warehouse `{view}*`", "error: mean something else", viewed("{view}*")),
    Case("views: a line break in the warehouse", "error: mean something else", viewed("a\nb")),
    Case("views: SKU `'; DROP TABLE kept; --`", "ok", viewed("w", "'; DROP TABLE kept; --")),
    Case("paths: SKU `../../../evil`", "ok: no path", named_on_disk("../../../evil")),
    Case("paths: SKU `/etc/passwd`", "ok: no path", named_on_disk("/etc/passwd")),
    Case("paths: SKU `sub//evil`", "ok: no path", named_on_disk("sub//evil")),
    Case("paths: SKU `%2e%2e%2fevil`", "ok: no path", named_on_disk("%2e%2e%2fevil")),
    Case("paths: SKU `evil='\"`", "ok: no path", named_on_disk("evil='\"")),
    Case(
        "tables: a presigned image_uri",
        "ok: https://shop.example/a.jpg",
        published_uri("https://shop.example/a.jpg?X-Amz-Signature=s3cret&X-Amz-Expires=60"),
    ),
    Case(
        "tables: a presigned URI that is refused",
        "ok: gopher://shop.example/a.jpg",
        published_uri("gopher://shop.example/a.jpg?sig=s3cret"),
    ),
    Case(
        "tables: a password in image_uri",
        "ok: https://shop.example/a.jpg",
        published_uri("https://user:s3cret@shop.example/a.jpg#s3cret"),
    ),
)
