"""The two nights are run once for all tests of the package."""

import pytest

from tests.faults.nights import Nights


@pytest.fixture(scope="package")
def nights(spark, tmp_path_factory):
    return Nights(tmp_path_factory.mktemp("nights"))
