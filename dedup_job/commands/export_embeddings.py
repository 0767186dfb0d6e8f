"""`dedup-job export-embeddings`: the catalog's photos with their embeddings, for analysis."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup_job.commands.output_file import written_whole
from dedup_job.errors import DedupError
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import StoredTable, read_rows
from dedup_job.tables import CATALOG_IMAGES, IMAGE_EMBEDDINGS

_SCHEMA = pa.schema(
    [
        pa.field("sku_id", pa.string(), False),
        pa.field("image_uri", pa.string(), False),
        pa.field("embedding", pa.list_(pa.float32()), False),
    ]
)


def export_embeddings(warehouse: str, out: str) -> int:
    """Write `sku_id, image_uri, embedding` of the last published run to one Parquet file.

    The file is streamed: memory holds the catalog's ids and the index of hashes, and one file of
    embeddings at a time. It appears under its name when it is complete.

    Returns:
        Rows written: one per usable catalog row.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
        ConfigError: the file cannot be written.
    """
    folder = open_warehouse(warehouse)
    with _reading(folder):
        manifest = read_manifest(folder)
        images = read_rows(find_table(folder, manifest, CATALOG_IMAGES.name))
        # Rows that left the catalog, and rejected contents, are remembered there too.
        images = images.filter(pc.and_(images["in_catalog"], pc.is_null(images["reason"])))
        images = images.select(["sku_id", "image_uri", "content_sha256"])
        embeddings = EmbeddingStore(folder, manifest.facts["model_id"]).stored()
    return _write(_with_embeddings(images, embeddings, folder), Path(out))


def _with_embeddings(
    images: pa.Table, embeddings: StoredTable, warehouse: Folder
) -> Iterator[pa.Table]:
    """Each row of `images` once, though a content may be in several files (two runs, one model)."""
    for file in embeddings.files:
        with _reading(warehouse), embeddings.folder.open_read(file.name) as stream:
            known = pq.ParquetFile(stream).read(["content_sha256", "embedding"])
        rows, images = _join(images, known)
        yield rows
    if images.num_rows:
        raise DedupError(
            f"{warehouse.uri}: {images.num_rows} rows have no embedding in "
            f"{IMAGE_EMBEDDINGS.name}; run dedup-job run again"
        )


def _join(images: pa.Table, embeddings: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows whose content is in `embeddings`, and the others (Arrow's own join takes no lists)."""
    at = pc.index_in(images["content_sha256"], value_set=embeddings["content_sha256"])
    known = pc.is_valid(at)
    rows, at = images.filter(known), at.filter(known)
    joined = pa.table(
        [rows["sku_id"], rows["image_uri"], embeddings["embedding"].take(at)], schema=_SCHEMA
    )
    return joined, images.filter(pc.invert(known))


def _write(tables: Iterable[pa.Table], out: Path) -> int:
    n_rows = 0
    with (
        written_whole(out) as partial,
        pq.ParquetWriter(partial, _SCHEMA, compression="zstd") as writer,
    ):
        for rows in tables:
            writer.write_table(rows)
            n_rows += rows.num_rows
    return n_rows


@contextmanager
def _reading(warehouse: Folder) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DedupError(f"{warehouse.uri} cannot be read: {_problem(error)}") from None


def _problem(error: Exception) -> str:
    return getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
