"""Schedule, export, published weights, and one whole training as a user runs it."""
# ruff: noqa: E402 - skipped as a whole where TensorFlow is not installed

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from dedup_job.errors import ConfigError
from dedup_job.kernels.model import load_embedder
from model_training import train
from model_training.backbone import load_backbone
from model_training.batches import Batch, Sampler
from model_training.bundling import export_bundle, load_trained, settle_batch_norms
from model_training.cli import main
from model_training.config import ExperimentConfig, NetworkConfig, TrainingConfig
from model_training.data import Photo, PhotoSet
from model_training.export import draw_golden, save_keras
from model_training.network import build_network
from model_training.starts import load_start
from model_training.train import Progress, Trainer, learning_rate, measure_progress
from tests.photos_for_training import draw_garment, write_pairs

TINY = {"input_px": 32, "width": 0.125, "dim": 16, "attention_stages": [3]}


def test_the_rate_warms_up_and_falls() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=10)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 50, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 50, 0.5) == pytest.approx(0.505)
    assert learning_rate(config, 50, 1.0) == pytest.approx(0.01)


def test_progress_by_views_and_by_the_clock() -> None:
    half = Progress(step=5, views=500, spent_s=30.0)
    assert measure_progress(half, 1000, None, now=0.0) == 0.5
    assert measure_progress(half, 1000, finish_at=190.0, now=100.0) == pytest.approx(30 / 120)
    # After a pause of 60 s less time is left, and what was spent has not grown.
    assert measure_progress(half, 1000, finish_at=190.0, now=160.0) == pytest.approx(0.5)
    assert measure_progress(half, 1000, finish_at=190.0, now=191.0) == 1.0


def test_a_pause_counts_as_one_slow_step(tmp_path: Path) -> None:
    trainer = Trainer(ExperimentConfig.model_validate({"network": TINY}), tmp_path)
    trainer.add_time(3600.0)
    assert trainer.progress.spent_s <= 15.0


def test_resume_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Trainer(ExperimentConfig.model_validate({"network": TINY}), tmp_path, resume=True)


def test_a_new_schedule_starts_from_the_averaged_weights_of_another_run(tmp_path: Path) -> None:
    config = ExperimentConfig.model_validate({"network": {**TINY, "erasure": True}})
    first = Trainer(config, tmp_path)
    first.average.weights[0].assign(first.average.weights[0] + 1.0)
    first.progress = Progress(step=50, views=100)
    first.save()
    other = {**TINY, "erasure": False}
    start = load_start(tmp_path)
    second = Trainer(ExperimentConfig.model_validate({"network": other}), tmp_path, start=start)
    assert second.progress.step == 0
    photos = draw_golden(32)
    assert np.allclose(second.embed(photos), first.embed(photos), atol=1e-6)
    assert np.array_equal(second.model.weights[0].numpy(), first.average.weights[0].numpy())
    third = ExperimentConfig.model_validate({"network": {**TINY, "dim": 9}})
    with pytest.raises(ConfigError, match="start from is another one"):
        Trainer(third, tmp_path, start=start)
    with pytest.raises(ConfigError, match="neither a bundle nor a run directory"):
        load_start(tmp_path / "none")


class FakeBatches:
    """Batches in this process; counts the neighbours it is sent."""

    def __init__(self, photos: PhotoSet, config: ExperimentConfig, seed: int) -> None:
        self._sampler = Sampler(photos, config, seed)
        self.events: list[str] = []

    def __enter__(self) -> "FakeBatches":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def draw(self) -> Batch:
        self.events.append("batch")
        return self._sampler.draw()

    def set_neighbours(self, neighbours: np.ndarray) -> None:
        self.events.append("neighbours")


@pytest.mark.parametrize(
    ("step", "expected"), [(0, ["batch"] * 3), (12, ["neighbours"] + ["batch"] * 3)]
)
def test_a_resumed_training_mines_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, expected: list[str]
) -> None:
    settings = {"views": 48, "photos_per_batch": 4, "mine_after_steps": 10}
    config = ExperimentConfig.model_validate({"network": TINY, "training": settings})
    trainer = Trainer(config, tmp_path)
    trainer.progress = Progress(step=step)
    made: list[FakeBatches] = []

    def make(*arguments: Any) -> FakeBatches:
        made.append(FakeBatches(*arguments))
        return made[0]

    monkeypatch.setattr(train, "BatchProcess", make)
    train.run_training(trainer, photos_in_memory(8))
    assert made[0].events == expected


def test_a_run_from_published_weights_is_read_back_with_its_frozen_norms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "load_backbone", lambda model, config: 0)
    network = {**TINY, "backbone_weights": "imagenet", "freeze_until": "conv3_block4_out"}
    raw = {"network": network, "training": {"photos_per_batch": 4}}
    trainer = Trainer(ExperimentConfig.model_validate(raw), tmp_path)
    frozen = trainer.average.get_layer("conv3_block2_1_bn").moving_mean
    frozen.assign(np.full(frozen.shape, 0.25))
    trainer.save()
    trained = load_trained(tmp_path)
    photos = draw_golden(32)
    assert np.allclose(
        train.predict_in_batches(trained.model, photos), trainer.embed(photos), atol=1e-5
    )
    free = trained.model.get_layer("conv4_block2_1_bn").moving_mean.numpy()
    settle_batch_norms(trained, photos_in_memory(8))
    settled = trained.model.get_layer("conv3_block2_1_bn").moving_mean.numpy()
    assert np.array_equal(settled, np.full(settled.shape, 0.25, np.float32))
    assert not np.allclose(trained.model.get_layer("conv4_block2_1_bn").moving_mean.numpy(), free)


@pytest.mark.training
def test_a_run_from_published_weights_becomes_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "load_backbone", lambda model, config: 0)
    network = {**TINY, "backbone_weights": "imagenet", "freeze_until": "conv3_block4_out"}
    raw = {"network": network, "training": {"photos_per_batch": 4}}
    Trainer(ExperimentConfig.model_validate(raw), tmp_path).save()
    photos = photos_in_memory(12)
    for i, photo in enumerate(photos.photos):
        photos.photos[i] = replace(photo, path=tmp_path / photo.path)
        cv2.imwrite(str(tmp_path / photo.path), photos.pixels[i][:, :, ::-1])
    manifest = export_bundle(
        tmp_path, photos, photos, tmp_path / "bundle", command="x", max_int8_loss=1.0,
        data_note="Photos of our own studio.",
    )  # fmt: skip
    assert manifest.raw["training"]["sources"] == {"folder": 12}
    vectors = load_embedder(tmp_path / "bundle").embed(draw_golden(32))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "starting from ResNet50 weights (imagenet)" in card
    assert "Photos of our own studio." in card


def photos_in_memory(n: int) -> PhotoSet:
    photos = [Photo(Path(f"{i}.jpg"), "folder", f"{i}", f"{i}", f"{i}", False) for i in range(n)]
    pixels = [draw_garment(i, (64, 48)) for i in range(n)]
    masks = [np.full((64, 48), 255, np.uint8) for _ in range(n)]
    return PhotoSet(photos, pixels, masks, np.ones(n, bool))


def test_golden_pictures_are_the_same_everywhere() -> None:
    first, second = draw_golden(64), draw_golden(64)
    assert first.shape == (12, 64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert len({p.tobytes() for p in first}) == 12


def test_half_precision_weights_load_without_this_package(tmp_path: Path) -> None:
    model = build_network(NetworkConfig.model_validate(TINY), training=False)
    save_keras(model, tmp_path / "model.keras")
    code = (
        "import sys, keras, numpy as np\n"
        "m = keras.models.load_model(sys.argv[1], compile=False, safe_mode=True)\n"
        "assert 'model_training' not in sys.modules\n"
        "np.save(sys.argv[2], np.asarray(m(np.load(sys.argv[3]))))\n"
    )
    photos = draw_golden(32).astype(np.float32)
    np.save(tmp_path / "in.npy", photos)
    arguments = [str(tmp_path / n) for n in ("model.keras", "out.npy", "in.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path)
    cosine = (np.load(tmp_path / "out.npy") * np.asarray(model(photos))).sum(axis=1)
    assert cosine.min() > 0.9999
    assert (tmp_path / "model.keras").stat().st_size < 2.4 * model.count_params() + 200_000


@pytest.mark.training
@pytest.mark.parametrize("top", [False, True])
def test_published_weights_compute_what_keras_applications_computes(
    tmp_path: Path, top: bool
) -> None:
    keras.utils.set_random_seed(0)
    published = keras.applications.ResNet50(
        include_top=top, weights=None, input_shape=None if top else (64, 64, 3)
    )
    for layer in published.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            rng = np.random.default_rng(1)
            layer.set_weights([rng.uniform(0.5, 1, w.shape) for w in layer.get_weights()])
    path = tmp_path / "resnet50.weights.h5"
    published.save_weights(path)
    config = NetworkConfig(input_px=64, width=1.0, attention_stages=(), backbone_weights=str(path),
                           freeze_until="conv3_block4_out")  # fmt: skip
    model = build_network(config, training=False)
    assert load_backbone(model, config) == 106
    assert not model.get_layer("conv3_block4_3_conv").trainable
    assert model.get_layer("conv4_block1_1_conv").trainable
    photo = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    ours = keras.Model(model.input, model.get_layer("conv3_block4_out").output)(photo)
    body = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    for layer in body.layers:
        layer.set_weights(published.get_layer(layer.name).get_weights() if layer.weights else [])
    theirs = keras.Model(body.input, body.get_layer("conv3_block4_out").output)
    expected = np.asarray(theirs(keras.applications.resnet.preprocess_input(photo.copy())))
    assert np.allclose(np.asarray(ours), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_unusable_weights_are_explained(tmp_path: Path) -> None:
    narrow = NetworkConfig(backbone_weights="x.h5", width=0.5)
    with pytest.raises(ConfigError, match="fit width 1 only"):
        load_backbone(None, narrow)
    with pytest.raises(ConfigError, match="no such file"):
        load_backbone(None, narrow.model_copy(update={"width": 1.0}))


def test_user_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no training data" in error


@pytest.mark.training
@pytest.mark.slow
def test_pairs_become_a_bundle_even_after_a_kill(tmp_path: Path) -> None:
    config = {
        "network": TINY,
        "training": {"views": 800, "photos_per_batch": 4, "mine_after_steps": 10,
                     "mine_every_steps": 20, "checkpoint_every_s": 0.2, "warmup_steps": 5},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(json.dumps(config))
    bundle, run_dir = tmp_path / "bundle", tmp_path / "bundle.run"
    command = [
        sys.executable, "-m", "model_training", "train", *write_pairs(tmp_path),
        "--out", str(bundle), "--config", str(tmp_path / "tiny.yaml"),
        "--cache-dir", str(tmp_path / "cache"), "--max-int8-loss", "1",
    ]  # fmt: skip
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoint.npz").is_file() and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not bundle.exists()
    with np.load(run_dir / "checkpoint.npz") as state:
        views_before = json.loads(str(state["meta"]))["progress"]["views"]
    assert 0 < views_before < 800
    subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
    embedder = load_embedder(bundle)
    pictures = draw_golden(32)
    assert embedder.embed(pictures).shape == (len(pictures), 16)
    assert embedder.manifest.raw["training"]["views"] == 800
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "from scratch: no pretrained weights" in card
    assert "photos of labelled pairs: similar ones attract" in card
    assert "State here where the photos come from and under which licences." in card
