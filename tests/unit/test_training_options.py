"""Settings added later: old files still read, bfloat16, and training on with lower layers frozen."""
# ruff: noqa: E402 - skipped as a whole where TensorFlow is not installed

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import read_manifest
from model_training import train
from model_training.bundling import load_trained
from model_training.config import ExperimentConfig, NetworkConfig, changed_setting
from model_training.export import draw_golden
from model_training.network import build_network, copy_weights
from model_training.retrain import fine_tune_config
from model_training.starts import load_start, trainings_behind
from model_training.train import CHECKPOINT, Progress, Trainer
from tests.broken_bundles import DEFAULT
from tests.unit.test_model_training import FakeBatches, photos_in_memory

TINY = {"input_px": 32, "width": 0.125, "dim": 16, "attention_stages": [3]}
# The settings of a network and a training before this file was written.
_NEW = {
    "network": ("erasure_kind", "erasure_gamma", "pooling", "gem_p"),
    "loss": ("entropy_weight",),
    "training": ("precision",),
}


def experiment(**network: Any) -> ExperimentConfig:
    training = {"views": 64, "photos_per_batch": 4, "warmup_steps": 1, "learning_rate": 0.01}
    raw = {"network": {**TINY, **network}, "training": training}
    return ExperimentConfig.model_validate(raw)


def forget_new_settings(path: Path) -> None:
    """Make a checkpoint what an older version wrote."""
    with np.load(path, allow_pickle=False) as state:
        arrays = {k: state[k] for k in state.files}
    meta = json.loads(str(arrays["meta"]))
    for section, names in _NEW.items():
        for name in names:
            del meta["config"][section][name]
    np.savez(path, **{**arrays, "meta": np.array(json.dumps(meta))})


def test_an_older_checkpoint_is_resumed_and_read(tmp_path: Path) -> None:
    first = Trainer(experiment(), tmp_path)
    first.progress = Progress(step=3, views=48)
    first.save()
    forget_new_settings(tmp_path / CHECKPOINT)
    again = Trainer(experiment(), tmp_path, resume=True)
    assert again.progress == first.progress
    photos = draw_golden(32)
    assert np.array_equal(again.embed(photos), first.embed(photos))
    trained = load_trained(tmp_path)
    assert trained.config.network.pooling == "avgmax"
    with pytest.raises(ConfigError, match=r"trained with network\.pooling 'avgmax', not 'avg'"):
        Trainer(experiment(pooling="avg"), tmp_path, resume=True)


def test_a_resumed_training_learns_as_it_began_and_may_end_elsewhere() -> None:
    def settings(section: str, **changed: Any) -> ExperimentConfig:
        return ExperimentConfig.model_validate({section: changed})

    begun = ExperimentConfig()
    free = settings("training", views=77, precision="mixed_bfloat16")
    assert changed_setting(begun, begun) is changed_setting(begun, free) is None
    said = changed_setting(begun, settings("loss", temperature=0.07))
    assert said == "loss.temperature 0.05, not 0.07"
    assert changed_setting(begun, settings("training", seed=8)) == "training.seed 7, not 8"


def test_layers_are_frozen_only_at_weights_that_were_learned(tmp_path: Path) -> None:
    frozen = experiment(freeze_until="conv3_block4_out")
    with pytest.raises(ConfigError, match=r"freeze_until is conv3_block4_out .* are random"):
        Trainer(frozen, tmp_path)
    Trainer(experiment(), tmp_path).save()
    assert Trainer(frozen, tmp_path / "second", start=load_start(tmp_path)).model is not None


def test_a_training_knows_those_before_it(tmp_path: Path) -> None:
    first = Trainer(experiment(), tmp_path / "a")
    first.progress = Progress(step=3, views=48, spent_s=2.0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/command.txt").write_text("model-training train --photos p\n")
    first.save()
    earlier = trainings_behind(tmp_path / "a")
    assert earlier[0]["command"] == "model-training train --photos p"
    assert earlier[0]["views"] == 48 and earlier[0]["spent_s"] == 2.0
    start = load_start(tmp_path / "a")
    second = Trainer(experiment(), tmp_path / "b", start=start, earlier=earlier)
    (tmp_path / "b").mkdir()
    second.save()
    assert Trainer(experiment(), tmp_path / "b", resume=True).earlier == earlier
    assert [t["views"] for t in trainings_behind(tmp_path / "b")] == [48, 0]
    assert trainings_behind(DEFAULT)[-1]["views"] == read_manifest(DEFAULT).raw["training"]["views"]


def test_a_start_of_another_pooling_is_refused(tmp_path: Path) -> None:
    Trainer(experiment(), tmp_path).save()
    start = load_start(tmp_path)
    with pytest.raises(ConfigError, match="attention and pooling must be those"):
        Trainer(experiment(pooling="gem"), tmp_path / "second", start=start)


def test_a_champion_older_than_pooling_keeps_what_it_has() -> None:
    manifest = read_manifest(DEFAULT)
    del manifest.raw["training"]["config"]["network"]["pooling"]
    asked = ExperimentConfig.model_validate({"network": {"pooling": "gem"}})
    assert fine_tune_config(manifest, asked).network.pooling == "avgmax"


def test_bfloat16_is_for_the_backbone_only() -> None:
    network = NetworkConfig.model_validate(TINY)
    model = build_network(network, training=True, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"  # as it was
    assert model.get_layer("conv3_block1_1_conv").compute_dtype == "bfloat16"
    for name in ("photo", "scale", "avg_pool", "head_dense", "embedding", "unit"):
        assert model.get_layer(name).output.dtype == "float32"
    assert {w.dtype for w in model.weights} == {"float32"}
    plain = build_network(network, training=False)
    copy_weights(model, plain)
    photos = draw_golden(32).astype(np.float32)
    vectors, exact = np.asarray(model(photos)), np.asarray(plain(photos))
    assert vectors.dtype == np.float32
    assert not np.array_equal(vectors, exact)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.training
def test_a_training_in_bfloat16_averages_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "BatchProcess", FakeBatches)
    config = experiment()
    training = config.training.model_copy(update={"precision": "mixed_bfloat16"})
    config = config.model_copy(update={"training": training})
    trainer = Trainer(config, tmp_path)
    before = [w.numpy() for w in trainer.average.weights]
    train.run_training(trainer, photos_in_memory(8))
    assert trainer.progress.views == 64
    assert {w.dtype for w in trainer.average.weights} == {"float32"}
    assert trainer.average.get_layer("conv3_block1_1_conv").compute_dtype == "float32"
    moved = [not np.array_equal(a, b) for a, b in zip(before, trainer.average.weights, strict=True)]
    assert any(moved)
    assert all(np.isfinite(w.numpy()).all() for w in trainer.model.weights)
    # Precision is no part of the network: the next phase may use another.
    assert Trainer(experiment(), tmp_path, resume=True).progress == trainer.progress


def weights_by_layer(model: Any) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def check_frozen(trainer: Trainer, before: dict[str, list[np.ndarray]], until: str) -> None:
    """What lies up to `until` is the same to the bit, in both networks; every later layer moved."""
    for model in (trainer.model, trainer.average):
        names = [layer.name for layer in model.layers]
        last = names.index(until)
        after = weights_by_layer(model)
        assert any("_bn" in name for name in names[:last])
        for name, weights in after.items():
            same = [a.tobytes() == b.tobytes() for a, b in zip(before[name], weights, strict=True)]
            if names.index(name) <= last:
                assert all(same), f"{name} of {model.name} changed"
            else:
                assert not all(same), f"{name} of {model.name} did not move"


def test_the_second_phase_leaves_frozen_layers_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "BatchProcess", FakeBatches)
    (tmp_path / "backbone").mkdir()
    first = Trainer(experiment(), tmp_path / "backbone")
    rng = np.random.default_rng(0)
    for weight in first.average.weights:  # as if trained, statistics of the norms as well
        weight.assign(weight + rng.uniform(0.1, 0.5, weight.shape))
    first.save()
    start = load_start(tmp_path / "backbone")
    second = Trainer(experiment(freeze_until="conv3_block4_out"), tmp_path / "fine", start=start)
    before = weights_by_layer(start)
    train.run_training(second, photos_in_memory(8))
    check_frozen(second, before, "conv3_block4_out")
    check_frozen_after_reading(tmp_path / "fine", before)


def check_frozen_after_reading(run_dir: Path, before: dict[str, list[np.ndarray]]) -> None:
    read = weights_by_layer(load_trained(run_dir).model)
    for name in ("conv1_conv", "conv3_block4_3_bn"):
        assert all(np.array_equal(a, b) for a, b in zip(before[name], read[name], strict=True))


@pytest.mark.training
def test_layers_frozen_at_published_weights_stay_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "BatchProcess", FakeBatches)
    keras.utils.set_random_seed(0)
    published = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    rng = np.random.default_rng(1)
    for layer in published.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1, w.shape) for w in layer.get_weights()])
    path = tmp_path / "resnet50.weights.h5"
    published.save_weights(path)
    config = experiment(
        width=1.0, attention_stages=[], backbone_weights=str(path), freeze_until="conv3_block4_out"
    )
    trainer = Trainer(config, tmp_path / "run")
    before = weights_by_layer(trainer.model)
    source = published.get_layer("conv3_block4_3_bn").get_weights()
    assert all(
        np.array_equal(a, b) for a, b in zip(before["conv3_block4_3_bn"], source, strict=True)
    )
    train.run_training(trainer, photos_in_memory(8))
    check_frozen(trainer, before, "conv3_block4_out")
