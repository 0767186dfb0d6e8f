"""Every query of docs/sql.md, run on what the job wrote, answers what the job knows."""

import csv
import re
from itertools import groupby
from pathlib import Path

import duckdb
import pytest
import sqlglot

from dedup_job.commands.views import view_statements
from dedup_job.io.manifests import read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.tables import REPORT_TABLES
from tests.e2e.jobs import read_report, run_job, write_csv
from tests.photos import draw_photo, encode

pytestmark = pytest.mark.spark
PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
# SKU -> its photo, night by night. Photo 4 is photo 3 saved anew; 8 is missing, 9 no photo.
NIGHTS = [
    {
        "SKU-1": 1,
        "SKU-2": 1,
        "SKU-3": 1,
        "SKU-4": 2,
        "SKU-5": 2,
        "SKU-6": 3,
        "SKU-7": 4,
        "SKU-8": 8,
    },
    {"SKU-1": 1, "SKU-2": 1, "SKU-3": 8, "SKU-4": 2, "SKU-5": 2, "SKU-6": 3, "SKU-7": 4, "SKU-8": 8}
    | {"SKU-9": 9, "SKU-10": 2, "SKU-11": 8},
]
DECISIONS = [
    ("SKU-1", "SKU-2", "same"),
    ("SKU-4", "SKU-5", "different"),
    ("SKU-1", "SKU-6", "same"),
    ("SKU-2", "SKU-6", "different"),  # what the first and the third say together
]


def queries(engine):
    """Name -> query; those without a name, which set something, come first."""
    blocks = re.findall(rf"^```sql {engine} ?(\w*)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return {name or f"({number})": text for number, (name, text) in enumerate(blocks)}


NAMES = [name for name in queries("duckdb") if name.isalpha()]


@pytest.fixture(scope="module")
def warehouse(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sql")
    for number in (1, 2, 3):
        (folder / f"{number}.png").write_bytes(encode(draw_photo(number, 64, 80), ".png"))
    (folder / "4.png").write_bytes(encode(draw_photo(3, 64, 80), quality=60))
    (folder / "9.png").write_text("no photo")
    with (folder / "decisions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("sku_id_a", "sku_id_b", "decision"), *DECISIONS])
    for number, skus in enumerate(NIGHTS):
        rows = [{"sku_id": sku, "image_uri": f"{photo}.png"} for sku, photo in skus.items()]
        said = {"decisions": str(folder / "decisions.csv")} if number else {}
        run_job(
            write_csv(folder / "catalog.csv", rows),
            folder / "warehouse",
            run_date=f"2026-01-0{number + 1}",
            match__min_cosine=0.9,
            candidates__search="exact",
            **said,
        )
    return str(folder / "warehouse")


@pytest.fixture(scope="module")
def answers(spark, warehouse):
    """engine -> name -> rows, each query as it stands in the page."""
    connection = duckdb.connect()
    for statement in view_statements(warehouse, "duckdb"):
        connection.execute(statement)
    for statement in view_statements(warehouse, "spark"):
        spark.sql(statement)

    def by_duckdb(text):
        return connection.execute(text.replace("'warehouse/", f"'{warehouse}/")).fetchall()

    def by_spark(text):
        text = text.replace("`warehouse/", f"`{warehouse}/").strip().rstrip(";")
        return [tuple(row) for row in spark.sql(text).collect()]

    engines = {"duckdb": by_duckdb, "spark": by_spark}
    return {
        engine: {name: plain(ask(text)) for name, text in queries(engine).items()}
        for engine, ask in engines.items()
    }


def plain(rows):
    return [tuple(round(v, 4) if isinstance(v, float) else v for v in row) for row in rows]


def expected(warehouse):
    """Name -> rows, from the tables that the manifest names, without SQL."""
    groups, pairs, changes, rejects, judged, metrics = (
        read_report(warehouse, name)
        for name in (
            "duplicate_groups",
            "duplicate_pairs",
            "group_changes",
            "rejected_images",
            "pair_decisions",
            "run_metrics",
        )
    )
    (run,) = read_report(warehouse, "runs")
    groups.sort(key=lambda r: (-r["group_size"], r["group_id"]))
    reasons = groupby(sorted(rejects, key=lambda r: r["reason"]), lambda r: r["reason"])
    by_reason = {reason: list(rows) for reason, rows in reasons}
    figures = {row["metric"]: row["value"] for row in metrics}
    return {
        "groups": [
            (group_id, rows[0]["canonical_sku_id"], len(rows), duplicates(rows))
            for group_id, rows in (
                (g, list(r)) for g, r in groupby(groups, lambda r: r["group_id"])
            )
        ],
        "changes": sorted(
            (r["change"], r["group_id"], r["added_sku_ids"], r["removed_sku_ids"]) for r in changes
        ),
        "uncertain": [
            (
                r["sku_id_a"],
                r["sku_id_b"],
                r["match_probability"],
                r["score"] - run["min_score"],
            )
            for r in sorted(pairs, key=lambda r: (r["match_probability"], r["sku_id_a"]))
            if r["decision"] is None
        ],
        "rejects": [
            (reason, len(rows), min(r["sku_id"] for r in rows), min(r["detail"] for r in rows))
            for reason, rows in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
        ],
        "precision": tuple(
            figures[name]
            for name in (
                "reviewed_groups",
                "reviewed_precision",
                "reviewed_precision_low",
                "reviewed_precision_high",
            )
        ),
        "decisions": [
            (r["outcome"], r["decision_row"], r["sku_id_a"], r["sku_id_b"], r["decision"])
            for r in judged
            if r["outcome"] == "contradicted"
        ],
    }


def duplicates(rows):
    others = [r for r in rows if not r["is_canonical"]]
    return [
        r["sku_id"] for r in sorted(others, key=lambda r: (-r["cosine_to_canonical"], r["sku_id"]))
    ]


def test_both_engines_answer_the_same_questions(answers):
    assert len(NAMES) == 7
    assert [name for name in queries("spark") if name.isalpha()] == NAMES
    for name in NAMES:
        assert answers["duckdb"][name] == answers["spark"][name] != [], name


@pytest.mark.parametrize("name", ["groups", "changes", "uncertain", "rejects"])
def test_the_answer_is_what_the_job_knows(answers, warehouse, name):
    assert answers["duckdb"][name] == plain(expected(warehouse)[name])


def test_the_history_of_a_sku_has_nights_without_a_group(answers):
    tonight, before = answers["duckdb"]["history"]
    assert [str(tonight[0]), str(before[0])] == ["2026-01-02", "2026-01-01"]
    assert tonight[1:] == (None,) * 5
    assert before[3:5] == (3, "exact") and before[2] in NIGHTS[0]


def test_reviews_and_decisions_are_those_of_the_last_run(answers, warehouse):
    found = expected(warehouse)
    tonight, before = answers["duckdb"]["precision"]
    assert tonight[1:] == plain([found["precision"]])[0] and tonight[1] > 0
    assert before[1:] == (0.0, None, None, None)
    rows = answers["duckdb"]["decisions"]
    assert [row[:5] for row in rows] == found["decisions"] and len(rows) == 1


@pytest.mark.parametrize(("engine", "schema"), [("trino", "hive.dedup"), ("bigquery", "dedup")])
def test_queries_over_external_tables_hold_in_translation(warehouse, engine, schema):
    connection = duckdb.connect()
    if engine == "trino":
        connection.execute("ATTACH ':memory:' AS hive")
    connection.execute(f"CREATE SCHEMA {schema}")
    for table in REPORT_TABLES:
        connection.execute(
            f"CREATE VIEW {schema}.{table.name} AS SELECT * FROM read_parquet("
            f"'{warehouse}/{table.name}/*/*.parquet', hive_partitioning = true)"
        )
    newest, whole = queries(engine).values()
    (newest,) = sqlglot.transpile(newest, read=engine, write="duckdb")
    rows = connection.execute(newest).fetchall()
    groups = expected(warehouse)["groups"]
    assert [(g, keep, n, set(m)) for g, keep, n, m in rows] == [
        (g, keep, n, {keep, *others}) for g, keep, n, others in groups
    ]
    (whole,) = sqlglot.transpile(whole, read=engine, write="duckdb")
    assert connection.execute(whole).fetchall() == []
    connection.execute(
        f"CREATE OR REPLACE VIEW {schema}.duplicate_groups AS SELECT * FROM "
        f"read_parquet('{warehouse}/duplicate_groups/*/*.parquet') WHERE sku_id <> 'SKU-1'"
    )
    assert len(connection.execute(whole).fetchall()) == 2


def test_the_pointer_names_a_folder_of_whole_tables(warehouse):
    manifest = read_manifest(open_warehouse(warehouse))
    for table in REPORT_TABLES:
        assert manifest.tables[table.name]["folder"] == f"_runs/{manifest.run_id}/{table.name}"
