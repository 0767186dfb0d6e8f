"""The catalog reader: every row of every file is read, or told as malformed, or the file is refused.

A case is a byte that says how the catalog is read, and the file.
"""

import random
import re
import tempfile
from pathlib import Path

import pyarrow as pa

from dedup_job.config import CatalogConfig
from dedup_job.errors import DedupError, RejectReason
from dedup_job.io.catalog import plan_catalog, read_part
from dedup_job.io.uris import resolve
from dedup_job.stages.catalog import CLASSIFIED_CATALOG, judge_row
from dedup_job.tables import RAW_CATALOG, arrow_batch
from tests.fuzz.mutate import below, pick
from tests.fuzz.tables import ODD_TEXTS, Row, damage, write_csv, write_jsonl, write_parquet
from tests.fuzz.targets import expect
from tests.fuzz.uris import write_uri

NAMES = ("sku_id", "image_uri", "image_version", "brand", "stock")
_BASES = ("/photos", "s3://photos/catalog", "https://shop.example/photos")
_ROW_REASONS = {
    RejectReason.NULL_SKU,
    RejectReason.NULL_URI,
    RejectReason.MALFORMED_ROW,
    RejectReason.URI_REFUSED,
}
_MORE = {"block_by": ("brand",), "canonical_order": "stock desc", "conflict": ("image_version",)}


def open_target() -> "CatalogTarget":
    """The target."""
    return CatalogTarget()


class CatalogTarget:
    """`plan_catalog`, `read_part` and `judge_row`, as the nightly job uses them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-catalogs-")
        self._path = Path(self._folder.name) / "catalog"

    def corpus(self) -> list[bytes]:
        return []

    def make(self, rng: random.Random) -> bytes:
        rows = write_rows(rng)
        names = list(NAMES)
        rng.shuffle(names)
        if rng.random() < 0.1:
            del names[below(rng, len(names))]
        if rng.random() < 0.05:
            names.append(pick(rng, (*NAMES, *ODD_TEXTS)))
        write = pick(rng, (write_csv, write_csv, write_jsonl, write_parquet))
        try:
            data = write(rng, names, rows)
        except ValueError:  # two columns of one name, which this writer cannot write
            data = b"PAR1"
        return bytes([below(rng, 16)]) + damage(rng, data, data)

    def run(self, case: bytes) -> str:
        how = case[0] if case else 0
        form = ("auto", "auto", "csv", "jsonl", "parquet", "auto", "auto", "auto")[how % 8]
        more = _MORE if how & 8 else {}
        self._path.write_bytes(case[1:])
        config = CatalogConfig(path=str(self._path), format=form, **more)
        try:
            parts = plan_catalog(config)
            rows = [row for part in parts for batch in read_part(part) for row in _checked(batch)]
        except DedupError as error:
            check_error(error)
            return type(error).__name__
        positions = [row["position"] for row in rows]
        expect(positions == sorted(set(positions)), "positions repeat or fall")
        check_count(case[1:], parts[0].format, rows)
        self._judge(rows, _BASES[how % 3])
        return "ok"

    def _judge(self, rows: list[dict], base: str) -> None:
        judged = [judge_row(row, base) for row in rows]
        arrow_batch(CLASSIFIED_CATALOG, judged)
        for raw, row in zip(rows, judged, strict=True):
            if row["reason"] is not None:
                expect(row["reason"] in _ROW_REASONS, f"reason {row['reason']}")
                expect(bool(row["detail"]) and "\n" not in row["detail"], f"{row['detail']!r}")
                expect(raw["malformed"] is None or row["reason"] == "malformed_row", "not told")
                continue
            expect(bool((row["sku_id"] or "").strip()), "a blank SKU is accepted")
            expect(row["sku_id"] == raw["sku_id"], "the SKU is not as written")
            expect(resolve(row["source_uri"], "/") == row["source_uri"], "no fixed point")
            expect(bool(row["fetch_key"] and row["uri_key"] and row["product"]), "a key is missing")


def _checked(batch: pa.RecordBatch) -> list[dict]:
    expect(batch.schema.equals(RAW_CATALOG.arrow), f"schema {batch.schema}")
    batch.validate(full=True)
    return batch.to_pylist()


def check_error(error: DedupError) -> None:
    """What is wrong with the whole file is one line of bearable length."""
    message = str(error)
    is_line = len(message.splitlines()) == 1 and "\x00" not in message
    expect(is_line and len(message) < 5000, f"message {message[:300]!r}")
    expect(error.exit_code == 2, f"exit code {error.exit_code}")


def check_count(data: bytes, form: str, rows: list[dict]) -> None:
    """No row vanishes: counted by other means, where these are simple enough to be sure."""
    text = data.removeprefix(b"\xef\xbb\xbf")
    if form == "jsonl":
        lines = [line for line in text.split(b"\n") if line.strip()]
        expect(len(rows) == len(lines), f"{len(rows)} rows of {len(lines)} lines")
    elif form == "csv" and b'"' not in text and b"\x00" not in text:
        lines = re.split(rb"\r\n|\r|\n", text)[1:]
        decoded = [line.decode("utf-8", "surrogateescape") for line in lines]
        filled = [line for line in decoded if line and not (line.isspace() and "," not in line)]
        expect(abs(len(rows) - len(filled)) == 0, f"{len(rows)} rows of {len(filled)} lines")


def write_rows(rng: random.Random) -> list[Row]:
    """Rows of a catalog, a few of them odd."""
    return [_write_row(rng, number) for number in range(below(rng, 30))]


def _write_row(rng: random.Random, number: int) -> Row:
    row: Row = {
        "sku_id": f"sku-{number:05}",
        "image_uri": f"shoes/{number}.jpg",
        "image_version": pick(rng, ("1", "2", None)),
        "brand": pick(rng, ("a", "b", None)),
        "stock": str(below(rng, 10)),
    }
    kind = rng.random()
    if kind < 0.15:
        row["image_uri"] = write_uri(rng).encode("utf-8", "replace").decode()
    elif kind < 0.3:
        row[pick(rng, NAMES)] = pick(rng, (*ODD_TEXTS, None))
    return row
