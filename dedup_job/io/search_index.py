"""The catalog's embeddings by cell in one Parquet file, from which a few cells answer a query.

A row group is a cell: contents whose nearest centre it is. The centres stand in the file's metadata, so
one file is the whole index, and a reader holds no more of it than the cells it asks for. The pictures by which
pairs are verified are most of its bytes; they are read of the few contents that are verified.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedup_job.errors import DedupError, one_line
from dedup_job.io.storage import Folder
from dedup_job.kernels.neighbours import Indices, Vectors
from dedup_job.kernels.quantiser import nearest_cells, sample_size, train_cells
from dedup_job.kernels.vectors import as_bytes, embedding_matrix

INDEX_FOLDER = "_search"
_FORMAT = 2
_MAX_CELL_ROWS = 4_096
_SEED = 2026
# Of some 6 KB each, with a picture.
_ROWS_PER_BUCKET = 100_000
SCHEMA = pa.schema(
    [
        pa.field("content_sha256", pa.string(), False),
        pa.field("sku_ids", pa.list_(pa.string()), False),
        pa.field("image_uris", pa.list_(pa.string()), False),
        pa.field("group_ids", pa.list_(pa.string()), False),  # '' where a SKU is in none
        pa.field("embedding", pa.binary(), False),
        pa.field("picture", pa.binary()),  # null where the run verified no pairs
    ]
)
# What a hit tells.
_SHOWN = ["content_sha256", "sku_ids", "image_uris", "group_ids"]


@dataclass(frozen=True)
class Hit:
    """A content near a query, with those that show it side by side. `cell`: where it lies."""

    content_sha256: str
    cosine: float
    cell: int
    sku_ids: list[str]
    image_uris: list[str]
    group_ids: list[str]


def index_name(run_id: str) -> str:
    """The file of a run's index in `INDEX_FOLDER`; one of another format is of another name."""
    return f"{run_id}.v{_FORMAT}.parquet"


def build_index(folder: Folder, run_id: str, parts: Iterable[pa.Table], n_rows: int) -> str:
    """Write the index of a run, and delete those of others.

    Memory holds a sample, the centres and one bucket of cells; the rest waits in a temporary folder.

    Args:
        folder: `INDEX_FOLDER` of the warehouse.
        run_id: the run whose contents these are.
        parts: rows of `SCHEMA`, each content once.
        n_rows: of all parts.

    Returns:
        The file's name.
    """
    name = index_name(run_id)
    folder.create()
    with tempfile.TemporaryDirectory(prefix="search-index-") as work:
        held = _Held(Path(work), parts)
        centres = _train(held, n_rows)
        buckets = held.bucket_by_cell(centres, 1 + n_rows // _ROWS_PER_BUCKET)
        metadata = {b"format": str(_FORMAT).encode(), b"dim": str(centres.shape[1]).encode()}
        metadata[b"centres"] = centres.astype("<f4").tobytes().hex().encode()
        temporary = f".{name}.tmp"
        with (
            folder.open_write(temporary) as stream,
            pq.ParquetWriter(stream, SCHEMA.with_metadata(metadata), compression="zstd") as writer,
        ):
            for number in range(len(centres)):
                writer.write_table(buckets.cell(number))
        folder.move_in(folder, temporary, name)
    for other in folder.file_names():
        if other != name:
            folder.delete_file(other)
    return name


class SearchIndex:
    """An index that is open for queries. A context manager.

    Args:
        folder: `INDEX_FOLDER` of a warehouse.
        name: from `build_index`.

    Raises:
        DedupError: the file is not what `build_index` writes.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._stack, self._path = ExitStack(), folder.path(name)
        try:
            stream: BinaryIO = self._stack.enter_context(folder.open_read(name))
            self._file = pq.ParquetFile(stream)
            metadata = self._file.schema_arrow.metadata or {}
            if metadata.get(b"format") != str(_FORMAT).encode():
                raise ValueError("another format")
            dim = int(metadata[b"dim"])
            flat = np.frombuffer(bytes.fromhex(metadata[b"centres"].decode()), "<f4")
            self._centres = flat.reshape(-1, dim)
            if len(self._centres) != self._file.num_row_groups:
                raise ValueError("centres and cells differ in number")
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            self._stack.close()
            raise self._unreadable(error) from None

    def __enter__(self) -> "SearchIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def search(self, query: Vectors, top: int, fan_out: int) -> list[Hit]:
        """The contents nearest to a query among those of its nearest cells.

        Args:
            query: float32 (d,), unit L2 norm.
            top: contents to return, at most.
            fan_out: cells to look into.

        Returns:
            The most alike first; equals by content.
        """
        cells = sorted(nearest_cells(query[None], self._centres, fan_out)[0].tolist())
        try:
            rows = self._file.read_row_groups(cells, columns=[*_SHOWN, "embedding"])
            vectors = embedding_matrix(rows["embedding"])
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._unreadable(error) from None
        cosines = np.clip(vectors.astype(np.float64) @ query.astype(np.float64), -1.0, 1.0)
        shas = rows["content_sha256"].to_pylist()
        order = sorted(_best(cosines, top), key=lambda i: (-cosines[i], shas[i]))
        found = rows.select(_SHOWN).take(pa.array(order, pa.int64())).to_pylist()
        n_rows = [self._file.metadata.row_group(cell).num_rows for cell in cells]
        cell_of = np.repeat(cells, n_rows)
        return [
            Hit(cosine=float(np.float32(cosines[i])), cell=int(cell_of[i]), **row)
            for i, row in zip(order, found, strict=True)
        ]

    def pictures(self, hits: Sequence[Hit]) -> dict[str, bytes]:
        """The pictures of contents by content, of those that have one."""
        found: dict[str, bytes] = {}
        shas = pa.array([hit.content_sha256 for hit in hits], pa.string())
        try:
            for cell in sorted({hit.cell for hit in hits}):
                rows = self._file.read_row_group(cell, columns=["content_sha256", "picture"])
                asked = rows.filter(pc.is_in(rows["content_sha256"], value_set=shas))
                found.update(zip(*asked.to_pydict().values(), strict=True))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._unreadable(error) from None
        return {sha: picture for sha, picture in found.items() if picture is not None}

    def _unreadable(self, error: Exception) -> DedupError:
        return DedupError(
            f"search index {self._path} cannot be read ({one_line(error)}); build it anew with: "
            "dedup-job find --rebuild"
        )


def _best(cosines: NDArray[np.float64], top: int) -> list[int]:
    """Rows of the highest values, in no order; all that equal the lowest of them are among these."""
    if len(cosines) <= top:
        return list(range(len(cosines)))
    lowest = np.partition(cosines, -top)[-top]
    better = np.flatnonzero(cosines > lowest)
    return [*better.tolist(), *np.flatnonzero(cosines == lowest)[: top - len(better)].tolist()]


class _Held:
    """Rows on disk while an index is built."""

    def __init__(self, work: Path, parts: Iterable[pa.Table]) -> None:
        self._work, self._path = work, work / "rows.arrow"
        with pa.OSFile(str(self._path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for part in parts:
                rows = part.set_column(
                    part.schema.get_field_index("embedding"),
                    "embedding",
                    as_bytes(part["embedding"]),
                )
                writer.write_table(rows.select(SCHEMA.names).cast(SCHEMA))

    def batches(self) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self._path)) as source:
            reader = pa.ipc.open_file(source)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)

    def bucket_by_cell(self, centres: Vectors, n_buckets: int) -> "_Buckets":
        """Sort rows into files of neighbouring cells."""
        per_bucket = -(-len(centres) // n_buckets)
        buckets = _Buckets(self._work, per_bucket)
        for batch in self.batches():
            cell = nearest_cells(embedding_matrix(batch.column("embedding")), centres, 1)[:, 0]
            buckets.add(batch, cell)
        buckets.close()
        return buckets


class _Buckets:
    def __init__(self, work: Path, per_bucket: int) -> None:
        self._work, self._per_bucket = work, per_bucket
        self._schema = SCHEMA.append(pa.field("cell", pa.int64()))
        self._writers: dict[int, Any] = {}
        self._stack = ExitStack()
        self._open: tuple[int, pa.Table] = (-1, SCHEMA.empty_table())

    def add(self, batch: pa.RecordBatch, cell: Indices) -> None:
        table = pa.Table.from_batches([batch]).append_column("cell", pa.array(cell, pa.int64()))
        for bucket in np.unique(cell // self._per_bucket).tolist():
            rows = table.filter(pa.array(cell // self._per_bucket == bucket))
            self._writer(bucket).write_table(rows)

    def close(self) -> None:
        self._stack.close()

    def cell(self, number: int) -> pa.Table:
        """The rows of a cell, by content; ask for cells in order."""
        bucket = number // self._per_bucket
        if self._open[0] != bucket:
            self._open = (bucket, self._read(bucket))
        rows = self._open[1].filter(pc.equal(self._open[1]["cell"], number)).drop_columns(["cell"])
        return rows.sort_by("content_sha256").cast(SCHEMA)

    def _read(self, bucket: int) -> pa.Table:
        path = self._path(bucket)
        if not path.exists():
            return self._schema.empty_table()
        with pa.OSFile(str(path)) as source:
            return pa.ipc.open_file(source).read_all()

    def _writer(self, bucket: int) -> Any:
        if bucket not in self._writers:
            sink = self._stack.enter_context(pa.OSFile(str(self._path(bucket)), "wb"))
            self._writers[bucket] = self._stack.enter_context(pa.ipc.new_file(sink, self._schema))
        return self._writers[bucket]

    def _path(self, bucket: int) -> Path:
        return self._work / f"bucket-{bucket}.arrow"


def _train(held: _Held, n_rows: int) -> Vectors:
    """Centres from rows at equal distances."""
    step = max(1, n_rows // max(1, sample_size(n_rows, _MAX_CELL_ROWS)))
    sample, seen = [], 0
    for batch in held.batches():
        rows = np.arange((-seen) % step, batch.num_rows, step)
        sample.append(embedding_matrix(batch.column("embedding").take(pa.array(rows))))
        seen += batch.num_rows
    found = [part for part in sample if len(part)]
    return train_cells(np.concatenate(found), n_rows, _MAX_CELL_ROWS, _SEED)
