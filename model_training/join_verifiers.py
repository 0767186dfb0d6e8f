"""`model-training join`: verifiers that were trained apart become the towers of one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import Manifest, read_manifest
from dedup_job.kernels.model import load_keras_model
from model_training.config import ExperimentConfig
from model_training.data import PhotoSet
from model_training.make_verifier import write_verifier
from model_training.starts import find_verifier
from model_training.verifier_network import build_verifier, towers_of


def join_into_bundle(
    bundle: Path,
    groups: Sequence[Sequence[Path]],
    training: PhotoSet,
    held_out: PhotoSet,
    config: ExperimentConfig,
    *,
    command: str,
    max_int8_loss: float,
    report: Callable[[str], None] = print,
) -> Manifest:
    """Join verifiers and write the result into a bundle, weighed and calibrated anew.

    Args:
        bundle: directory; its embedder says which photos look alike.
        groups: bundles with a verifier; see `join_verifiers`.
        training: photos to make the int8 network with.
        held_out: photos of products that no tower has seen.
        config: its `training` section counts.
        command: how this was called, for the manifest.
        max_int8_loss: uAP that int8 may cost.
        report: receives one line a step.

    Raises:
        ConfigError: no bundle, one without a verifier, or networks that cannot be joined.
        DedupError: int8 costs too much.
    """
    files = [[find_verifier("--towers", one) for one in group] for group in groups]
    network = join_verifiers(files, read_manifest(bundle).input_px)
    trained = [read_manifest(one).raw["verifier"] for group in groups for one in group]
    facts = {
        "command": "\n".join([*(one["command"] for one in trained), command]),
        "config": {"towers": towers_of(network)},
        "pairs": sum(one["pairs"] for one in trained),
        "steps": sum(one["steps"] for one in trained),
    }
    return write_verifier(
        bundle, network, training, held_out, config, facts,
        max_int8_loss=max_int8_loss, report=report,
    )  # fmt: skip


def join_verifiers(groups: Sequence[Sequence[Path]], size_px: int) -> Any:
    """One network of all groups' towers, side by side.

    The networks of a group become one by the mean of their weights: trainings that went on from one another
    lie in one valley, and its middle generalises best (model soups, Wortsman et al. 2022).

    Args:
        groups: of each, the `verifier.keras` files.
        size_px: side of the photos.

    Raises:
        ConfigError: a file is no verifier of this package, or the networks of a group differ in shape.
        ModelContractError: a file is damaged.
    """
    averaged = [_mean_network(group, size_px) for group in groups]
    joined = build_verifier(size_px, [tower for one in averaged for tower in towers_of(one)])
    n_before = 0
    for network in averaged:
        for layer in network.layers:
            if layer.weights:
                tower, _, rest = layer.name.removeprefix("tower").partition("_")
                target = joined.get_layer(f"tower{n_before + int(tower)}_{rest}")
                target.set_weights(layer.get_weights())
        n_before += len(towers_of(network))
    return joined


def _mean_network(files: Sequence[Path], size_px: int) -> Any:
    networks = [load_keras_model(path) for path in files]
    towers = [towers_of(network) for network in networks]
    for path, found in zip(files, towers, strict=True):
        if not found or found != towers[0]:
            raise ConfigError(
                f"--towers: {path} has towers {found} and {files[0]} {towers[0]}; the mean is of networks "
                "of one shape, joined by commas; give others as towers of their own"
            )
    mean = build_verifier(size_px, towers[0])
    weights = zip(*(network.get_weights() for network in networks), strict=True)
    mean.set_weights([np.mean(same, axis=0) for same in weights])
    return mean
