"""From a feature map to one vector a photo, in stock operations that the int8 converter has.

GeM (Radenović et al. 2018, eq. 3) is (mean of x^p)^(1/p) over the cells. LiteRT has no int8 power, and
x^3 in 8 bits would lose every channel below a sixth of the largest. Therefore the map is divided by
its channel's maximum first, and the powers are products of logarithms:

    GeM(x) = m * exp(log(mean(exp(p * (log x - log m)))) / p),  m = max x

which is the same number: GeM scales with its input. The exponent is fixed, as in SSCD: a learned one
would need a layer that Keras does not have, and a bundle's model must load without this package.
"""

from typing import Any

from keras import layers, ops

from model_training.config import NetworkConfig

# Values count as this much at least, as in the paper (1e-6 there: too wide a range for 8 bits).
GEM_EPSILON = 1e-3


def add_pooling(x: Any, config: NetworkConfig) -> Any:
    """Pool the cells of a feature map as `config.pooling` says.

    Args:
        x: float (n, h, w, c), not negative, as after a ReLU.
        config: `pooling` and `gem_p`.

    Returns:
        float32 (n, 2c) for `avgmax`, else (n, c).
    """
    if config.pooling == "gem":
        return add_gem(x, config.gem_p)
    average = layers.GlobalAveragePooling2D(name="avg_pool", dtype="float32")(x)
    if config.pooling == "avg":
        return average
    largest = layers.GlobalMaxPooling2D(name="max_pool", dtype="float32")(x)
    return layers.Concatenate(name="pool", dtype="float32")([average, largest])


def add_gem(x: Any, p: float) -> Any:
    """Generalised mean over the cells, see above.

    Args:
        x: float (n, h, w, c), not negative.
        p: exponent, at least 1: 1 gives the average, large gives the maximum.

    Returns:
        float32 (n, c), `GEM_EPSILON` at least.
    """
    x = layers.Activation("linear", name="gem_input", dtype="float32")(x)
    x = ops.maximum(x, GEM_EPSILON)
    largest = ops.max(x, axis=(1, 2), keepdims=True)
    powers = ops.exp((ops.log(x) - ops.log(largest)) * p)
    share = ops.exp(ops.log(ops.mean(powers, axis=(1, 2), keepdims=True)) / p)
    return layers.Flatten(name="pool", dtype="float32")(ops.multiply(largest, share))
