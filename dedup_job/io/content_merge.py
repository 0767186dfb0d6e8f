"""Embedding files merged into few large ones, sorted by content, in bounded memory.

An external merge sort. Files in no order are first cut into sorted runs. SHA-256 spreads contents
evenly, so the range of hashes is then cut into equal parts, one for each file to write: a part is read
from every sorted file, sorted, and written. In memory are one part (a few copies of it) and of every
run one row group of 4,096 contents.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, TableFile, read_batches, write_batches
from dedup_job.tables import IMAGE_EMBEDDINGS

Keep = Callable[[pa.ChunkedArray], np.ndarray]  # content_sha256 -> bool, one a row
_KEY = "content_sha256"
_RUN_GROUP_ROWS = 4_096
_PREFIX_DIGITS = 16  # 64 bits


@dataclass(frozen=True)
class Merged:
    """What a merge wrote, and the rows it left out: of contents not kept, and repeated ones."""

    stored: StoredTable
    n_dropped: int
    n_repeated: int


def hash_prefixes(shas: pa.ChunkedArray) -> np.ndarray:
    """The first 64 bits of SHA-256 in hex, uint64 (n,)."""
    digits = pc.utf8_slice_codeunits(shas, 0, _PREFIX_DIGITS).to_pylist()
    return np.frombuffer(bytes.fromhex("".join(digits)), ">u8").astype(np.uint64)


def is_in_sorted(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are in `known`, which is sorted: bool (n,)."""
    at = np.searchsorted(known, values)
    found = at < len(known)
    found[found] = known[at[found]] == values[found]
    return found


def file_size(folder: Folder, name: str) -> int:
    """Size of a file in bytes."""
    with folder.open_read(name) as stream:
        return stream.seek(0, 2)


def is_sorted_file(metadata: pq.FileMetaData) -> bool:
    """Whether an IMAGE_EMBEDDINGS file says that it is sorted by content."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    order = (pq.SortingColumn(IMAGE_EMBEDDINGS.column_names.index(_KEY)),)
    return all(group.sorting_columns == order for group in groups)


def merge_contents(
    stored: StoredTable, keep: Keep, staging: Folder, largest_bytes: int
) -> Merged | None:
    """Write IMAGE_EMBEDDINGS anew: each content once, sorted, in as few files as their size allows.

    Args:
        stored: what there is; it is left as it is.
        keep: which contents stay.
        staging: where to write; two to three times the bytes of `stored` must fit.
        largest_bytes: size of a file, at most (give or take what chance does to equal parts of a
            hash range); two files or more are at least half as large.

    Returns:
        None if `stored` is as it should be already.
    """
    sources = [_Source(stored.folder, file.name) for file in stored.files]
    n_rows, n_kept = _count(stored, keep)
    n_bytes = sum(source.n_bytes for source in sources) * n_kept / max(1, n_rows)
    n_files = math.ceil(n_bytes / largest_bytes)
    in_order = [source for source in sources if source.is_sorted]
    if n_kept == n_rows and len(in_order) == len(sources) == n_files:
        return None
    loose = tuple(f for f, s in zip(stored.files, sources, strict=True) if not s.is_sorted)
    unsorted = StoredTable(stored.table, stored.folder, loose)
    runs = staging.child("runs")
    in_order += [
        _Source(runs, file.name) for file in _sort_runs(unsorted, keep, runs, largest_bytes)
    ]
    files, n_seen = [], 0
    for bound in _bounds(n_files):
        part = pa.concat_tables(
            [IMAGE_EMBEDDINGS.arrow.empty_table(), *(s.take_below(bound) for s in in_order)]
        )
        part = part.filter(pa.array(keep(part[_KEY])))
        n_seen += part.num_rows
        part = _without_repeats(_sorted(part))
        if part.num_rows:
            batches = part.to_batches(_RUN_GROUP_ROWS)
            files.append(write_batches(batches, IMAGE_EMBEDDINGS, staging.child("merged"), _KEY))
    merged = StoredTable(IMAGE_EMBEDDINGS, staging.child("merged"), tuple(files))
    return Merged(merged, n_dropped=n_rows - n_kept, n_repeated=n_seen - merged.n_rows)


class _Source:
    """A Parquet file; if it is sorted, it can be taken from its start, range by range."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        with folder.open_read(name) as stream:
            self._metadata = pq.read_metadata(stream)
            self.n_bytes = stream.seek(0, 2)
        self._next = 0
        self._held = IMAGE_EMBEDDINGS.arrow.empty_table()

    @property
    def is_sorted(self) -> bool:
        return is_sorted_file(self._metadata)

    def take_below(self, bound: str | None) -> pa.Table:
        """The next rows, up to a hash; the file is open only meanwhile, for there may be many."""
        parts = [self._held]
        if self._has_below(bound):
            with self._folder.open_read(self._name) as stream:
                parquet = pq.ParquetFile(stream, metadata=self._metadata)
                while self._has_below(bound):
                    group = parquet.read_row_group(self._next, IMAGE_EMBEDDINGS.column_names)
                    # Files of earlier versions lack columns that may be null.
                    here = pa.schema(map(IMAGE_EMBEDDINGS.arrow.field, group.column_names))
                    parts.append(group.cast(here))
                    self._next += 1
        rows = pa.concat_tables(parts, promote_options="default")
        n = rows.num_rows
        if bound is not None:
            n = pc.sum(pc.less(rows[_KEY], bound), min_count=0).as_py()
        self._held = rows.slice(n)
        return rows.slice(0, n)

    def _has_below(self, bound: str | None) -> bool:
        if self._next == self._metadata.num_row_groups:
            return False
        column = IMAGE_EMBEDDINGS.column_names.index(_KEY)
        statistics = self._metadata.row_group(self._next).column(column).statistics
        return bound is None or statistics is None or str(statistics.min) < bound


def _count(stored: StoredTable, keep: Keep) -> tuple[int, int]:
    n_rows = n_kept = 0
    for batch in read_batches(stored, [_KEY]):
        n_rows += batch.num_rows
        n_kept += int(np.count_nonzero(keep(batch[_KEY])))
    return n_rows, n_kept


def _bounds(n_parts: int) -> Iterator[str | None]:
    """Upper ends of equal parts of the range of hashes; the last has none."""
    for i in range(1, n_parts):
        yield f"{i * 2 ** (4 * _PREFIX_DIGITS) // n_parts:0{_PREFIX_DIGITS}x}"
    if n_parts:
        yield None


def _sort_runs(
    stored: StoredTable, keep: Keep, folder: Folder, memory_bytes: int
) -> list[TableFile]:
    """Write all kept rows as sorted files, each as long as the memory allows."""
    store = partial(write_batches, table=IMAGE_EMBEDDINGS, folder=folder)
    files = []
    for rows in _gather(read_batches(stored, IMAGE_EMBEDDINGS.column_names), keep, memory_bytes):
        batches = _sorted(rows).to_batches(_RUN_GROUP_ROWS)
        files.append(store(batches, sorted_by=_KEY, group_rows=_RUN_GROUP_ROWS))
    return files


def _gather(batches: Iterable[pa.Table], keep: Keep, n_bytes: int) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for batch in batches:
        kept = batch.filter(pa.array(keep(batch[_KEY])))
        held += [kept.cast(IMAGE_EMBEDDINGS.arrow)] if kept.num_rows else []
        if sum(table.nbytes for table in held) >= n_bytes:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _sorted(rows: pa.Table) -> pa.Table:
    rows = rows.combine_chunks()
    return rows.take(pc.sort_indices(rows[_KEY]))


def _without_repeats(rows: pa.Table) -> pa.Table:
    """Sorted rows, the first of each content."""
    if rows.num_rows < 2:
        return rows
    shas = rows[_KEY].combine_chunks()
    differs = pc.not_equal(shas.slice(1), shas.slice(0, len(shas) - 1))
    first = np.r_[True, differs.to_numpy(zero_copy_only=False)]
    return rows if first.all() else rows.filter(pa.array(first))
