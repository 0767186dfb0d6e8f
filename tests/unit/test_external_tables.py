"""The DDL for Trino and BigQuery: parsed in their dialects, every column and type as in the tables."""

import re

import pytest
import sqlglot
from sqlglot import exp

from dedup_job.docs import ROOT, render_bigquery, render_trino
from dedup_job.tables import REPORT_TABLES

# What a parser makes of a type -> the types of tables.py that it can hold without loss.
HOLDS = {
    "trino": {
        "VARCHAR": {"string"},
        "DATE": {"date"},
        "TIMESTAMP": {"timestamp"},
        "BOOLEAN": {"boolean"},
        "INTEGER": {"int"},
        "BIGINT": {"bigint"},
        "REAL": {"float"},
        "DOUBLE": {"double"},
        "ARRAY(VARCHAR)": {"array<string>"},
    },
    "bigquery": {
        "STRING": {"string"},
        "DATE": {"date"},
        "TIMESTAMP": {"timestamp"},
        "BOOL": {"boolean"},
        "INT64": {"int", "bigint"},
        "FLOAT64": {"float", "double"},
        "ARRAY<STRING>": {"array<string>"},
    },
}
_PARTITION = "WITH PARTITION COLUMNS (run_date DATE)\n"


def created(dialect, text):
    """Table name -> its parsed statement."""
    text = re.sub(r"^CALL .*\n", "", text, flags=re.M)
    statements = [s for s in sqlglot.parse(text, dialect=dialect) if isinstance(s, exp.Create)]
    tables = [s for s in statements if s.kind == "TABLE" or "EXTERNAL" in str(s.kind)]
    return {statement.find(exp.Table).name: statement for statement in tables}


def columns(dialect, statement):
    return [
        (column.name, column.kind.sql(dialect=dialect))
        for column in statement.find_all(exp.ColumnDef)
    ]


def agree(dialect, found, table):
    assert [name for name, _ in found] == table.column_names
    for (name, written), column in zip(found, table.columns, strict=True):
        assert column.type in HOLDS[dialect][written], f"{table.name}.{name} as {written}"


def test_trino_has_every_table_as_it_is_declared():
    statements = created("trino", render_trino())
    assert list(statements) == [table.name for table in REPORT_TABLES]
    for table in REPORT_TABLES:
        *found, partition = columns("trino", statements[table.name])
        agree("trino", found, table)
        assert partition == ("run_date", "DATE")
        text = statements[table.name].sql(dialect="trino")
        assert "PARTITIONED_BY=ARRAY['run_date']" in text and "format='PARQUET'" in text
        assert f"external_location='s3://lake/dedup/{table.name}'" in text
    synced = re.findall(r"sync_partition_metadata\('dedup', '(\w+)', 'FULL'\)", render_trino())
    assert synced == list(statements)


def test_bigquery_has_every_table_as_it_is_declared():
    text = render_bigquery()
    assert text.count(_PARTITION) == len(REPORT_TABLES)
    # The parser takes EXTERNAL, but not this clause of it.
    statements = created("bigquery", text.replace(_PARTITION, ""))
    assert list(statements) == [table.name for table in REPORT_TABLES]
    for table in REPORT_TABLES:
        agree("bigquery", columns("bigquery", statements[table.name]), table)
        assert f"hive_partition_uri_prefix = 'gs://lake/dedup/{table.name}'" in text
        assert f"uris = ['gs://lake/dedup/{table.name}/*']" in text


@pytest.mark.parametrize("dialect", HOLDS)
def test_every_query_of_the_page_parses_in_its_dialect(dialect):
    page = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    queries = re.findall(rf"^```sql {dialect}\n(.*?)^```", page, re.M | re.S)
    assert len(queries) == 2
    for query in queries:
        (statement,) = sqlglot.parse(query, dialect=dialect)
        known = {table.name: set(table.column_names) | {"run_date"} for table in REPORT_TABLES}
        names = {table.name for table in statement.find_all(exp.Table)}
        assert names <= known.keys()
        made = {alias.alias for alias in statement.find_all(exp.Alias)}
        used = {column.name for column in statement.find_all(exp.Column)}
        assert used - made <= set.union(*(known[name] for name in names))
