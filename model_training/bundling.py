"""A bundle from a run directory: average weights, batch norms settled, int8, calibrated, described."""

import importlib.metadata
import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import (
    CALIBRATION,
    EMBEDDER,
    GOLDEN,
    KERAS_MODEL,
    SCORE_CALIBRATION,
    VERIFIER,
    Manifest,
    compute_model_id,
    read_manifest,
    renew_manifest,
    sha256_of,
    write_manifest,
)
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.verifier_model import load_verifier
from model_training.batches import Sampler
from model_training.calibrate import calibrate, calibrate_scores, write_calibration
from model_training.card import write_card
from model_training.config import ExperimentConfig, NetworkConfig
from model_training.data import PhotoSet, fingerprint
from model_training.evaluate import (
    ValidationSet,
    build_validation,
    score_by_source,
    score_validation,
)
from model_training.export import (
    MAX_INT8_LOSS_UAP,
    check_int8_loss,
    convert_to_int8,
    run_int8,
    save_keras,
    write_golden,
)
from model_training.network import build_network, raw_model
from model_training.outputs import check_out, put_in_place, staging_of
from model_training.sources import held_out_of
from model_training.train import CHECKPOINT, predict_in_batches
from model_training.verifier_bundle import answer_views

_N_REPRESENTATIVE = 320
_N_SETTLING_BATCHES = 30
_CALIBRATION_SEED = 2


@dataclass(frozen=True)
class TrainedNetwork:
    """The averaged network of a run.

    `progress`: step, views and seconds spent. `earlier`: see `starts.trainings_behind`.
    """

    model: Any
    config: ExperimentConfig
    progress: dict[str, float]
    earlier: list[dict[str, Any]]


def load_trained(run_dir: Path) -> TrainedNetwork:
    """Read the averaged weights of a run's checkpoint.

    Raises:
        ConfigError: no checkpoint in `run_dir`.
    """
    meta = read_meta(run_dir)
    config = ExperimentConfig.model_validate(meta["config"])
    with np.load(run_dir / CHECKPOINT, allow_pickle=False) as state:
        # `backbone_weights` decides the layers and `freeze_until` which norms keep their statistics.
        model = build_network(config.network, training=False)
        for i, variable in enumerate(model.weights):
            variable.assign(state[f"average_{i}"])
    return TrainedNetwork(model, config, meta["progress"], meta.get("earlier", []))


def read_meta(run_dir: Path) -> dict[str, Any]:
    """What a run's checkpoint says of itself: config, progress, earlier (since there is one).

    Raises:
        ConfigError: no checkpoint in `run_dir`.
    """
    path = run_dir / CHECKPOINT
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; `model-training train` writes it")
    with np.load(path, allow_pickle=False) as state:
        meta: dict[str, Any] = json.loads(str(state["meta"]))
    return meta


def settle_batch_norms(trained: TrainedNetwork, photos: PhotoSet) -> None:
    """Replace the moving statistics by means over random batches.

    Training batches are clusters of look-alikes, so their statistics are of no catalog; and the
    averaged weights never saw a batch themselves. Frozen norms keep theirs (Keras
    runs them in inference mode always), as training used them.
    """
    import keras

    norms = [x for x in trained.model.layers if isinstance(x, keras.layers.BatchNormalization)]
    drops = [x for x in trained.model.layers if isinstance(x, keras.layers.Dropout)]
    saved = [norm.momentum for norm in norms], [drop.rate for drop in drops]
    for drop in drops:
        drop.rate = 0.0
    sampler = Sampler(photos, _random_batches(trained.config), seed=11)
    for i in range(_N_SETTLING_BATCHES):
        for norm in norms:
            norm.momentum = i / (i + 1)
        trained.model(sampler.draw().views.astype(np.float32), training=True)
    for norm, momentum in zip(norms, saved[0], strict=True):
        norm.momentum = momentum
    for drop, rate in zip(drops, saved[1], strict=True):
        drop.rate = rate


def export_bundle(
    run_dir: Path,
    training: PhotoSet,
    held_out: PhotoSet,
    out: Path,
    *,
    command: str,
    max_int8_loss: float = MAX_INT8_LOSS_UAP,
    data_note: str = "",
) -> Manifest:
    """Export, calibrate and describe a run; `out` is replaced only by a complete bundle.

    Args:
        run_dir: holds a checkpoint.
        training: training photos (representative set, batch statistics).
        held_out: photos of products that training never saw (quality, calibration).
        out: bundle directory.
        command: how the model was trained, for the model card.
        max_int8_loss: uAP that int8 may cost on the held-out products.
        data_note: origin and licences of the photos, for the model card, in place of the run's own.

    Raises:
        ConfigError: `out` cannot be replaced, see `outputs.check_out`.
        DedupError: int8 costs more than `max_int8_loss` against the float network.
    """
    out = check_out(out)
    trained = load_trained(run_dir)
    if data_note:
        config = trained.config.model_copy(update={"data_note": data_note})
        trained = replace(trained, config=config)
    settle_batch_norms(trained, training)
    staging = staging_of(out)
    embedder = staging / EMBEDDER
    embedder.write_bytes(
        convert_to_int8(raw_model(trained.model), _representative(trained.config, training))
    )
    quality = _measure_quality(trained, embedder, held_out)
    check_int8_loss(quality["float32"]["uap"], quality["int8"]["uap"], max_int8_loss)
    save_keras(trained.model, staging / KERAS_MODEL)
    golden = staging / GOLDEN
    write_golden(golden, embedder, staging / KERAS_MODEL, trained.config.network.input_px)
    write_calibration(staging / CALIBRATION, _calibrate(trained, embedder, held_out))
    facts = _facts(trained, training, held_out, quality, command)
    write_card(staging, facts)
    manifest = _write_manifest(staging, trained.config, facts)
    load_embedder(staging)
    put_in_place(staging, out)
    return manifest


def calibration_set(held_out: PhotoSet, network: NetworkConfig) -> ValidationSet:
    """The views a calibration is measured on: other draws than the validation's."""
    return build_validation(held_out, network, seed=_CALIBRATION_SEED)


def network_of(manifest: Manifest) -> NetworkConfig:
    """How photos are prepared for a bundle, as `build_validation` is told."""
    return NetworkConfig(input_px=manifest.input_px, blur_sigma_px=manifest.blur_sigma_px)


def recalibrate_bundle(bundle: Path, photos: PhotoSet) -> None:
    """Measure a bundle's calibration on the held-out photos, and write its manifest anew.

    That of its verifier's scores as well, if it has one.
    """
    manifest = read_manifest(bundle)
    out = check_out(bundle, "--bundle")
    held_out = held_out_of(photos)
    views = calibration_set(held_out, network_of(manifest))
    vectors = load_embedder(bundle).embed(views.views)
    verifier = load_verifier(bundle)
    measured = {CALIBRATION: calibrate(vectors, views, manifest.model_id)}
    if verifier is not None:
        seen = answer_views(bundle / VERIFIER, vectors, views, manifest.verified_from)
        measured[SCORE_CALIBRATION] = calibrate_scores(
            seen.scores(verifier.rule), seen.cosine, views, manifest.model_id
        )
    # In one step at the end: a job that reads the bundle meanwhile finds the old one whole, or the new one.
    staging = staging_of(out)
    shutil.copytree(bundle, staging, dirs_exist_ok=True)
    for name, content in measured.items():
        write_calibration(staging / name, content)
    renew_manifest(staging, manifest, manifest.facts)
    put_in_place(staging, out)


def _random_batches(config: ExperimentConfig) -> ExperimentConfig:
    training = config.training.model_copy(update={"cluster_size": 1})
    return config.model_copy(update={"training": training})


def _representative(config: ExperimentConfig, photos: PhotoSet) -> Pixels:
    sampler = Sampler(photos, _random_batches(config), seed=12)
    views: list[Pixels] = []
    while sum(len(v) for v in views) < _N_REPRESENTATIVE:
        views.append(sampler.draw().views)
    return np.concatenate(views)[:_N_REPRESENTATIVE]


def _measure_quality(
    trained: TrainedNetwork, embedder: Path, held_out: PhotoSet
) -> dict[str, dict[str, float]]:
    validation = build_validation(held_out, trained.config.network)
    vectors = run_int8(embedder, validation.views)
    unseen = build_validation(held_out, trained.config.network, held_out_kinds=True)
    return {
        "float32": score_validation(
            predict_in_batches(trained.model, validation.views), validation
        ),
        "int8": score_validation(vectors, validation),
        **{f"int8_{name}": s for name, s in score_by_source(vectors, validation).items()},
        "int8_unseen_kinds": score_validation(run_int8(embedder, unseen.views), unseen),
    }


def _calibrate(trained: TrainedNetwork, embedder: Path, held_out: PhotoSet) -> dict[str, Any]:
    network = trained.config.network
    views = calibration_set(held_out, network)
    model_id = compute_model_id(sha256_of(embedder), network.input_px, network.blur_sigma_px)
    return calibrate(run_int8(embedder, views.views), views, model_id)


def _facts(
    trained: TrainedNetwork,
    training: PhotoSet,
    held_out: PhotoSet,
    quality: dict[str, dict[str, float]],
    command: str,
) -> dict[str, Any]:
    packages = (
        "tensorflow",
        "keras",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "ai-edge-litert",
    )
    return {
        "libraries": {name: importlib.metadata.version(name) for name in packages},
        "training": {
            "command": command,
            "config": trained.config.model_dump(mode="json"),
            "config_fingerprint": trained.config.fingerprint(),
            "data_sha256": fingerprint(training.photos),
            "n_photos": len(training),
            "sources": dict(Counter(photo.source for photo in training.photos)),
            "n_held_out_photos": len(held_out),
            **trained.progress,
            "earlier": trained.earlier,
        },
        "quality": quality,
    }


def _write_manifest(directory: Path, config: ExperimentConfig, facts: dict[str, Any]) -> Manifest:
    network = config.network
    return write_manifest(
        directory,
        dim=network.dim,
        input_px=network.input_px,
        blur_sigma_px=network.blur_sigma_px,
        facts=facts,
    )
