"""Pooling against its definition, and through the int8 export."""
# ruff: noqa: E402 - skipped as a whole where TensorFlow is not installed

from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from dedup_job.errors import ConfigError
from dedup_job.kernels.model import LiteRtNetwork, load_keras_model, to_unit_rows
from model_training.config import NetworkConfig
from model_training.export import convert_to_int8, float_operations, save_keras
from model_training.network import build_network, copy_weights, raw_model
from model_training.pooling import GEM_EPSILON, add_gem
from tests.photos_for_training import draw_garment

TINY = {"input_px": 32, "width": 0.125, "dim": 16, "attention_stages": [3]}


def gem_by_loops(x: np.ndarray, p: float) -> np.ndarray:
    out = np.zeros((x.shape[0], x.shape[3]))
    for photo in range(x.shape[0]):
        for channel in range(x.shape[3]):
            cells = [max(float(v), GEM_EPSILON) ** p for v in x[photo, :, :, channel].ravel()]
            out[photo, channel] = (sum(cells) / len(cells)) ** (1 / p)
    return out


@pytest.mark.parametrize("p", [1.0, 2.5, 3.0, 10.0])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_gem_equals_its_definition(p: float, scale: float) -> None:
    inputs = keras.Input((4, 5, 6))
    model = keras.Model(inputs, add_gem(inputs, p))
    x = np.random.default_rng(0).normal(0, scale, (3, 4, 5, 6)).clip(0).astype(np.float32)
    x[0, :, :, 0] = 0  # a channel that is silent
    assert np.allclose(np.asarray(model(x)), gem_by_loops(x, p), rtol=1e-4)


def test_gem_lies_between_average_and_maximum() -> None:
    x = np.random.default_rng(1).uniform(0.1, 1, (2, 4, 4, 3)).astype(np.float32)
    inputs = keras.Input((4, 4, 3))
    gem = [np.asarray(keras.Model(inputs, add_gem(inputs, p))(x)) for p in (1.0, 3.0, 10.0)]
    assert np.allclose(gem[0], x.mean((1, 2)), rtol=1e-4)
    assert (gem[0] < gem[1]).all() and (gem[1] < gem[2]).all()
    assert (gem[2] <= x.max((1, 2))).all()


@pytest.mark.parametrize(("pooling", "n_inputs"), [("avgmax", 2), ("gem", 1), ("avg", 1)])
def test_pooling_decides_what_the_head_sees(pooling: str, n_inputs: int) -> None:
    model = build_network(
        NetworkConfig.model_validate({**TINY, "pooling": pooling}), training=False
    )
    channels = model.get_layer("conv5_block3_out").output.shape[-1]
    assert model.get_layer("head_dense").kernel.shape[0] == n_inputs * channels


@pytest.mark.parametrize("pooling", ["gem", "avg"])
def test_other_poolings_are_int8_throughout_and_load_without_this_package(
    tmp_path: Path, pooling: str
) -> None:
    config = NetworkConfig.model_validate({**TINY, "pooling": pooling})
    model = build_network(config, training=False)
    photos = np.stack([draw_garment(i, (32, 32)) for i in range(20)])
    data = convert_to_int8(raw_model(model), photos)
    assert not float_operations(data)
    save_keras(model, tmp_path / "model.keras")
    loaded = load_keras_model(tmp_path / "model.keras")
    vectors, again = (np.asarray(m(photos.astype(np.float32))) for m in (model, loaded))
    assert (to_unit_rows(again) * vectors).sum(axis=1).min() > 0.999


def test_gem_in_int8_is_close_for_channels_of_any_size(tmp_path: Path) -> None:
    """In 8 bits x^3 would lose the weak channels; the ratio to each channel's maximum does not."""
    keras.utils.set_random_seed(0)
    photo = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(photo)
    x = keras.layers.Conv2D(32, 3, 4, activation="relu", name="conv")(x)
    model = keras.Model(photo, add_gem(x, 3.0))
    kernel, bias = model.get_layer("conv").get_weights()
    size = np.geomspace(0.1, 1, 32)  # the weakest channel has a tenth of the strongest's values
    model.get_layer("conv").set_weights([kernel * size, bias])
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    (tmp_path / "gem.tflite").write_bytes(convert_to_int8(model, photos))
    expected = np.asarray(model(photos.astype(np.float32)))
    got = LiteRtNetwork(tmp_path / "gem.tflite", n_threads=1)(photos)
    error = np.abs(got - expected).mean(axis=0) / expected.mean(axis=0)
    assert error.max() < 0.06 and error.mean() < 0.03, error


def test_weights_of_another_pooling_do_not_fit() -> None:
    gem = build_network(NetworkConfig.model_validate({**TINY, "pooling": "gem"}), training=False)
    with pytest.raises((ValueError, ConfigError)):
        copy_weights(build_network(NetworkConfig.model_validate(TINY), training=False), gem)
