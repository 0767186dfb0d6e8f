"""What a snapshot tells about a catalog's size."""

import pytest

from dedup_job.io.snapshot import is_large


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], False),
        ([{"n_bytes": 49_000_000}], False),
        ([{"n_bytes": 30_000_000}, {"n_bytes": 20_000_000}], True),
        ([{"n_files": 499_999, "n_bytes": 10**12}], False),
        ([{"n_files": 500_000, "n_bytes": 10**9}], True),
    ],
    ids=["nothing", "a small file", "two files", "few photos, however heavy", "many photos"],
)
def test_a_large_catalog_is_told_by_its_files(files, expected):
    assert is_large(files) is expected
