"""`dedup-job compact`: the embedding store in few large files, without what nothing uses."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.commands.maintenance import Maintenance, delete_unfinished_work, maintain
from dedup_job.gallery.writing import drop_unseen
from dedup_job.io.content_merge import (
    Keep,
    Merged,
    file_size,
    hash_prefixes,
    is_in_sorted,
    merge_contents,
)
from dedup_job.io.embedding_store import EmbeddingStore, embedding_stores
from dedup_job.io.manifests import RunManifest, find_table, list_runs, newest_published
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_batches
from dedup_job.tables import CATALOG_IMAGES

logger = logging.getLogger("dedup_job")
TARGET_BYTES = 192 << 20
UNREFERENCED_DAYS = 30
# Files of two thirds to four thirds of the target: 128 to 256 MiB.
_LARGEST = 4 / 3


@dataclass
class Compaction:
    """What was done. Files and bytes are those of all Parquet files of the store."""

    warehouse: str
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    contents_dropped: int = 0
    repeats_dropped: int = 0
    thumbnails_dropped: int = 0
    models_dropped: list[str] = field(default_factory=list)
    is_changed: bool = False

    def summary(self) -> str:
        """For a terminal."""
        if not self.is_changed:
            return f"nothing to do: {self.warehouse} has {_files(self.files_before)} in order"
        lines = [
            f"compacted the embeddings of {self.warehouse}",
            f"  before    {_files(self.files_before)}, {self.bytes_before / 1e6:.1f} MB",
            f"  after     {_files(self.files_after)}, {self.bytes_after / 1e6:.1f} MB",
            f"  dropped   {self.contents_dropped} contents that no catalog row of the last days "
            f"names, {self.repeats_dropped} repeated rows, {self.thumbnails_dropped} thumbnails that "
            "the gallery does not show",
        ]
        if self.models_dropped:
            lines.append(f"  retired   {', '.join(self.models_dropped)}")
        return "\n".join(lines)


def compact_warehouse(warehouse: str) -> None:
    """Compact a warehouse and print what was done.

    Args:
        warehouse: as `--warehouse`.

    Raises:
        DedupError: see `compact`.
    """
    print(compact(open_warehouse(warehouse)).summary())


def compact(
    warehouse: Folder,
    *,
    today: date | None = None,
    target_bytes: int = TARGET_BYTES,
    unreferenced_days: int = UNREFERENCED_DAYS,
) -> Compaction:
    """Merge the files of the embedding store, and drop what nothing uses.

    Dropped are models that neither the newest published run nor any run of the last days used,
    contents that no row of `catalog_images` of the last days names, repeated contents, files
    that do not count, and thumbnails that the gallery does not show. All days are counted back from
    the newest run if that is older than today: a warehouse that rests loses nothing. Without a
    published run only files are merged.

    Args:
        warehouse: the warehouse.
        today: in UTC; the default is the date now.
        target_bytes: files are of two to four thirds of it.
        unreferenced_days: the last days.

    Raises:
        WarehouseBusy: a run or another command works there.
        DedupError: there is no run, or an index or manifest is damaged.
    """
    done = Compaction(warehouse.uri)
    with maintain(warehouse, "compact") as work:
        newest = newest_published(warehouse)
        last = today or datetime.now(UTC).date()
        if newest is not None:
            last = min(last, date.fromisoformat(newest.run_date))
        since = last - timedelta(days=unreferenced_days)
        live = _live_models(warehouse, newest, since)
        keep = _keep(warehouse, newest, since)
        for store in embedding_stores(warehouse):
            _measure(done, store, "before")
            if live is not None and store.model_id not in live:
                work.lease.check()
                delete_unfinished_work(warehouse, work.staging)
                store.delete()
                done.models_dropped.append(store.model_id)
                done.is_changed = True
                continue
            _compact_store(store, keep, warehouse, work, done, int(target_bytes * _LARGEST))
            _measure(done, store, "after")
        if newest is not None:
            work.lease.check()
            done.thumbnails_dropped = drop_unseen(warehouse, newest)
            done.is_changed |= done.thumbnails_dropped > 0
    return done


def _compact_store(
    store: EmbeddingStore,
    keep: Keep,
    warehouse: Folder,
    work: Maintenance,
    done: Compaction,
    largest_bytes: int,
) -> None:
    """New files, then the index that names them, then the old files go."""
    staging = work.staging.child(store.model_id)
    merged = merge_contents(store.stored(), keep, staging, largest_bytes)
    if merged is not None:
        if merged.n_dropped:
            delete_unfinished_work(warehouse, work.staging)
        work.lease.check()
        store.replace(store.move_in(merged.stored, work.work_id))
        _count(done, merged)
    done.is_changed |= merged is not None or bool(store.strays())
    work.lease.check()
    store.delete_strays()
    staging.delete()


def _count(done: Compaction, merged: Merged) -> None:
    done.contents_dropped += merged.n_dropped
    done.repeats_dropped += merged.n_repeated


def _measure(done: Compaction, store: EmbeddingStore, when: str) -> None:
    names = [name for name in store.folder.file_names() if name.endswith(".parquet")]
    n_bytes = sum(file_size(store.folder, name) for name in names)
    if when == "before":
        done.files_before += len(names)
        done.bytes_before += n_bytes
    else:
        done.files_after += len(names)
        done.bytes_after += n_bytes


def _live_models(
    warehouse: Folder, newest: RunManifest | None, since: date
) -> frozenset[str] | None:
    """Models to keep; None: all."""
    if newest is None:
        return None
    recent = [run for run in list_runs(warehouse) if run.started_at[:10] >= since.isoformat()]
    return frozenset(
        run.facts["model_id"] for run in (newest, *recent) if run.facts.get("model_id")
    )


def _keep(warehouse: Folder, newest: RunManifest | None, since: date) -> Keep:
    """Which contents a recent catalog row names.

    Of each hash 64 bits are kept, 8 bytes a content: two that agree there are rare, and all that
    comes of it is a content that stays.
    """
    if newest is None or CATALOG_IMAGES.name not in newest.tables:
        return lambda shas: np.ones(len(shas), bool)
    found = [np.empty(0, np.uint64)]
    images = find_table(warehouse, newest, CATALOG_IMAGES.name)
    for rows in read_batches(images, ["content_sha256", "last_seen"]):
        recent = pc.greater_equal(rows["last_seen"], pa.scalar(since, pa.date32()))
        found.append(hash_prefixes(rows["content_sha256"].filter(recent)))
    named = np.unique(np.concatenate(found))
    return lambda shas: is_in_sorted(hash_prefixes(shas), named)


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"
