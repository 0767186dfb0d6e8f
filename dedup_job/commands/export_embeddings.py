"""`dedup-job export-embeddings`: the catalog's photos with their embeddings, for analysis."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup_job.errors import ConfigError
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import list_table, read_rows
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
    embeddings at a time.

    Returns:
        Rows written: one per usable catalog row.

    Raises:
        DedupError: nothing was published there.
        ConfigError: the file cannot be written.
    """
    folder = open_warehouse(warehouse)
    manifest = read_manifest(folder)
    images = read_rows(find_table(folder, manifest, CATALOG_IMAGES.name)).select(
        ["sku_id", "image_uri", "content_sha256"]
    )
    embeddings = list_table(
        IMAGE_EMBEDDINGS,
        folder.child(IMAGE_EMBEDDINGS.name, f"model_id={manifest.facts['model_id']}"),
    )
    try:
        return _write(images, embeddings.folder, [f.name for f in embeddings.files], Path(out))
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from None


def _write(images: pa.Table, folder: Folder, names: list[str], out: Path) -> int:
    n_rows = 0
    with pq.ParquetWriter(out, _SCHEMA, compression="zstd") as writer:
        for name in names:
            with folder.open_read(name) as stream:
                embeddings = pq.ParquetFile(stream).read()
            rows = _join(images, embeddings)
            writer.write_table(rows)
            n_rows += rows.num_rows
    return n_rows


def _join(images: pa.Table, embeddings: pa.Table) -> pa.Table:
    """Rows of `images` whose content is in `embeddings` (Arrow's own join takes no lists)."""
    at = pc.index_in(images["content_sha256"], value_set=embeddings["content_sha256"])
    known = pc.is_valid(at)
    rows, at = images.filter(known), at.filter(known)
    return pa.table(
        [rows["sku_id"], rows["image_uri"], embeddings["embedding"].take(at)], schema=_SCHEMA
    )
