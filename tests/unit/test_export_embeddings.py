"""`export-embeddings` against a small warehouse written row by row, without Spark."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dedup_job.commands.export_embeddings import export_embeddings
from dedup_job.errors import ConfigError, DedupError
from dedup_job.io.manifests import RunManifest, describe_table, point_latest
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import CATALOG_IMAGES, IMAGE_EMBEDDINGS
from tests.unit.warehouses import image

MODEL = "m"


@pytest.fixture
def warehouse(tmp_path):
    folder = Folder(str(tmp_path / "warehouse"))
    contents = {"A": "x", "B": "x", "C": "y", "D": "z"}
    images = [image(sku, sku, content_sha256=content) for sku, content in contents.items()]
    images.append(image("left", "left", in_catalog=False))
    images.append(image("broken", "broken", reason="corrupt", detail="damaged"))
    stored = write_rows(images, CATALOG_IMAGES, folder.child("_state", "catalog_images"))
    for contents in ({"x": 0.0, "y": 1.0}, {"x": 0.0, "z": 2.0, "not in the catalog": 3.0}):
        rows = [{"content_sha256": sha, "embedding": [v]} for sha, v in contents.items()]
        write_rows(rows, IMAGE_EMBEDDINGS, embeddings_folder(folder))
    manifest = RunManifest(
        run_id="r",
        run_date="2026-11-23",
        status="published",
        started_at="",
        finished_at="",
        version="0",
        config={},
        facts={"model_id": MODEL},
        tables={CATALOG_IMAGES.name: describe_table(stored, folder)},
    )
    point_latest(folder, manifest)
    return folder


def embeddings_folder(warehouse):
    return warehouse.child(IMAGE_EMBEDDINGS.name, f"model_id={MODEL}")


def left_behind(folder):
    return [path.name for path in folder.iterdir() if path.is_file()]


def test_a_content_that_two_files_hold_is_exported_once(warehouse, tmp_path):
    out = tmp_path / "vectors.parquet"
    out.write_bytes(b"an older export")
    assert export_embeddings(warehouse.uri, str(out)) == 4
    rows = {row["sku_id"]: row["embedding"] for row in pq.read_table(out).to_pylist()}
    assert rows == {"A": [0.0], "B": [0.0], "C": [1.0], "D": [2.0]}
    assert pq.read_table(out).num_rows == 4
    assert left_behind(tmp_path) == ["vectors.parquet"]


def test_what_cannot_be_read_names_the_warehouse_and_leaves_the_old_file(warehouse, tmp_path):
    out = tmp_path / "vectors.parquet"
    out.write_bytes(b"an older export")
    folder = embeddings_folder(warehouse)
    Path(folder.path(folder.file_names()[-1])).write_bytes(b"PAR1 damaged")
    with pytest.raises(DedupError, match="cannot be read") as caught:
        export_embeddings(warehouse.uri, str(out))
    assert warehouse.uri in str(caught.value)
    assert not isinstance(caught.value, ConfigError)
    assert out.read_bytes() == b"an older export"
    assert left_behind(tmp_path) == ["vectors.parquet"]


def test_a_row_without_embedding_is_told(warehouse, tmp_path):
    folder = embeddings_folder(warehouse)
    for name in folder.file_names()[1:]:
        folder.delete_file(name)
    with pytest.raises(DedupError, match=r"\d rows have no embedding"):
        export_embeddings(warehouse.uri, str(tmp_path / "vectors.parquet"))
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("out", ["no folder/x.parquet", "warehouse", "a file/x.parquet"])
def test_what_cannot_be_written_names_out(warehouse, tmp_path, out):
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"--out .* cannot be written: "):
        export_embeddings(warehouse.uri, str(tmp_path / out))
    assert left_behind(tmp_path) == ["a file"]
