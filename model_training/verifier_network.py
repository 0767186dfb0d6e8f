"""The verifier's network: small residual networks side by side, on two photos laid over each other.

Networks that began from other weights err on other pairs, so their sum errs less than one of twice the size
(deep ensembles, Lakshminarayanan et al. 2017). Each learns alone; as one file they share the photos.
"""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from dedup_job.kernels.verifier import PAIR_CHANNELS

VOTES_PER_TOWER = 16
_BN = {"momentum": 0.97, "epsilon": 1e-3}
# Before towers there was one, without a name.
_WIDTH_GIVEN_BY = re.compile(r"(tower\d+_)?(stem|stage\d+_in)_conv")


def build_verifier(
    size_px: int, towers: Sequence[Sequence[int]], precision: str = "float32"
) -> Any:
    """Build the network.

    Args:
        size_px: side of the photos, a multiple of 16.
        towers: of each, the channels of the stem and the three stages.
        precision: a Keras dtype policy for the convolutions; the heads are float32 always.

    Returns:
        keras.Model from (n, size_px, size_px, PAIR_CHANNELS), grey levels 0 to 255, to float32
        (n, `VOTES_PER_TOWER` * towers). The sum of a tower's votes is what it takes for the logarithm of the
        odds that the two show one product.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        pair = keras.Input((size_px, size_px, PAIR_CHANNELS), name="pair", dtype="float32")
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale", dtype="float32")(pair)
        votes = [_tower(x, channels, f"tower{i}_") for i, channels in enumerate(towers, 1)]
    finally:
        keras.config.set_dtype_policy(before)
    out = votes[0]
    if len(votes) > 1:
        out = layers.Concatenate(name="votes", dtype="float32")(votes)
    return keras.Model(pair, out, name="verifier")


def towers_of(network: Any) -> tuple[tuple[int, ...], ...]:
    """What `build_verifier` was asked for, read off a network that it built; () of any other network."""
    towers: dict[str, list[int]] = {}
    for layer in network.layers:
        named = _WIDTH_GIVEN_BY.fullmatch(layer.name)
        if named:
            towers.setdefault(named[1] or "", []).append(layer.filters)
    return tuple(tuple(channels) for channels in towers.values())


def _tower(x: Any, channels: Sequence[int], name: str) -> Any:
    # What tells a print from a crop may be a few pixels or the whole garment: every stage is asked for its
    # largest answer, the last one for its mean as well.
    x = _conv(x, channels[0], 5, 2, f"{name}stem")
    answers = []
    for i, width in enumerate(channels[1:], 1):
        x = _conv(x, width, 3, 2, f"{name}stage{i}_in")
        x = _residual(x, width, f"{name}stage{i}_block1")
        answers.append(layers.GlobalMaxPooling2D(name=f"{name}stage{i}_max")(x))
    answers.append(layers.GlobalAveragePooling2D(name=f"{name}mean")(x))
    x = layers.Concatenate(name=f"{name}answers", dtype="float32")(answers)
    x = layers.Dense(64, activation="relu", name=f"{name}head", dtype="float32")(x)
    x = layers.Dropout(0.2, name=f"{name}head_dropout", dtype="float32")(x)
    return layers.Dense(VOTES_PER_TOWER, name=f"{name}votes", dtype="float32")(x)


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
