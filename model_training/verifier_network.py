"""The verifier's network: a small residual network on two photos laid over each other."""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from dedup_job.kernels.verifier import PAIR_CHANNELS

N_VOTES = 16
_WIDTH_GIVEN_BY = re.compile(r"(stem|stage\d+_in)_conv")
_BN = {"momentum": 0.97, "epsilon": 1e-3}


def build_verifier(size_px: int, channels: Sequence[int], precision: str = "float32") -> Any:
    """Build the network.

    What tells a print from a crop may be a few pixels or the whole garment: every stage is asked for its
    largest answer, the last one for its mean as well.

    Args:
        size_px: side of the photos, a multiple of 16.
        channels: of the stem and the three stages.
        precision: a Keras dtype policy for the convolutions; the head is float32 always.

    Returns:
        keras.Model from (n, size_px, size_px, PAIR_CHANNELS), grey levels 0 to 255, to float32
        (n, `N_VOTES`): their sum is the logarithm of the odds that the two show one product.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        pair = keras.Input((size_px, size_px, PAIR_CHANNELS), name="pair", dtype="float32")
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale", dtype="float32")(pair)
        x = _conv(x, channels[0], 5, 2, "stem")
        answers = []
        for i, width in enumerate(channels[1:], 1):
            x = _conv(x, width, 3, 2, f"stage{i}_in")
            x = _residual(x, width, f"stage{i}_block1")
            answers.append(layers.GlobalMaxPooling2D(name=f"stage{i}_max")(x))
        answers.append(layers.GlobalAveragePooling2D(name="mean")(x))
    finally:
        keras.config.set_dtype_policy(before)
    x = layers.Concatenate(name="answers", dtype="float32")(answers)
    x = layers.Dense(64, activation="relu", name="head", dtype="float32")(x)
    x = layers.Dropout(0.2, name="head_dropout", dtype="float32")(x)
    votes = layers.Dense(N_VOTES, name="votes", dtype="float32")(x)
    return keras.Model(pair, votes, name="verifier")


def channels_of(network: Any) -> tuple[int, ...]:
    """What `build_verifier` was asked for, read off a network that it built; () of any other network."""
    return tuple(x.filters for x in network.layers if _WIDTH_GIVEN_BY.fullmatch(x.name))


def _conv(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(
        channels,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn", **_BN)(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _residual(x: Any, channels: int, name: str) -> Any:
    y = _conv(x, channels, 3, 1, f"{name}_1")
    y = layers.Conv2D(
        channels, 3, padding="same", use_bias=False, kernel_initializer="he_normal",
        name=f"{name}_2_conv",
    )(y)  # fmt: skip
    y = layers.BatchNormalization(gamma_initializer="zeros", name=f"{name}_2_bn", **_BN)(y)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
