"""Verifiers that were trained apart, joined: the sum of their answers, the mean of their weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from dedup_job.errors import ConfigError
from dedup_job.kernels.verifier import PAIR_CHANNELS
from model_training.export import save_keras
from model_training.join_verifiers import join_verifiers
from model_training.verifier_network import VOTES_PER_TOWER, build_verifier, towers_of

_SIZE = 32
_SMALL, _LARGE = (4, 4, 4, 4), (4, 4, 8, 8)


def saved(path: Path, towers: Any, seed: int) -> Path:
    network = build_verifier(_SIZE, towers)
    rng = np.random.default_rng(seed)
    network.set_weights([np.abs(rng.normal(0.5, 0.1, w.shape)) for w in network.get_weights()])
    save_keras(network, path)
    return path


def frames() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, _SIZE, _SIZE, PAIR_CHANNELS)).astype(np.float32)


def votes_of(network: Any) -> np.ndarray:
    return np.asarray(network.predict_on_batch(frames()))


def test_every_tower_answers_as_it_did_alone(tmp_path: Path) -> None:
    files = [
        saved(tmp_path / "a.keras", [_SMALL], 1),
        saved(tmp_path / "b.keras", [_LARGE, _SMALL], 2),
    ]
    joined = join_verifiers([[file] for file in files], _SIZE)
    assert towers_of(joined) == (_SMALL, _LARGE, _SMALL)
    alone = [votes_of(join_verifiers([[file]], _SIZE)) for file in files]
    assert alone[0].shape == (3, VOTES_PER_TOWER)
    np.testing.assert_allclose(votes_of(joined), np.hstack(alone), rtol=1e-5)


def test_a_group_becomes_the_mean_of_its_weights(tmp_path: Path) -> None:
    files = [saved(tmp_path / f"{i}.keras", [_SMALL], i) for i in range(2)]
    mean = join_verifiers([files], _SIZE)
    first, second = (join_verifiers([[file]], _SIZE).get_weights() for file in files)
    for got, a, b in zip(mean.get_weights(), first, second, strict=True):
        np.testing.assert_allclose(got, (a + b) / 2, rtol=1e-6)
    assert towers_of(mean) == (_SMALL,)


def test_a_mean_of_other_shapes_is_refused(tmp_path: Path) -> None:
    files = [saved(tmp_path / "a.keras", [_SMALL], 1), saved(tmp_path / "b.keras", [_LARGE], 2)]
    with pytest.raises(ConfigError, match="mean is of networks of one shape"):
        join_verifiers([files], _SIZE)
