"""Files of rows, whole and damaged: what the catalog reader and the decisions reader are fed."""

import csv
import io
import json
import random
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutate import below, mutate, pick

ODD_TEXTS = (
    *("", " ", "a", "A1", "00123", "1E5", "123", "é", "e\u0301", "\u200b", "a b ", "x" * 300, "=cmd()"),
    *("<img src=x>", "a\nb", "a\r\nb", 'say "x"', "a,b", "a;b", "\t", "\x00", "\x1b[0m", "\u2028"),
    *("\ufeff", "\U0001f984", "null", "NaN", "true", "-1", "..", "../../evil", "\x85", "\u202e", "'"),
)  # fmt: skip
Row = dict[str, str | None]


def write_csv(rng: random.Random, names: Sequence[str], rows: Sequence[Row]) -> bytes:
    """CSV as some program may write it."""
    stream = io.StringIO()
    quoting = pick(rng, (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    end = pick(rng, ("\n", "\r\n", "\r"))
    writer = csv.writer(stream, quoting=quoting, lineterminator=end)
    writer.writerow(names)
    for row in rows:
        writer.writerow([row.get(name) for name in names])
        if rng.random() < 0.02:
            stream.write(end)
    text = stream.getvalue()
    encoding = pick(rng, ("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1"))
    return text.encode(encoding, "replace")


def write_jsonl(rng: random.Random, names: Sequence[str], rows: Sequence[Row]) -> bytes:
    """JSON Lines; now and then a value that is no text."""
    lines = []
    for row in rows:
        found: dict[str, object] = {name: row.get(name) for name in names}
        if rng.random() < 0.1:
            odd = (1, 1.5, 1e400, True, [], {"a": 1}, None, 10**30, float("nan"), "\ud800")
            found[pick(rng, names)] = pick(rng, odd)
        lines.append(json.dumps(found, ensure_ascii=rng.random() < 0.5))
    text = pick(rng, ("\n", "\r\n", "\n\n")).join(lines)
    return text.encode("utf-8", "surrogatepass")


def write_parquet(rng: random.Random, names: Sequence[str], rows: Sequence[Row]) -> bytes:
    """Parquet of one of the types that a column of text may have."""
    kinds = (pa.string(),) * 4 + (
        pa.large_string(),
        pa.binary(),
        pa.dictionary(pa.int32(), pa.string()),
    )
    columns = {}
    for name in names:
        texts = [row.get(name) for row in rows]
        if rng.random() < 0.1:
            columns[name] = _odd_column(rng, len(rows))
        else:
            columns[name] = pa.array(texts, pa.string()).cast(pick(rng, kinds))
    stream = io.BytesIO()
    pq.write_table(
        pa.table(columns),
        stream,
        row_group_size=1 + below(rng, 20),
        compression=pick(rng, ("none", "snappy", "zstd", "gzip")),
        use_dictionary=rng.random() < 0.5,
        data_page_version=pick(rng, ("1.0", "2.0")),
        write_page_checksum=rng.random() < 0.2,
    )
    return stream.getvalue()


def _odd_column(rng: random.Random, n_rows: int) -> pa.Array:
    kinds = (
        *(pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("ns"), pa.null()),
        *(pa.timestamp("s", "UTC"), pa.decimal128(10, 0), pa.decimal128(10, 2), pa.time64("us")),
        *(pa.list_(pa.string()), pa.struct([("a", pa.int8())]), pa.uint64(), pa.duration("s")),
    )
    kind = pick(rng, kinds)
    if pa.types.is_nested(kind) or rng.random() < 0.1:
        return pa.nulls(n_rows, kind)
    numbers = pa.array([below(rng, 1000) for _ in range(n_rows)], pa.int64())
    if pa.types.is_null(kind):
        return pa.nulls(n_rows)
    middle = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    return numbers.cast(middle).cast(kind) if not pa.types.is_decimal(kind) else numbers.cast(
        pa.decimal128(19, 0)
    ).cast(kind)  # fmt: skip


def damage(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Damage a file: half of all times not at all, as good files must come through."""
    if rng.random() < 0.3:
        return data
    if data[:4] == b"PAR1" and rng.random() < 0.5:
        return _damage_footer(rng, data)
    if rng.random() < 0.4:
        return _damage_text(rng, data)
    return mutate(rng, data, other)


def _damage_footer(rng: random.Random, data: bytes) -> bytes:
    """The footer holds all offsets and sizes."""
    length = int.from_bytes(data[-8:-4], "little")
    start = max(0, len(data) - 8 - length)
    edited = mutate(rng, data[start:-8], data[start:-8], most=2)
    size = (
        len(edited) if rng.random() < 0.9 else pick(rng, (0, 1, len(data), 0x7FFFFFFF, 0xFFFFFFFF))
    )
    return data[:start] + edited + size.to_bytes(4, "little") + data[-4:]


def _damage_text(rng: random.Random, data: bytes) -> bytes:
    """Put characters that mean something where they do not belong."""
    edited = bytearray(data)
    marks = (
        b'"',
        b",",
        b"\n",
        b"\r",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b'""',
        b";",
        b"\\",
        b"{",
        b"}",
    )
    for _ in range(1 + below(rng, 4)):
        at = below(rng, len(edited) + 1)
        edited[at:at] = pick(rng, marks)
    return bytes(edited)
