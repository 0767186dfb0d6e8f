"""Fixtures that every tier shares. One Spark session serves the whole run: a start costs seconds."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("DEDUP_LOCAL_CORES", "2")


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    from dedup_job.io.session import open_session

    session = open_session("tests")
    session.conf.set("spark.sql.shuffle.partitions", "3")
    yield session
    session.stop()
