"""Trained networks to go on from: a bundle's, or a run's averaged weights."""

from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import KERAS_MODEL, VERIFIER_KERAS, read_manifest
from dedup_job.kernels.model import load_keras_model
from model_training.bundling import load_trained, read_meta
from model_training.config import ExperimentConfig
from model_training.outputs import read_command
from model_training.train import CHECKPOINT

_OF_A_TRAINING = ("command", "config_fingerprint", "views", "step", "spent_s")


def load_start(path: Path) -> Any:
    """The Keras model of a bundle, or that of a run directory with a checkpoint.

    Raises:
        ConfigError: `path` is neither, or the bundle holds no Keras model.
        ModelContractError: the bundle is damaged.
    """
    if (path / CHECKPOINT).is_file():
        return load_trained(path).model
    if not path.is_dir():
        raise ConfigError(f"--init-from {path} is neither a bundle nor a run directory")
    if KERAS_MODEL not in read_manifest(path).files:
        raise ConfigError(f"--init-from {path}: the bundle has no {KERAS_MODEL} to train on")
    return load_keras_model(path / KERAS_MODEL)


def trainings_behind(path: Path) -> list[dict[str, Any]]:
    """The trainings that made the weights of a bundle or run, oldest first, for a card that tells all of them.

    Args:
        path: as of `load_start`.

    Returns:
        Of each: command, config_fingerprint, views, step, spent_s.
    """
    if (path / CHECKPOINT).is_file():
        meta = read_meta(path)
        last = {
            "command": read_command(path),
            "config_fingerprint": ExperimentConfig.model_validate(meta["config"]).fingerprint(),
            **meta["progress"],
        }
        return [*meta.get("earlier", []), last]
    training = read_manifest(path).raw["training"]
    return [*training.get("earlier", []), {name: training.get(name) for name in _OF_A_TRAINING}]


def verifier_trainings_behind(bundle: Path) -> list[dict[str, Any]]:
    """The same of a bundle's verifier; of each: command, pairs, steps."""
    facts = read_manifest(bundle).raw["verifier"]
    return [
        *facts.get("earlier", []),
        {name: facts[name] for name in ("command", "pairs", "steps")},
    ]


def find_verifier(named_by: str, bundle: Path) -> Path:
    """The Keras file of a bundle's verifier.

    Args:
        named_by: what named the bundle, for messages.
        bundle: directory.

    Raises:
        ConfigError: no bundle, or it has no verifier to train on.
        ModelContractError: the bundle is damaged.
    """
    if not bundle.is_dir():
        raise ConfigError(f"{named_by} {bundle} is no bundle")
    manifest = read_manifest(bundle)
    if VERIFIER_KERAS not in manifest.files or not (bundle / VERIFIER_KERAS).is_file():
        raise ConfigError(
            f"{named_by} {bundle} has no {VERIFIER_KERAS} to train on; give a whole bundle, or train a "
            "verifier with `model-training verifier`"
        )
    return bundle / VERIFIER_KERAS
