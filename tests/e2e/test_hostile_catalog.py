"""Broken rows beside good ones: each costs itself, says why, and changes nothing else."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dedup_job.sample.catalog import write_sample_catalog
from tests.e2e.jobs import read_csv, read_report, run_job, write_csv
from tests.photos import draw_photo, encode, jpeg
from tests.servers import hang

pytestmark = pytest.mark.spark

# One threshold for both runs: a solved one moves a little with the size of the catalog.
FIXED = {"match__min_cosine": 0.9, "fetch__total_timeout_s": 2, "fetch__read_timeout_s": 1}


def _png_bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(20_001)) for _ in range(20_000)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _files() -> dict[str, bytes]:
    photo = Image.fromarray(draw_photo(1, 300, 400))
    frames = [Image.fromarray(draw_photo(seed, 200, 200)) for seed in (2, 3)]
    grey = np.linspace(0, 65535, 200 * 200).reshape(200, 200).astype(np.uint16)
    return {
        "empty.jpg": b"",
        "html.jpg": b"<!DOCTYPE html><title>404</title>",
        "truncated.jpg": jpeg(4, 300, 400)[:4000],
        "cmyk.jpg": _saved(photo.convert("CMYK"), "JPEG"),
        "sixteen_bit.png": _saved(Image.fromarray(grey), "PNG"),
        "animated.gif": _saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "one_pixel.png": encode(draw_photo(1, 1, 1), ".png"),
        "bomb.png": _png_bomb(),
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample_catalog(tmp_path_factory.mktemp("hostile"), n_products=16).catalog


def test_each_broken_row_is_rejected_for_its_own_reason(spark, sample, photo_server, tmp_path):
    rows = [{k: row[k] for k in ("sku_id", "image_uri")} for row in read_csv(sample)]
    clean = write_csv(sample.with_name("clean.csv"), rows)
    photo_server.routes["/hang.jpg"] = hang
    for name, data in _files().items():
        (sample.parent / "images" / name).write_bytes(data)
    added = [("missing", "images/missing.jpg")]
    added += [(name.partition(".")[0], f"images/{name}") for name in _files()]
    added += [(rows[0]["sku_id"], rows[0]["image_uri"]), ("", rows[0]["image_uri"])]
    added += [("gone", photo_server.url("/gone.jpg")), ("hanging", photo_server.url("/hang.jpg"))]
    hostile = write_csv(
        sample.with_name("with_hostile.csv"),
        [*rows, *({"sku_id": sku, "image_uri": uri} for sku, uri in added)],
    )

    before = run_job(clean, tmp_path / "clean", **FIXED)
    result = run_job(hostile, tmp_path / "hostile", fetch__allow_hosts=["127.0.0.1"], **FIXED)

    assert result.rows.catalog == before.rows.catalog + len(added)
    rejects = read_report(tmp_path / "hostile", "rejected_images")
    of_added = {r["sku_id"]: r["reason"] for r in rejects if int(r["catalog_row"]) >= len(rows)}
    assert of_added == {
        "missing": "not_found",
        "empty": "empty_file",
        "html": "not_image",
        "truncated": "truncated",
        "one_pixel": "too_small",
        "bomb": "too_many_pixels",
        rows[0]["sku_id"]: "duplicate_row",
        None: "null_sku",
        "gone": "not_found",
        "hanging": "timeout",
    }
    handled = {"cmyk", "sixteen_bit", "animated"}
    assert handled.isdisjoint(r["sku_id"] for r in rejects)
    assert _pairs(tmp_path / "hostile", without=handled) == _pairs(tmp_path / "clean")
    assert len(_pairs(tmp_path / "clean")) > 5


def _pairs(warehouse, without=frozenset()):
    return {
        (row["sku_id_a"], row["sku_id_b"], row["cosine"], row["match_type"])
        for row in read_report(warehouse, "duplicate_pairs")
        if not without & {row["sku_id_a"], row["sku_id_b"]}
    }


def test_http_is_refused_until_a_host_is_allowed(spark, photo_server, tmp_path):
    photo_server.routes["/a.jpg"] = jpeg(1)
    catalog = write_csv(
        tmp_path / "catalog.csv",
        [{"sku_id": "a", "image_uri": photo_server.url("/a.jpg?token=s3cret")}],
    )
    run_job(catalog, tmp_path / "refused")
    (reject,) = read_report(tmp_path / "refused", "rejected_images")
    assert reject["reason"] == "uri_refused"
    assert "fetch.allow_hosts" in reject["detail"]
    assert "s3cret" not in str(reject)
    assert photo_server.requests == []
    result = run_job(catalog, tmp_path / "allowed", fetch__allow_hosts=["127.0.0.1"])
    assert result.rows.embedded == 1
    assert photo_server.paths() == ["/a.jpg?token=s3cret"]
