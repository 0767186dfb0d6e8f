"""Small warehouses written row by row, without Spark."""

import hashlib
from datetime import UTC, date, datetime

import numpy as np

from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.manifests import RunManifest, describe_table, point_latest, write_manifest
from dedup_job.io.tables import read_rows, write_rows
from dedup_job.tables import CATALOG_IMAGES, IMAGE_EMBEDDINGS

MODEL = "m"


def sha(name):
    """Content hash of a photo named like this."""
    return hashlib.sha256(str(name).encode()).hexdigest()


def row_of(table, **values):
    """A row of a table with something in every column."""
    made = {
        "string": "",
        "binary": b"",
        "date": date(2026, 11, 23),
        "timestamp": datetime(2026, 11, 23, tzinfo=UTC),
        "boolean": False,
        "int": 1,
        "bigint": 1,
        "float": 0.5,
        "double": 0.5,
        "array<float>": [],
        "array<string>": [],
    }
    return {column.name: made[column.type] for column in table.columns} | values


def image(sku, photo, last_seen=date(2026, 11, 23), **values):
    row = dict.fromkeys(CATALOG_IMAGES.column_names)
    return row | {
        "sku_id": sku,
        "uri_key": f"key {sku}",
        "content_sha256": sha(photo),
        "width": 1,
        "height": 1,
        "last_seen": last_seen,
        "in_catalog": True,
        "image_uri": f"photos/{photo}.jpg",
        "fetch_key": f"fetch {photo}",
        "checked_on": last_seen,
        "catalog_row": "0",
        "position": 0,
        "product": f"s:{sku}",
        "block": "",
        "conflict": "",
        "order_values": [],
        **values,
    }


def vector(photo):
    """An embedding that is told by its photo alone, and that no codec makes smaller."""
    seed = int(sha(photo)[:8], 16)
    return np.random.default_rng(seed).random(32, np.float32).tolist()


def add_embeddings(warehouse, photos, run_id, model=MODEL):
    """Append a night's embeddings to the store, as a run does."""
    rows = [{"content_sha256": sha(p), "embedding": vector(p)} for p in photos]
    staged = write_rows(rows, IMAGE_EMBEDDINGS, warehouse.child("_staging", run_id, "e"))
    store = EmbeddingStore(warehouse, model)
    store.append(staged, run_id)
    warehouse.child("_staging").delete()
    return store


def stored_embeddings(warehouse, model=MODEL):
    """content_sha256 -> embedding, of what counts; each content must be there once."""
    rows = read_rows(EmbeddingStore(warehouse, model).stored()).to_pylist()
    found = {row["content_sha256"]: row["embedding"] for row in rows}
    assert len(found) == len(rows)
    return found


def publish(warehouse, run_id, tables, run_date="2026-11-23", status="published", **values):
    """Write a run's manifest. `tables`: name -> StoredTable below the warehouse."""
    manifest = RunManifest(
        run_id=run_id,
        run_date=run_date,
        status=status,
        started_at=f"{run_date}T01:00:00+00:00",
        finished_at=f"{run_date}T02:00:00+00:00",
        version="0",
        config={},
        facts={"model_id": values.pop("model", MODEL), "n_groups": 2, "min_cosine": 0.9},
        tables={name: describe_table(stored, warehouse) for name, stored in tables.items()},
        **values,
    )
    write_manifest(warehouse, manifest)
    if status == "published":
        point_latest(warehouse, manifest)
    return manifest


def publish_images(warehouse, images, run_id="r1", **values):
    """Publish a run whose only table is `catalog_images`."""
    folder = warehouse.child("_state", CATALOG_IMAGES.name)
    return publish(
        warehouse,
        run_id,
        {CATALOG_IMAGES.name: write_rows(images, CATALOG_IMAGES, folder)},
        **values,
    )
