"""`dedup-job forget`: SKUs erased from everything below a warehouse.

In an order that a crash at any point leaves for the next attempt to finish: the state of the newest
run, which says what photos a SKU had, changes last. Manifests name new files before the old ones go.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup_job.commands.erasure import (
    Forgotten,
    columns_to_look_at,
    erase,
    is_touched,
    named_skus,
    repair_groups,
)
from dedup_job.commands.maintenance import Maintenance, delete_unfinished_work, maintain
from dedup_job.errors import ConfigError, DedupError
from dedup_job.gallery.writing import forget_photos
from dedup_job.io.content_merge import is_sorted_file
from dedup_job.io.embedding_store import EmbeddingStore, embedding_stores
from dedup_job.io.manifests import LATEST, MANIFEST_FORMAT
from dedup_job.io.search_index import INDEX_FOLDER
from dedup_job.io.storage import RUNS_FOLDER, STATE_FOLDER, Folder, open_warehouse
from dedup_job.io.tables import StoredTable, TableFile, list_table, read_batches, write_batches
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    IMAGE_EMBEDDINGS,
    REPORT_TABLES,
    STATE_TABLES,
    Table,
)

logger = logging.getLogger("dedup_job")
_TABLES = {table.name: table for table in (*REPORT_TABLES, *STATE_TABLES)}
_ERASED = "[forgotten]"
# Parts of a manifest that are sentences for people; they may name a SKU.
_TEXTS = ("error", "gates")

Documents = dict[str, dict[str, Any]]  # file name -> manifest as JSON


@dataclass
class Forgetting:
    """What was erased: rows by table, in the files of manifests and in their `run_date=` copies."""

    sku_ids: tuple[str, ...]
    rows: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    found: set[str] = field(default_factory=set)

    def summary(self) -> str:
        """For a terminal."""
        lines = [f"nothing named {sku}" for sku in self.sku_ids if sku not in self.found]
        if self.found:
            lines.append(f"forgot {', '.join(sorted(self.found))}; rows erased or changed:")
        for name in sorted(self.rows | self.copies):
            copies = f", {self.copies[name]} in run_date= partitions" if self.copies[name] else ""
            lines.append(f"  {name:<20}{self.rows[name]}{copies}")
        if self.found:
            lines.append("a SKU that is still in the catalog comes back with the next run")
        return "\n".join(lines)


def forget_skus(warehouse: str, sku_ids: Collection[str]) -> None:
    """Erase SKUs from a warehouse and print what was erased.

    Args:
        warehouse: as `--warehouse`.
        sku_ids: as in the catalog.

    Raises:
        DedupError: see `forget`.
    """
    print(forget(open_warehouse(warehouse), sku_ids).summary())


def forget(warehouse: Folder, sku_ids: Collection[str]) -> Forgetting:
    """Erase SKUs from state, embeddings and the reports of every run; delete unfinished work.

    Figures that runs counted (`runs`, `run_metrics`, facts of manifests) stay as they were.

    Args:
        warehouse: the warehouse.
        sku_ids: as in the catalog; unknown ones are told, not an error.

    Raises:
        WarehouseBusy: a run or another command works there.
        ConfigError: an empty id.
        DedupError: there is no run, or a manifest cannot be read.
    """
    if not all(sku_ids):
        raise ConfigError("forget takes SKU ids as they stand in the catalog; got an empty one")
    done = Forgetting(tuple(dict.fromkeys(sku_ids)))
    with maintain(warehouse, "forget") as work:
        documents = _read_documents(warehouse)
        forgotten = _learn(warehouse, documents, frozenset(sku_ids))
        delete_unfinished_work(warehouse, work.staging)
        for store in embedding_stores(warehouse):
            _erase_embeddings(store, forgotten, work, done)
        for table in REPORT_TABLES:
            _erase_partitions(warehouse, table, forgotten, work, done)
        for name, document in documents.items():
            _erase_run(warehouse, name, document, forgotten, work, done)
        _copy_latest(warehouse, documents)
        _delete_unnamed(warehouse, documents)
        forget_photos(warehouse, forgotten.contents)
        warehouse.child(INDEX_FOLDER).delete()  # the next `find` builds it anew
    return done


def _read_documents(warehouse: Folder) -> Documents:
    """All manifests, that of the newest run last."""
    folder = warehouse.child(RUNS_FOLDER)
    names = [name for name in folder.file_names() if name.endswith(".json")]
    documents: Documents = {}
    for name in names:
        try:
            document = json.loads(folder.read_bytes(name) or b"")
            is_newer = document["format"] > MANIFEST_FORMAT
            documents[name] = {**document, "tables": dict(document["tables"])}
        except (ValueError, TypeError, KeyError) as error:
            raise DedupError(
                f"{folder.path(name)} is damaged ({error!r}), so it is unknown what its run "
                "published; nothing was erased. Delete that file and the folder of that name"
            ) from None
        if is_newer:
            raise DedupError(f"{folder.path(name)} is of a newer version; upgrade catalog-dedup")
    latest = documents.pop(LATEST, None)
    if latest is not None:
        own = f"{latest['run_id']}.json"
        name = own if own in documents else LATEST
        documents[name] = documents.pop(name, latest)
    return documents


def _learn(warehouse: Folder, documents: Documents, sku_ids: frozenset[str]) -> Forgotten:
    """What photos the SKUs had, and which of them others show too."""
    columns = ["sku_id", "content_sha256", "image_uri"]
    ids = pa.array(sorted(sku_ids), pa.string())
    states = [_find(warehouse, one, CATALOG_IMAGES) for one in documents.values()]
    mine, uris = set[str](), set[str]()
    for state in states:
        for rows in read_batches(state, columns):
            rows = rows.filter(pc.is_in(rows["sku_id"], value_set=ids))
            mine.update(rows["content_sha256"].to_pylist())
            uris.update(rows["image_uri"].to_pylist())
    shared, examples = set[str](), dict[str, str]()
    for rows in read_batches(states[-1], columns) if mine else ():
        others = rows.filter(pc.invert(pc.is_in(rows["sku_id"], value_set=ids)))
        for name, known in (("content_sha256", mine), ("image_uri", uris)):
            hit = others.filter(pc.is_in(others[name], value_set=pa.array(sorted(known))))
            for row in hit.to_pylist():
                shared.update((row["content_sha256"], row["image_uri"]))
                first = examples.get(row["content_sha256"], row["image_uri"])
                examples[row["content_sha256"]] = min(first, row["image_uri"])
    return Forgotten(sku_ids, frozenset(mine - shared), frozenset(uris - shared), examples)


def _find(warehouse: Folder, document: dict[str, Any], table: Table) -> StoredTable:
    """The files of a run's table that are there: those of an older state are gone."""
    entry = document["tables"].get(table.name)
    if entry is None:
        return StoredTable(table, warehouse, ())
    folder = warehouse.child(entry["folder"])
    present = set(folder.file_names())
    files = tuple(TableFile(**file) for file in entry["files"] if file["name"] in present)
    return StoredTable(table, folder, files)


def _erase_embeddings(
    store: EmbeddingStore, forgotten: Forgotten, work: Maintenance, done: Forgetting
) -> None:
    stored = store.stored()
    staging = work.staging.child(store.model_id)
    erased = {
        file.name: new
        for file in stored.files
        if (new := _erase_file(_only(stored, file), forgotten, staging, done, done.rows))
    }
    if erased:
        work.lease.check()
        moved = store.move_in(
            StoredTable(IMAGE_EMBEDDINGS, staging, tuple(erased.values())), work.work_id
        )
        new_of = dict(zip(erased, moved, strict=True))
        store.replace([new_of.get(file.name, file) for file in stored.files])
    store.delete_strays()


def _erase_partitions(
    warehouse: Folder, table: Table, forgotten: Forgotten, work: Maintenance, done: Forgetting
) -> None:
    """What globbing readers see; each file is replaced in one step."""
    root = warehouse.child(table.name)
    for name in root.folder_names():
        folder = root.child(name)
        here = list_table(table, folder)
        now = forgotten
        if table is DUPLICATE_GROUPS:
            pairs = warehouse.child(DUPLICATE_PAIRS.name, name)
            now = _with_groups(here, list_table(DUPLICATE_PAIRS, pairs), forgotten)
        for file in here.files:
            new = _erase_file(
                _only(here, file), now, work.staging.child("copies"), done, done.copies
            )
            if new:
                work.lease.check()
                folder.place(work.staging.child("copies"), new.name, file.name)
        for left in folder.file_names():
            if left.startswith("."):  # of a copy that was interrupted
                folder.delete_file(left)


def _erase_run(
    warehouse: Folder,
    name: str,
    document: dict[str, Any],
    forgotten: Forgotten,
    work: Maintenance,
    done: Forgetting,
) -> None:
    """New files beside the old ones of a run, then its manifest, changed in place."""
    before = json.dumps(document)
    groups = _find(warehouse, document, DUPLICATE_GROUPS)
    forgotten = _with_groups(groups, _find(warehouse, document, DUPLICATE_PAIRS), forgotten)
    for table_name, entry in document["tables"].items():
        table = _TABLES.get(table_name)
        if table is None or table is IMAGE_EMBEDDINGS:
            continue
        stored = _find(warehouse, document, table)
        changed = dict(_new_files(stored, forgotten, work, done))
        entry["files"] = [changed.get(file["name"], file) for file in entry["files"]]
    for key in _TEXTS:
        if key in document:
            document[key] = _scrub(document[key], forgotten.sku_ids)
    if json.dumps(document) != before:
        work.lease.check()
        warehouse.child(RUNS_FOLDER).replace_bytes(name, _dump(document))


def _new_files(
    stored: StoredTable, forgotten: Forgotten, work: Maintenance, done: Forgetting
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Old name and new entry of each file that changes."""
    if stored.folder.uri.rpartition("/")[2].startswith("run_date="):
        # A manifest of the first release names the partition itself, which is changed already.
        for file in stored.files:
            yield file.name, asdict(_describe(stored.folder, file.name))
        return
    for file in stored.files:
        new = _erase_file(_only(stored, file), forgotten, work.staging, done, done.rows)
        if new:
            name = f"{work.work_id}-{new.name}"
            stored.folder.move_in(work.staging, new.name, name)
            yield file.name, asdict(replace(new, name=name))


def _copy_latest(warehouse: Folder, documents: Documents) -> None:
    folder = warehouse.child(RUNS_FOLDER)
    before = folder.read_bytes(LATEST)
    if before is None:
        return
    latest = json.loads(before)
    own = documents.get(f"{latest['run_id']}.json")
    if own is None:
        return
    # What `point_latest` adds, and in one line as it writes it.
    content = {**own, "previous": latest.get("previous", {})}
    after = (json.dumps(content, sort_keys=True) + "\n").encode()
    if before != after:
        folder.replace_bytes(LATEST, after)


def _delete_unnamed(warehouse: Folder, documents: Documents) -> None:
    """Delete files of runs and state that no manifest names: replaced just now, or of dead runs."""
    named = {
        (warehouse.child(entry["folder"]).uri, file["name"])
        for document in documents.values()
        for entry in document["tables"].values()
        for file in entry["files"]
    }
    runs, state = warehouse.child(RUNS_FOLDER), warehouse.child(STATE_FOLDER)
    folders = [runs.child(run, t) for run in runs.folder_names() for t in _TABLES]
    for folder in [*folders, *(state.child(name) for name in state.folder_names())]:
        for name in folder.file_names():
            if (folder.uri, name) not in named:
                folder.delete_file(name)


def _erase_file(
    stored: StoredTable,
    forgotten: Forgotten,
    staging: Folder,
    done: Forgetting,
    counts: Counter[str],
) -> TableFile | None:
    """Write the one file of `stored` anew into staging; None if nothing in it must go."""
    name = stored.table.name
    columns = columns_to_look_at(name)
    n_touched = 0
    for rows in read_batches(stored, columns) if columns else ():
        n_touched += int(np.count_nonzero(is_touched(rows, name, forgotten)))
        done.found |= named_skus(rows, name, forgotten.sku_ids)
    if not n_touched:
        return None
    counts[name] += n_touched
    with stored.folder.open_read(stored.files[0].name) as stream:
        metadata = pq.read_metadata(stream)
    present = set(metadata.schema.to_arrow_schema().names)  # older files have fewer columns
    table = replace(
        stored.table, columns=tuple(c for c in stored.table.columns if c.name in present)
    )
    left = (
        batch
        for rows in read_batches(stored, table.column_names)
        for batch in erase(rows, name, forgotten).to_batches()
    )
    is_sorted = name == IMAGE_EMBEDDINGS.name and is_sorted_file(metadata)
    return write_batches(left, table, staging, "content_sha256" if is_sorted else None)


def _with_groups(groups: StoredTable, pairs: StoredTable, forgotten: Forgotten) -> Forgotten:
    return replace(forgotten, groups=repair_groups(groups, pairs, forgotten.sku_ids))


def _describe(folder: Folder, name: str) -> TableFile:
    digest, n_bytes = hashlib.sha256(), 0
    with folder.open_read(name) as stream:
        n_rows = pq.read_metadata(stream).num_rows
        stream.seek(0)
        while block := stream.read(1 << 20):
            digest.update(block)
            n_bytes += len(block)
    return TableFile(name, n_rows, n_bytes, digest.hexdigest())


def _scrub(value: Any, sku_ids: Collection[str]) -> Any:
    """A JSON value whose texts name none of the SKUs."""
    if isinstance(value, dict):
        return {key: _scrub(one, sku_ids) for key, one in value.items()}
    if isinstance(value, list):
        return [_scrub(one, sku_ids) for one in value]
    if isinstance(value, str):
        for sku in sku_ids:
            value = re.sub(rf"(?<!\w){re.escape(sku)}(?!\w)", _ERASED, value)
    return value


def _only(stored: StoredTable, file: TableFile) -> StoredTable:
    return replace(stored, files=(file,))


def _dump(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
