"""The photos of the benchmark are as many different files as it says."""

import hashlib

import cv2
import numpy as np
import pytest

from benchmarks.photos import write_distinct_photos
from dedup_job.kernels.images import decode


def test_every_file_is_another_one_even_of_plain_photos(tmp_path):
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    for name, grey in (("white.png", 255), ("grey.jpg", 128)):
        cv2.imwrite(str(source / name), np.full((40, 30, 3), grey, np.uint8))
    (source / "broken.jpg").write_bytes(b"<!DOCTYPE html>")
    paths = write_distinct_photos(source, work, 400, (24, 32))
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in paths}) == 400
    for path in paths[::100]:
        assert decode(path.read_bytes()).shape == (32, 24, 3)
    changed = paths[7].stat().st_mtime_ns
    assert write_distinct_photos(source, work, 400, (24, 32)) == paths
    assert paths[7].stat().st_mtime_ns == changed
    assert write_distinct_photos(tmp_path, work, 400, (24, 32)) != paths


def test_a_folder_without_photos_is_told(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match="no photos below"):
        write_distinct_photos(tmp_path, tmp_path / "work", 5)
