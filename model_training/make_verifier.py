"""`model-training verifier`: from photos and a bundle to the same bundle with a pair verifier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dedup_job.kernels.bundle import Manifest, read_manifest
from model_training.bundling import calibration_set, network_of
from model_training.config import ExperimentConfig
from model_training.data import PhotoSet
from model_training.evaluate import build_validation
from model_training.train import find_neighbours
from model_training.verifier_bundle import add_verifier, convert_verifier, embed_originals
from model_training.verifier_training import VerifierTrainer, train_verifier


def make_verifier(
    bundle: Path,
    training: PhotoSet,
    held_out: PhotoSet,
    config: ExperimentConfig,
    run_dir: Path,
    *,
    resume: bool,
    command: str,
    max_int8_loss: float,
    start: Path | None = None,
    finish_at: float | None = None,
    report: Callable[[str], None] = print,
) -> Manifest:
    """Train a verifier for a bundle's embedder and write it into the bundle.

    Args:
        bundle: directory; its embedder says which photos look alike, and how photos are prepared.
        training: photos to learn from.
        held_out: photos of products that neither has seen.
        config: its `verifier` and `training` sections count.
        run_dir: the checkpoint lies here.
        resume: continue from it.
        command: how this was called, for the manifest.
        max_int8_loss: uAP that int8 may cost.
        start: a `verifier.keras` to train on.
        finish_at: end the training by the clock (seconds since the epoch).
        report: receives one line a step.

    Raises:
        ConfigError: no bundle, or a checkpoint of another network.
        DedupError: the loss was not finite, or int8 costs too much.
    """
    config = _as_prepared(config, read_manifest(bundle))
    neighbours = find_neighbours(embed_originals(bundle, training), training)
    trainer = VerifierTrainer(config, run_dir, resume=resume, start=start)
    trained = train_verifier(trainer, training, neighbours, finish_at=finish_at, report=report)
    facts = {
        "command": command,
        "config": {**config.verifier.model_dump(mode="json"), "towers": trainer.towers},
        "pairs": trainer.pairs,
        "steps": trainer.step,
    }
    return write_verifier(
        bundle, trained, training, held_out, config, facts,
        max_int8_loss=max_int8_loss, report=report,
    )  # fmt: skip


def write_verifier(
    bundle: Path,
    network: Any,
    training: PhotoSet,
    held_out: PhotoSet,
    config: ExperimentConfig,
    facts: dict[str, Any],
    *,
    max_int8_loss: float,
    report: Callable[[str], None] = print,
) -> Manifest:
    """Make a trained verifier int8, weigh and calibrate it, and write it into the bundle.

    Args: as of `make_verifier`; `network` is a Keras model in float32, `facts` are those of its training.

    Raises:
        ConfigError: no bundle.
        DedupError: int8 costs too much.
    """
    manifest = read_manifest(bundle)
    neighbours = find_neighbours(embed_originals(bundle, training), training)
    int8 = convert_verifier(network, training, _as_prepared(config, manifest), neighbours)
    return add_verifier(
        bundle,
        network,
        int8,
        build_validation(held_out, network_of(manifest)),
        calibration_set(held_out, network_of(manifest)),
        facts,
        max_int8_loss=max_int8_loss,
        report=report,
    )


def _as_prepared(config: ExperimentConfig, manifest: Manifest) -> ExperimentConfig:
    """Photos are prepared for the verifier as they are for the bundle's embedder."""
    prepared = {"input_px": manifest.input_px, "blur_sigma_px": manifest.blur_sigma_px}
    return config.model_copy(update={"network": config.network.model_copy(update=prepared)})
