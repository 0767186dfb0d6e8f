"""The fused batch normalisation trains as Keras' own does."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import keras

from model_training.fused import fuse_batch_norm


def small_network() -> Any:
    photo = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(photo)
    x = keras.layers.BatchNormalization(momentum=0.9, name="bn")(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.BatchNormalization(name="bn_of_vectors")(x)
    return keras.Model(photo, keras.layers.Dense(1, name="answer")(x))


def trained(fused: bool, frozen: bool = False) -> tuple[list[np.ndarray], list[float]]:
    keras.utils.set_random_seed(3)
    model = small_network()
    model.get_layer("bn").trainable = not frozen
    if fused:
        fuse_batch_norm(model)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    rng = np.random.default_rng(5)
    losses = []
    for _ in range(4):
        photos = rng.uniform(0, 2, (64, 8, 8, 3)).astype(np.float32)
        losses.append(float(model.train_on_batch(photos, photos.mean(axis=(1, 2, 3))[:, None])))
    return model.get_weights(), losses


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_moving_statistics_and_losses_are_those_of_keras(frozen: bool) -> None:
    (plain, plain_losses), (fused, fused_losses) = trained(False, frozen), trained(True, frozen)
    np.testing.assert_allclose(fused_losses, plain_losses, rtol=1e-4)
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


def test_inference_is_the_same_and_the_model_is_saved_as_any_other(tmp_path: Any) -> None:
    keras.utils.set_random_seed(1)
    model = small_network()
    photos = np.random.default_rng(2).uniform(0, 1, (5, 8, 8, 3)).astype(np.float32)
    before = model.predict_on_batch(photos)
    fuse_batch_norm(model)
    np.testing.assert_array_equal(model.predict_on_batch(photos), before)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict_on_batch(photos), before, rtol=1e-6)
