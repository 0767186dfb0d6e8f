"""Attention erasure: hide the most salient cells while training (after Choe & Shim 2019, ADL).

Saliency is the channel mean of the feature map. Two rules say which cells of a photo are set to zero:
`topk` the k most salient (DGDM, arXiv 2003.04719), `threshold` those above a share of the photo's
largest (ADL's drop mask; its importance map is not used here). Identity at inference; export strips
the layer.
"""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="model_training")
class AttentionErasure(keras.layers.Layer):
    """Zeroes the most salient cells of a share `probability` of the photos.

    Input and output: float (n, h, w, c). Kept values are not rescaled: a batch norm follows.

    Args:
        probability: 0 to 1.
        fraction: for `topk`, see `salient_cells`.
        kind: `topk` or `threshold`.
        gamma: for `threshold`, see `cells_above`.
        seed: which photos are drawn.
        kwargs: of any Keras layer.
    """

    def __init__(
        self,
        probability: float,
        fraction: float,
        seed: int = 0,
        kind: str = "topk",
        gamma: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.probability = probability
        self.fraction = fraction
        self.kind = kind
        self.gamma = gamma
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        """Apply the mask when training; return `x` unchanged otherwise."""
        if not training or self.probability == 0:
            return x
        chosen = keras.random.uniform((ops.shape(x)[0], 1, 1, 1), seed=self.seed_generator)
        hidden = hidden_cells(x, self.kind, self.fraction, self.gamma)
        erased = ops.logical_and(chosen < self.probability, hidden)
        return ops.where(erased, ops.zeros_like(x), x)

    def get_config(self) -> dict[str, Any]:
        """Arguments that rebuild the layer."""
        names = ("probability", "fraction", "seed", "kind", "gamma")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def hidden_cells(x: Any, kind: str, fraction: float, gamma: float) -> Any:
    """The cells that a rule hides: `cells_above` for `threshold`, else `salient_cells`; bool (n, h, w, 1)."""
    return cells_above(x, gamma) if kind == "threshold" else salient_cells(x, fraction)


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
    saliency = _saliency(x)
    flat = ops.reshape(saliency, (-1, height * width))
    kth = ops.min(ops.top_k(flat, k=k)[0], axis=-1)
    return saliency >= ops.reshape(kth, (-1, 1, 1, 1))


def cells_above(x: Any, gamma: float) -> Any:
    """Mark the cells whose saliency exceeds a share of the photo's largest (ADL, sec. 3.1).

    Args:
        x: float (n, h, w, c), not negative, as after a ReLU.
        gamma: 0 to 1; 0 marks every cell with any saliency, 1 none. .8 and .9 in the paper.

    Returns:
        bool (n, h, w, 1).
    """
    saliency = _saliency(x)
    return saliency > gamma * ops.max(saliency, axis=(1, 2), keepdims=True)


def _saliency(x: Any) -> Any:
    # In float32 always: bfloat16 means would tie, and ties are erased together.
    return ops.mean(ops.cast(x, "float32"), axis=-1, keepdims=True)
