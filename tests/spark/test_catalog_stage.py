import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dedup_job.config import CatalogConfig
from dedup_job.errors import CatalogError, ImageRejected
from dedup_job.io.catalog import catalog_base, plan_catalog, read_catalog
from dedup_job.io.uris import fetch_key, redact, resolve, uri_key
from dedup_job.stages.catalog import (
    accepted_rows,
    canonical_json,
    classify_catalog,
    product_key,
    rejected_rows,
)
from dedup_job.tables import CATALOG_REJECTS, CATALOG_ROWS, RAW_CATALOG, arrow_batch

pytestmark = pytest.mark.spark

BASE = "/shop/photos"


def raw_row(position, sku="A", uri="a.jpg", **values):
    defaults = {
        "image_version": None,
        "variant_group": None,
        "block_values": [],
        "conflict_values": [],
        "order_values": [],
        "malformed": None,
    }
    row = {"catalog_row": str(position), "position": position, "sku_id": sku, "image_uri": uri}
    return {**row, **defaults, **values}


def split(spark, raw_rows, n_partitions=2):
    """Both outputs of the stage as dictionaries by position."""
    tuples = [tuple(row[name] for name in RAW_CATALOG.column_names) for row in raw_rows]
    raw = spark.createDataFrame(tuples, RAW_CATALOG.ddl).repartition(n_partitions)
    classified = classify_catalog(raw, BASE)
    rows, rejects = accepted_rows(classified), rejected_rows(classified)
    assert rows.columns == CATALOG_ROWS.column_names
    assert rejects.columns == CATALOG_REJECTS.column_names
    collected = []
    for table, frame in ((CATALOG_ROWS, rows), (CATALOG_REJECTS, rejects)):
        dicts = [row.asDict() for row in frame.collect()]
        arrow_batch(table, dicts).validate(full=True)
        by_position = {row["position"]: row for row in dicts}
        assert len(by_position) == len(dicts)
        collected.append(by_position)
    return collected


def test_every_rule_once(spark):
    secret = "https://u:SECRET@h/a.jpg?sig=SECRET"
    cases = [
        (raw_row(0, "A", "a.jpg?x", block_values=["t"], order_values=["1", None]), None),
        (raw_row(1, None), "null_sku"),
        (raw_row(2, " \u3000"), "null_sku"),
        (raw_row(3, "A\t"), "null_sku"),
        (raw_row(4, "B", None), "null_uri"),
        (raw_row(5, "B", "  "), "null_uri"),
        (raw_row(6, "B", secret), "uri_refused"),
        (raw_row(7, None, None, malformed="line 9: 2 columns"), "malformed_row"),
        (raw_row(8, "A", "./a.jpg?x", block_values=["t"]), "duplicate_row"),
        (raw_row(9, "A", "b.jpg", block_values=["u"]), "conflicting_row"),
        (raw_row(10, "A", "b.jpg", block_values=[None]), "conflicting_row"),
        (raw_row(11, "A", "c.jpg", block_values=["t"], variant_group="V"), "conflicting_row"),
        (raw_row(12, " A ", "a.jpg?x", block_values=["u"]), None),
        (raw_row(13, "B", "a.jpg", variant_group=" ", image_version=""), None),
        (raw_row(14, "C", "https://h/a.jpg?id=1", variant_group="s:A"), None),
        (raw_row(15, "C", "https://h/a.jpg?id=2", variant_group="s:A"), None),
        (raw_row(16, "C", "c.jpg", variant_group="s:A", conflict_values=["x"]), "conflicting_row"),
        (raw_row(17, "A", "b.jpg", block_values=["t"]), None),
        (raw_row(18, "A", "b.jpg", block_values=["t"]), "duplicate_row"),
        (raw_row(19, "A", "b.jpg", block_values=["u"]), "conflicting_row"),
    ]
    rows, rejects = split(spark, [row for row, _ in cases])
    assert {p: rejects[p]["reason"] if p in rejects else None for p in range(len(cases))} == {
        row["position"]: reason for row, reason in cases
    }
    assert rows[0]["source_uri"] == "file:///shop/photos/a.jpg%3Fx"
    assert rows[0]["image_uri"] == "a.jpg"
    assert rows[0]["order_values"] == ["1", None]
    assert (rows[0]["product"], rows[12]["product"], rows[14]["product"]) == (
        "s:A",
        "s: A ",
        "v:s:A",
    )
    assert (rows[13]["variant_group"], rows[13]["image_version"]) == (None, None)
    assert rows[14]["fetch_key"] != rows[15]["fetch_key"]
    assert rows[14]["uri_key"] == rows[15]["uri_key"]
    assert rejects[7]["detail"] == "line 9: 2 columns"
    assert rejects[9]["detail"] == "block not as in catalog row 0"
    assert rejects[11]["detail"] == "variant group not as in catalog row 0"
    assert rejects[16]["detail"] == "conflict values not as in catalog row 14"
    assert rejects[6]["image_uri"] == "https://h/a.jpg"
    assert "SECRET" not in json.dumps(rejects)


def oracle(raw_rows):
    """The rules in plain Python: position -> reason or None."""
    verdicts, seen, first = {}, set(), {}
    for row in sorted(raw_rows, key=lambda row: row["position"]):
        reason = row_reason(row)
        if reason is None:
            photo = (row["sku_id"], resolve(row["image_uri"], BASE))
            variant = (row["variant_group"] or "").strip() and row["variant_group"]
            values = (variant, tuple(row["block_values"]), tuple(row["conflict_values"]))
            if first.setdefault(row["sku_id"], values) != values:
                reason = "conflicting_row"
            elif photo in seen:
                reason = "duplicate_row"
            else:
                seen.add(photo)
        verdicts[row["position"]] = reason
    return verdicts


def row_reason(row):
    if row["malformed"]:
        return "malformed_row"
    sku, uri = row["sku_id"], row["image_uri"]
    if not sku or sku.isspace() or "\n" in sku:
        return "null_sku"
    if not uri or uri.isspace():
        return "null_uri"
    try:
        resolve(uri, BASE)
    except ImageRejected:
        return "uri_refused"
    return None


@st.composite
def raw_catalogs(draw):
    value = st.sampled_from([None, "x", "y"])
    row = st.fixed_dictionaries(
        {
            "sku": st.sampled_from([None, " ", "A", "B", "C", "D", "A ", "a\n", "É", "E\u0301"]),
            "uri": st.sampled_from(
                [
                    None,
                    "",
                    "a.jpg",
                    "./a.jpg",
                    "b.jpg",
                    "c.jpg",
                    "ftp://x",
                    "s3://b/k?1",
                    "s3://b/k",
                ]
            ),
            "variant_group": st.sampled_from([None, None, None, "", "A"]),
            "block_values": st.tuples(st.sampled_from(["x", "x", "x", None])).map(list),
            "conflict_values": st.tuples(st.just("x"), value).map(list),
            "order_values": st.tuples(value).map(list),
            "malformed": st.sampled_from([None] * 9 + ["broken"]),
        }
    )
    rows = draw(st.lists(row, min_size=60, max_size=120))
    positions = draw(st.permutations(range(len(rows))))
    return [raw_row(p * 7, **values) for p, values in zip(positions, rows, strict=True)]


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw_rows=raw_catalogs())
def test_every_row_ends_in_exactly_one_table_as_the_oracle_says(spark, raw_rows):
    rows, rejects = split(spark, raw_rows, n_partitions=3)
    expected = oracle(raw_rows)
    assert not rows.keys() & rejects.keys()
    verdicts = dict.fromkeys(rows) | {p: row["reason"] for p, row in rejects.items()}
    assert verdicts == expected
    for raw in raw_rows:
        row = rows.get(raw["position"])
        if row is None:
            continue
        source = resolve(raw["image_uri"], BASE)
        assert row["sku_id"] == raw["sku_id"]
        assert (row["source_uri"], row["image_uri"]) == (source, redact(raw["image_uri"]))
        assert (row["fetch_key"], row["uri_key"]) == (fetch_key(source), uri_key(source))
        assert row["product"] == product_key(raw["sku_id"], row["variant_group"])
        assert json.loads(row["block"]) == raw["block_values"]
        assert json.loads(row["conflict"]) == raw["conflict_values"]
        assert row["order_values"] == raw["order_values"]


def test_no_values_are_no_text_and_null_is_not_its_name():
    assert canonical_json([]) == ""
    assert canonical_json([None]) == "[null]"
    assert canonical_json(["null"]) == '["null"]'
    assert canonical_json(["a,b"]) != canonical_json(["a", "b"])


def test_a_catalog_and_its_rows_on_s3(spark, s3_server):
    header = b"sku_id,image_uri,brand\n"
    s3_server.create_bucket(
        "shop",
        {
            "catalog/1.csv": header + b"00123,images/a.jpg,x\n123,s3://other/b.jpg,x\nbroken\n",
            "catalog/2.csv": header + b"00123,images/c.jpg,\n",
        },
    )
    config = CatalogConfig(path="s3://shop/catalog", block_by=("brand",), canonical_order="brand")
    raw = read_catalog(spark, plan_catalog(config))
    classified = classify_catalog(raw, catalog_base(config))
    rows, rejects = accepted_rows(classified), rejected_rows(classified)
    assert [
        tuple(row)
        for row in rows.orderBy("position")
        .select("catalog_row", "sku_id", "source_uri", "block", "order_values")
        .collect()
    ] == [
        ("1.csv:0", "00123", "s3://shop/catalog/images/a.jpg", '["x"]', ["x"]),
        ("1.csv:1", "123", "s3://other/b.jpg", '["x"]', ["x"]),
    ]
    assert [
        tuple(row)
        for row in rejects.orderBy("position").select("catalog_row", "sku_id", "reason").collect()
    ] == [("1.csv:2", None, "malformed_row"), ("2.csv:0", "00123", "conflicting_row")]


def test_a_large_local_catalog_keeps_every_row_and_its_order(spark, tmp_path):
    n_rows = 25_000
    path = tmp_path / "catalog.csv"
    lines = "".join(f"{n:06},images/{n}.jpg\n" for n in range(n_rows))
    path.write_text("sku_id,image_uri\n" + lines)
    rows = read_catalog(spark, plan_catalog(CatalogConfig(path=str(path)))).collect()
    assert [row.position for row in rows] == list(range(n_rows))
    assert [row.sku_id for row in rows] == [f"{n:06}" for n in range(n_rows)]


def test_a_catalog_that_cannot_be_read_is_an_error_before_any_job(spark, tmp_path):
    with pytest.raises(CatalogError, match="not found"):
        plan_catalog(CatalogConfig(path=str(tmp_path / "no.csv")))
