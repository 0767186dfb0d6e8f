"""A model was trained on what `prepare` gave then; it must give the same now, or say so."""

from pathlib import Path

import numpy as np
import pytest

from dedup_job.kernels.images import PREPROCESSING_VERSION, prepare
from tests.golden.make_pixels import BLUR_SIGMA_PX, SIZE_PX

PICTURES = {".jpg", ".png", ".webp", ".gif"}
GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.name for path in GOLDEN.iterdir() if path.suffix in PICTURES)


@pytest.mark.parametrize("name", NAMES)
def test_prepared_pixels_are_those_of_this_preprocessing_version(name):
    path = GOLDEN / f"pixels-v{PREPROCESSING_VERSION}.npz"
    assert path.exists(), "write the golden pixels of the new version: tests/golden/make_pixels.py"
    expected = np.load(path)[name].astype(int)
    got = prepare((GOLDEN / name).read_bytes(), SIZE_PX, BLUR_SIGMA_PX).pixels.astype(int)
    # Decoders round differently between builds by a level or two; a changed recipe does not.
    assert np.abs(got - expected).max() <= 3, "raise PREPROCESSING_VERSION: pixels have changed"
    assert np.abs(got - expected).mean() < 0.3


def test_every_kind_of_picture_is_there():
    assert len(NAMES) >= 14
    assert set(NAMES) == set(np.load(GOLDEN / f"pixels-v{PREPROCESSING_VERSION}.npz").files)


@pytest.mark.parametrize("name", NAMES)
def test_golden_pixels_notice_another_recipe(name):
    expected = np.load(GOLDEN / f"pixels-v{PREPROCESSING_VERSION}.npz")[name].astype(int)
    got = prepare((GOLDEN / name).read_bytes(), SIZE_PX, 1.5).pixels.astype(int)
    assert np.abs(got - expected).max() > 3
