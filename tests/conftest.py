"""Fixtures that every tier shares. One Spark session serves the whole run: a start costs seconds."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import S3Server, photo_server, s3_server  # noqa: F401  (fixtures)

os.environ.setdefault("DEDUP_LOCAL_CORES", "2")
# A busy machine is slow, not wrong: no example fails for the time it takes.
settings.register_profile(
    "project", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("project")


@pytest.fixture(scope="session")
def spark(s3_server: S3Server) -> Iterator[object]:  # noqa: F811
    # Workers inherit the environment of the JVM: the S3 API must be known before it starts.
    from dedup_job.io.session import open_session

    session = open_session("tests")
    session.conf.set("spark.sql.shuffle.partitions", "3")
    yield session
    session.stop()
