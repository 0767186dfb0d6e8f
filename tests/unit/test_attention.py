"""Attention, erasure and the network: shapes, switches, and erasure against a loop."""
# ruff: noqa: E402 - skipped as a whole where Keras is not installed

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from dedup_job.errors import ConfigError
from model_training.attention import add_channel_attention, add_spatial_attention
from model_training.config import NetworkConfig
from model_training.erasure import AttentionErasure, cells_above, salient_cells
from model_training.network import build_network, copy_weights, raw_model

TINY = NetworkConfig(input_px=32, width=0.125, dim=16, attention_stages=(2, 3), erasure=True)


def test_channel_attention_scales_whole_channels() -> None:
    inputs = keras.Input((4, 4, 8))
    model = keras.Model(inputs, add_channel_attention(inputs, 2, "a"))
    x = np.random.default_rng(0).uniform(0.5, 1, (2, 4, 4, 8)).astype(np.float32)
    gate = np.asarray(model(x)) / x
    assert np.allclose(gate, gate[:, :1, :1], atol=1e-5)
    assert ((gate > 0) & (gate < 1)).all()


def test_channel_attention_equals_the_paper() -> None:
    inputs = keras.Input((3, 3, 8))
    model = keras.Model(inputs, add_channel_attention(inputs, 2, "a"))
    x = np.random.default_rng(1).normal(size=(1, 3, 3, 8)).astype(np.float32)
    w1, b1 = (w.squeeze() for w in model.get_layer("a_hidden").get_weights())
    w2, b2 = (w.squeeze() for w in model.get_layer("a_out").get_weights())
    mlp = [np.maximum(p @ w1 + b1, 0) @ w2 + b2 for p in (x.mean((1, 2)), x.max((1, 2)))]
    expected = x / (1 + np.exp(-(mlp[0] + mlp[1])))[:, None, None]
    assert np.allclose(np.asarray(model(x)), expected, atol=1e-5)


def test_spatial_attention_scales_whole_cells() -> None:
    inputs = keras.Input((6, 6, 5))
    model = keras.Model(inputs, add_spatial_attention(inputs, "s"))
    x = np.random.default_rng(0).uniform(0.5, 1, (2, 6, 6, 5)).astype(np.float32)
    gate = np.asarray(model(x)) / x
    assert np.allclose(gate, gate[..., :1], atol=1e-5)
    assert np.ptp(gate) > 0


def test_erasure_hides_the_most_salient_cells_in_training_only() -> None:
    x = np.random.default_rng(0).uniform(0.1, 1, (3, 4, 5, 6)).astype(np.float32)
    layer = AttentionErasure(probability=1.0, fraction=0.2)
    assert np.array_equal(np.asarray(layer(x, training=False)), x)
    erased = np.asarray(layer(x, training=True))
    for photo, kept in zip(x, erased, strict=True):
        worst = np.argsort(photo.mean(axis=-1).ravel())[-4:]
        assert set(np.flatnonzero((kept == 0).all(axis=-1).ravel())) == set(worst)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.8, 0.9, 1.0])
def test_threshold_erasure_equals_loops(seed: int, gamma: float) -> None:
    x = np.random.default_rng(seed).gamma(2.0, 1.0, (3, 4, 5, 6)).astype(np.float32)
    expected = np.zeros((3, 4, 5, 1), bool)
    for photo in range(3):
        saliency = [[x[photo, i, j].mean() for j in range(5)] for i in range(4)]
        largest = max(max(row) for row in saliency)
        for i in range(4):
            for j in range(5):
                expected[photo, i, j] = saliency[i][j] > gamma * largest
    assert np.array_equal(np.asarray(cells_above(x, gamma)), expected)
    layer = AttentionErasure(1.0, 0.1, kind="threshold", gamma=gamma)
    assert np.array_equal(np.asarray(layer(x, training=True)), np.where(expected, 0, x))
    assert np.array_equal(np.asarray(layer(x, training=False)), x)


def test_a_photo_without_saliency_is_left_as_it_is() -> None:
    assert not np.asarray(cells_above(np.zeros((2, 3, 3, 4), np.float32), 0.9)).any()


def test_the_erasure_of_the_config_is_the_networks_and_survives_saving() -> None:
    config = TINY.model_copy(update={"erasure_kind": "threshold", "erasure_gamma": 0.7})
    (layer,) = [
        x for x in build_network(config, training=True).layers if isinstance(x, AttentionErasure)
    ]
    again = AttentionErasure.from_config(layer.get_config())
    assert (again.kind, again.gamma) == ("threshold", 0.7)
    # A layer saved before there was a choice
    old = {k: v for k, v in layer.get_config().items() if k not in ("kind", "gamma")}
    assert AttentionErasure.from_config(old).kind == "topk"


def test_erasure_chooses_photos_by_probability() -> None:
    x = np.ones((400, 2, 2, 1), np.float32) * np.array([1.0, 2, 3, 4]).reshape(1, 2, 2, 1)
    erased = np.asarray(AttentionErasure(0.3, 0.25, seed=1)(x, training=True))
    share = (erased == 0).any(axis=(1, 2, 3)).mean()
    assert 0.2 < share < 0.4


def test_every_stage_erases_other_photos() -> None:
    model = build_network(TINY.model_copy(update={"attention_stages": (3, 4)}), training=True)
    stages = [layer for layer in model.layers if isinstance(layer, AttentionErasure)]
    x = np.random.default_rng(0).uniform(0.1, 1, (200, 4, 4, 2)).astype(np.float32)
    chosen = []
    for stage in stages:
        stage.probability = 0.5
        chosen.append((np.asarray(stage(x, training=True)) == 0).any(axis=(1, 2, 3)))
    assert len(chosen) == 2
    assert 0.3 < (chosen[0] != chosen[1]).mean() < 0.7


def test_at_least_one_cell_is_salient() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    assert np.asarray(salient_cells(x, 0.01)).sum() == 2


def test_network_gives_unit_vectors_and_ends_in_them() -> None:
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    model = build_network(TINY, training=False)
    vectors = np.asarray(model(photos))
    raw = np.asarray(raw_model(model)(photos))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), vectors, atol=1e-5)


def test_erasure_does_not_change_what_the_network_computes() -> None:
    training = build_network(TINY, training=True)
    plain = build_network(TINY, training=False)
    copy_weights(training, plain)
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    assert any(isinstance(x, AttentionErasure) for x in training.layers)
    assert not any(isinstance(x, AttentionErasure) for x in plain.layers)
    assert np.allclose(np.asarray(training(photos)), np.asarray(plain(photos)), atol=1e-5)


@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
def test_attention_is_switchable(channel: bool, spatial: bool) -> None:
    config = TINY.model_copy(update={"channel_attention": channel, "spatial_attention": spatial})
    names = [layer.name for layer in build_network(config, training=False).layers]
    assert any("channel" in n for n in names) is channel
    assert any("spatial_conv" in n for n in names) is spatial


def test_freezing_stops_at_the_named_layer() -> None:
    config = TINY.model_copy(update={"freeze_until": "conv3_block4_out"})
    model = build_network(config, training=False)
    assert not model.get_layer("conv3_block4_3_conv").trainable
    assert model.get_layer("conv4_block1_1_conv").trainable
    with pytest.raises(ConfigError, match="no layer 'nowhere'"):
        build_network(TINY.model_copy(update={"freeze_until": "nowhere"}), training=False)
