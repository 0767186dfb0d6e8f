"""CBAM: channel, then spatial attention (Woo et al. 2018), from stock Keras layers only.

Placed after a stage's last block by `network.py`; in the paper it sits in every bottleneck.
"""

from typing import Any

from keras import layers, ops


def add_channel_attention(x: Any, reduction: int, name: str) -> Any:
    """Scale channels by a sigmoid of a shared MLP over average and max pool.

    Args:
        x: float (n, h, w, c) feature map.
        reduction: the MLP's hidden width is c / reduction, at least 4.
        name: prefix of the layer names.

    Returns:
        Same shape as `x`.
    """
    channels = x.shape[-1]
    # 1x1 convolutions, not Dense: the int8 converter keeps them 4-d without reshapes.
    hidden = layers.Conv2D(
        max(4, channels // reduction), 1, activation="relu", name=f"{name}_hidden"
    )
    out = layers.Conv2D(channels, 1, name=f"{name}_out")
    average = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_avg")(x)
    largest = layers.GlobalMaxPooling2D(keepdims=True, name=f"{name}_max")(x)
    total = layers.Add(name=f"{name}_sum")([out(hidden(average)), out(hidden(largest))])
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(total)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def add_spatial_attention(x: Any, name: str, kernel_px: int = 7) -> Any:
    """Scale cells by a sigmoid of a convolution over [max; mean] of the channels.

    Args:
        x: float (n, h, w, c) feature map.
        name: prefix of the layer names.
        kernel_px: side of the convolution, 7 in the paper.

    Returns:
        Same shape as `x`.
    """
    largest = ops.max(x, axis=-1, keepdims=True)
    average = ops.mean(x, axis=-1, keepdims=True)
    both = layers.Concatenate(name=f"{name}_pool")([largest, average])
    score = layers.Conv2D(1, kernel_px, padding="same", use_bias=False, name=f"{name}_conv")(both)
    score = layers.BatchNormalization(name=f"{name}_bn", momentum=0.95)(score)
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(score)
    return layers.Multiply(name=f"{name}_scale")([x, gate])
