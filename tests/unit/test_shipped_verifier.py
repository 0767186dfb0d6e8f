"""The pair verifier where a Spark worker loads it."""

import cv2
import pytest

from dedup_job.io import bundles
from dedup_job.io.bundles import ShippedBundle, load_shipped_verifier


@pytest.fixture
def opencv_threads():
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_opencv_has_no_more_threads_than_the_task(monkeypatch, tmp_path, opencv_threads, n_threads):
    monkeypatch.setattr(bundles, "_shipped_directory", lambda bundle: tmp_path)
    # What the verifier tries as it is loaded is to keep to them already.
    monkeypatch.setattr(bundles, "load_verifier", lambda *_: cv2.getNumThreads())
    cv2.setNumThreads(8)
    bundle = ShippedBundle(f"of-{n_threads}-threads", "litert")
    assert load_shipped_verifier(bundle, n_threads) == n_threads
