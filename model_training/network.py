"""The embedding network: ResNet50 v1 at any width, CBAM, erasure, pooling, a head.

Input: raw RGB 0..255, float or uint8 cast to float; the scaling is the first layer. Without the
training-only erasure the model holds stock Keras layers only. Built to start from published weights
(`backbone_weights` other than none) it computes exactly what `keras.applications.ResNet50` computes:
biased convolutions, explicit padding, means of the ImageNet channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers

from dedup_job.errors import ConfigError
from model_training.attention import add_channel_attention, add_spatial_attention
from model_training.config import FIRST_ERASED_STAGE, NetworkConfig
from model_training.erasure import AttentionErasure
from model_training.pooling import add_pooling

# (channels of the 3x3, blocks, stride) of ResNet50's four stages, He et al. 2015 table 1.
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
_BN = {"momentum": 0.95, "epsilon": 1.001e-5}
RAW_EMBEDDING = "embedding"
# RGB; keras.applications subtracts the same means in BGR order.
_IMAGENET_MEANS = (123.68, 116.779, 103.939)


def build_network(config: NetworkConfig, *, training: bool, precision: str = "float32") -> Any:
    """Build the model; layer names do not depend on `training`, so weights carry over by name.

    Args:
        config: the network's settings.
        training: include attention erasure.
        precision: a Keras dtype policy for the backbone, "float32" or "mixed_bfloat16". Weights, the
            scaling of the photo, pooling and head are float32 always.

    Returns:
        keras.Model from (n, input_px, input_px, 3) to float (n, dim) of unit L2 norm. The layer
        `RAW_EMBEDDING` gives the same vectors before normalisation.
    """
    with _dtype_policy(precision):
        model = _build(config, training)
    _freeze(model, config.freeze_until)
    return model


def _build(config: NetworkConfig, training: bool) -> Any:
    published = config.backbone_weights != "none"
    photo = keras.Input((config.input_px, config.input_px, 3), name="photo", dtype="float32")
    x = _add_stem(photo, _channels(64, config), published)
    for number, (channels, blocks, stride) in enumerate(_STAGES, start=1):
        for block in range(1, blocks + 1):
            name = f"conv{number + 1}_block{block}"
            x = _add_bottleneck(
                x, _channels(channels, config), stride if block == 1 else 1, name, published
            )
        if number in config.attention_stages:
            x = _add_attention(x, config, f"stage{number}")
            if config.erasure and training and number >= FIRST_ERASED_STAGE:
                x = AttentionErasure(
                    config.erasure_probability,
                    config.erasure_fraction,
                    seed=number,  # each stage erases other photos
                    kind=config.erasure_kind,
                    gamma=config.erasure_gamma,
                    name=f"stage{number}_erasure",
                )(x)
    return keras.Model(photo, _add_head(x, config), name="embedder")


def raw_model(model: Any) -> Any:
    """The same network, ending before L2 normalisation (for the int8 export)."""
    return keras.Model(model.input, model.get_layer(RAW_EMBEDDING).output, name="raw_embedder")


def copy_weights(source: Any, target: Any) -> None:
    """Copy the weights of equally named layers.

    Raises:
        ConfigError: `target` has a layer with weights that `source` lacks.
    """
    names = {layer.name for layer in source.layers}
    for layer in target.layers:
        if layer.weights and layer.name not in names:
            raise ConfigError(f"the trained network has no layer {layer.name}; same config?")
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _channels(channels: int, config: NetworkConfig) -> int:
    return max(8, round(channels * config.width / 8) * 8)


def _add_stem(photo: Any, channels: int, published: bool) -> Any:
    if published:
        x = layers.Normalization(
            mean=_IMAGENET_MEANS, variance=(1.0, 1.0, 1.0), name="scale", dtype="float32"
        )(photo)
        x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    else:
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale", dtype="float32")(photo)
    padding = "valid" if published else "same"
    x = layers.Conv2D(channels, 7, 2, padding=padding, use_bias=published, name="conv1_conv")(x)
    x = layers.BatchNormalization(name="conv1_bn", **_BN)(x)
    x = layers.ReLU(name="conv1_relu")(x)
    if published:
        x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, 2, padding=padding, name="pool1_pool")(x)


def _add_bottleneck(x: Any, channels: int, stride: int, name: str, bias: bool) -> Any:
    shortcut = x
    if stride != 1 or x.shape[-1] != 4 * channels:
        shortcut = _conv_bn(x, 4 * channels, 1, stride, f"{name}_0", bias)
    y = layers.ReLU(name=f"{name}_1_relu")(_conv_bn(x, channels, 1, stride, f"{name}_1", bias))
    y = layers.ReLU(name=f"{name}_2_relu")(_conv_bn(y, channels, 3, 1, f"{name}_2", bias))
    y = _conv_bn(y, 4 * channels, 1, 1, f"{name}_3", bias)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, y]))


def _conv_bn(x: Any, channels: int, kernel: int, stride: int, name: str, bias: bool) -> Any:
    x = layers.Conv2D(
        channels,
        kernel,
        stride,
        padding="same",
        use_bias=bias,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    # Residual branches start at zero (Goyal et al. 2017): steadier from scratch at a high rate.
    gamma = "zeros" if name.endswith("_3") else "ones"
    return layers.BatchNormalization(gamma_initializer=gamma, name=f"{name}_bn", **_BN)(x)


def _add_attention(x: Any, config: NetworkConfig, name: str) -> Any:
    if config.channel_attention:
        x = add_channel_attention(x, config.attention_reduction, f"{name}_channel")
    if config.spatial_attention:
        x = add_spatial_attention(x, f"{name}_spatial")
    return x


def _add_head(x: Any, config: NetworkConfig) -> Any:
    pooled = add_pooling(x, config)
    whole: dict[str, Any] = {"dtype": "float32"}
    if config.dropout:
        pooled = layers.Dropout(config.dropout, name="head_dropout", **whole)(pooled)
    y = layers.Dense(config.dim, use_bias=False, name="head_dense", **whole)(pooled)
    y = layers.BatchNormalization(name=RAW_EMBEDDING, **_BN, **whole)(y)
    return layers.UnitNormalization(name="unit", **whole)(y)


def _freeze(model: Any, until: str) -> None:
    if not until:
        return
    names = [layer.name for layer in model.layers]
    if until not in names:
        raise ConfigError(f"network.freeze_until: no layer {until!r}; e.g. conv3_block4_out")
    for layer in model.layers[: names.index(until) + 1]:
        layer.trainable = False
