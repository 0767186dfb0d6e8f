"""Attention erasure: hide the most salient cells while training (after Choe & Shim 2019, ADL).

The top-k variant (DGDM, arXiv 2003.04719): saliency is the channel mean of the feature map, and the
k most salient cells of a photo are set to zero. Identity at inference; export strips the layer.
"""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="model_training")
class AttentionErasure(keras.layers.Layer):
    """Zeroes the `fraction` most salient cells of a share `probability` of the photos.

    Input and output: float (n, h, w, c). Kept values are not rescaled: a batch norm follows.
    """

    def __init__(self, probability: float, fraction: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probability = probability
        self.fraction = fraction
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        """Apply the mask when training; return `x` unchanged otherwise."""
        if not training or self.probability == 0:
            return x
        chosen = keras.random.uniform((ops.shape(x)[0], 1, 1, 1), seed=self.seed_generator)
        erased = ops.logical_and(chosen < self.probability, salient_cells(x, self.fraction))
        return ops.where(erased, ops.zeros_like(x), x)

    def get_config(self) -> dict[str, Any]:
        """Arguments that rebuild the layer."""
        own = {"probability": self.probability, "fraction": self.fraction, "seed": self.seed}
        return {**super().get_config(), **own}


def salient_cells(x: Any, fraction: float) -> Any:
    """Mark the most salient cells of each photo.

    Args:
        x: float (n, h, w, c), h and w known.
        fraction: share of the h*w cells, rounded, at least one cell.

    Returns:
        bool (n, h, w, 1), true at the k cells with the largest channel mean (more on ties).
    """
    height, width = x.shape[1], x.shape[2]
    k = max(1, round(fraction * height * width))
    saliency = ops.mean(x, axis=-1, keepdims=True)
    flat = ops.reshape(saliency, (-1, height * width))
    kth = ops.min(ops.top_k(flat, k=k)[0], axis=-1)
    return saliency >= ops.reshape(kth, (-1, 1, 1, 1))
