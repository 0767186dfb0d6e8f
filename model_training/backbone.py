"""Start from a published ResNet50: ImageNet weights or a file, copied layer by layer.

`network.py` names its layers as `keras.applications.ResNet50` does. Those weights expect BGR with
the means subtracted ("caffe" mode). Here the first kernel is turned to RGB once, so that the photos
need not be turned at every call; the means are a layer of the network.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.errors import ConfigError
from dedup_job.kernels.keras_archive import check_keras_archive
from model_training.config import NetworkConfig


def load_backbone(model: Any, config: NetworkConfig) -> int:
    """Copy ResNet50 weights into a network built for them (`backbone_weights` other than none).

    Args:
        model: from `network.build_network`, with the same settings.
        config: `backbone_weights` is "imagenet" (Keras downloads it), or a weights file of
            `keras.applications.ResNet50`, with or without its classifier.

    Returns:
        Number of layers that received weights.

    Raises:
        ConfigError: another width than 1, or the file is missing or of another network.
        ModelContractError: a `.keras` file that must not be unpacked.
    """
    if config.width != 1.0:
        raise ConfigError(
            f"network.width is {config.width}: ResNet50 weights fit width 1 only; "
            "set network.width to 1 or use --backbone-weights none"
        )
    published = _read(config.backbone_weights)
    source = {layer.name: layer for layer in published.layers if layer.weights}
    copied = 0
    for layer in model.layers:
        if layer.name in source and layer.weights:
            layer.set_weights(_turned(layer.name, source[layer.name].get_weights()))
            copied += 1
    return copied


def _read(weights: str) -> Any:
    from keras.applications import ResNet50

    if weights == "imagenet":
        try:
            return ResNet50(include_top=False, weights="imagenet")
        except Exception as error:  # urllib, SSL and hash errors of Keras' download
            raise ConfigError(
                f"--backbone-weights imagenet: download failed ({' '.join(str(error).split())}); "
                "give a local file"
            ) from None
    if not Path(weights).is_file():
        raise ConfigError(f"--backbone-weights {weights}: no such file (or use imagenet, none)")
    if zipfile.is_zipfile(weights):
        check_keras_archive(Path(weights))
    problem = ""
    for top in (False, True):
        try:
            model = ResNet50(include_top=top, weights=None)
            model.load_weights(weights)
            return model
        except (ValueError, OSError, KeyError) as error:
            problem = " ".join(str(error).split())[:160]
    raise ConfigError(f"--backbone-weights {weights} does not hold ResNet50 weights: {problem}")


def _turned(name: str, weights: list[np.ndarray]) -> list[np.ndarray]:
    if name == "conv1_conv":
        return [weights[0][:, :, ::-1, :], *weights[1:]]
    return weights
