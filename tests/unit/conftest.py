"""Fixtures of the tests without Spark."""

import uuid

import pytest

from dedup_job.io.storage import Folder


@pytest.fixture(params=["local", "s3"])
def warehouse(request, tmp_path):
    """An empty warehouse on this machine, and one behind a real S3 API."""
    if request.param == "local":
        return Folder(str(tmp_path / "warehouse"))
    request.getfixturevalue("s3_server").create_bucket("warehouses")
    return Folder(f"s3://warehouses/{uuid.uuid4().hex}")
