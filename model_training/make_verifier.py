"""`model-training verifier`: from photos and a bundle to the same bundle with a pair verifier."""

from collections.abc import Callable
from pathlib import Path

from dedup_job.kernels.bundle import Manifest, read_manifest
from model_training.bundling import calibration_set, network_of
from model_training.config import ExperimentConfig
from model_training.data import PhotoSet
from model_training.evaluate import build_validation
from model_training.starts import verifier_trainings_behind
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
        start: `verifier.keras` of a bundle to train on.
        finish_at: end the training by the clock (seconds since the epoch).
        report: receives one line a step.

    Raises:
        ConfigError: no bundle, or a checkpoint of another network.
        DedupError: the loss was not finite, or int8 costs too much.
    """
    manifest = read_manifest(bundle)
    network = config.network.model_copy(
        update={"input_px": manifest.input_px, "blur_sigma_px": manifest.blur_sigma_px}
    )
    config = config.model_copy(update={"network": network})
    neighbours = find_neighbours(embed_originals(bundle, training), training)
    earlier = verifier_trainings_behind(start.parent) if start else []
    trainer = VerifierTrainer(config, run_dir, resume=resume, start=start, earlier=earlier)
    trained = train_verifier(trainer, training, neighbours, finish_at=finish_at, report=report)
    int8 = convert_verifier(trained, training, config, neighbours)
    facts = {
        "command": command,
        "config": {**config.verifier.model_dump(mode="json"), "channels": trainer.channels},
        "pairs": trainer.pairs,
        "steps": trainer.step,
        "earlier": trainer.earlier,
    }
    return add_verifier(
        bundle,
        trained,
        int8,
        build_validation(held_out, network_of(manifest)),
        calibration_set(held_out, network_of(manifest)),
        facts,
        max_int8_loss=max_int8_loss,
        report=report,
    )
