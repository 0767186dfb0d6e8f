"""Batches from processes of their own."""

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from model_training.batches import _SEED_STRIDE, BatchProcess, Sampler
from model_training.config import ExperimentConfig
from tests.unit.test_model_training import TINY, photos_in_memory

CONFIG = ExperimentConfig.model_validate(
    {"network": TINY, "training": {"photos_per_batch": 2, "processes": 2}}
)


def test_each_process_draws_by_a_seed_of_its_own() -> None:
    photos = photos_in_memory(6)
    first = {
        seed: Sampler(photos, CONFIG, seed).draw().views.tobytes() for seed in (1, 1 + _SEED_STRIDE)
    }
    assert len(set(first.values())) == 2
    with BatchProcess(photos, CONFIG, 1) as batches:
        processes = list(batches._processes)
        seen: set[bytes] = set()
        while not set(first.values()) <= seen:
            assert len(seen) < 1_000
            seen.add(batches.draw().views.tobytes())
        batches.set_neighbours(np.zeros((6, 1), np.int32))
    assert not any(process.is_alive() for process in processes)
