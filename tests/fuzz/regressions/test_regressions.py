"""What fuzzing found, one small input each. A new finding gets its line here."""

import io
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup_job.config import CatalogConfig
from dedup_job.errors import CatalogError, ConfigError, ImageRejected, RejectReason
from dedup_job.io import addresses
from dedup_job.io.catalog import plan_catalog
from dedup_job.io.decisions import read_decisions
from dedup_job.io.decoding import DecoderSettings, IsolatedDecoder
from dedup_job.io.uris import resolve


def parquet_with_a_column_name_that_is_not_utf8(names):
    stream = io.BytesIO()
    pq.write_table(pa.table({name: ["x"] for name in (*names, "spoilt_name")}), stream)
    return stream.getvalue().replace(b"spoilt_name", b"spoilt\xffname")


def test_a_parquet_column_name_that_is_not_utf8(tmp_path):
    catalog, decisions = tmp_path / "catalog.parquet", tmp_path / "decisions.parquet"
    catalog.write_bytes(parquet_with_a_column_name_that_is_not_utf8(["sku_id", "image_uri"]))
    with pytest.raises(CatalogError, match="column name of this Parquet file is not UTF-8"):
        plan_catalog(CatalogConfig(path=str(catalog)))
    names = ["sku_id_a", "sku_id_b", "decision"]
    decisions.write_bytes(parquet_with_a_column_name_that_is_not_utf8(names))
    with pytest.raises(ConfigError, match="column name of this Parquet file is not UTF-8"):
        read_decisions(str(decisions))


@pytest.mark.parametrize("mark", ["\r", "\x00", "\x1b", "\u2028", "\x85"])
def test_a_column_name_with_a_control_character_is_not_suggested(tmp_path, mark):
    path = tmp_path / "catalog.csv"
    path.write_text(f'sku_id,"image{mark}_uri"\n1,a.jpg\n', encoding="utf-8", newline="")
    with pytest.raises(CatalogError) as caught:
        plan_catalog(CatalogConfig(path=str(path)))
    assert len(str(caught.value).splitlines()) == 1
    assert mark not in str(caught.value)


def test_the_star_for_all_hosts_names_no_host_called_star(monkeypatch):
    def look_up(host, port, timeout_s):
        return [addresses.Address(2, ("127.0.0.1", port))]

    monkeypatch.setattr(addresses, "_look_up", look_up)
    with pytest.raises(ImageRejected) as caught:
        addresses.permitted_addresses("*", 80, ("*",), 1.0)
    assert caught.value.reason is RejectReason.URI_REFUSED


def test_a_host_name_of_any_length_is_not_quoted():
    assert resolve(f"http://{'x' * 253}/a.jpg", "/") == f"http://{'x' * 253}/a.jpg"
    with pytest.raises(ImageRejected) as caught:
        resolve(f"http://{'x' * 254}/a.jpg", "/")
    assert caught.value.reason is RejectReason.URI_REFUSED
    assert len(caught.value.detail) < 100


def test_a_gif_frame_larger_than_its_screen_is_refused_before_it_is_allocated():
    screen = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0xF0, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65_296, 32_767, 0) + b"\x02\x02\x44\x01\x00;"
    decoder = IsolatedDecoder(DecoderSettings(32, 0.0, memory_mb=256))
    with pytest.raises(ImageRejected) as caught:
        decoder.prepare(screen + frame)
    decoder.close()
    assert caught.value.reason is RejectReason.TOO_MANY_PIXELS
