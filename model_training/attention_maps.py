"""Where the network's own gates open, and what attention erasure would hide while training.

Read from `model.keras` of a bundle; needs TensorFlow, as every Keras model here does.
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dedup_job.kernels.bundle import KERAS_MODEL, Manifest
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.model import load_keras_model
from model_training.config import FIRST_ERASED_STAGE, NetworkConfig

_GATE = re.compile(r"stage(\d+)_spatial_gate")
_OUTPUT = re.compile(r"stage(\d+)_(channel|spatial)_scale")


@dataclass(frozen=True)
class StageMaps:
    """Maps of n photos at each stage that has them; stage numbers are 1 to 4.

    Attributes:
        gates: stage -> float32 (n, h, w), 0 shut to 1 open.
        erased: stage -> bool (n, h, w), the cells that training would hide.
        rule: in words, which cells these are.
    """

    gates: dict[int, np.ndarray]
    erased: dict[int, np.ndarray]
    rule: str


def stage_maps(bundle: Path, manifest: Manifest, photos: Pixels) -> StageMaps | str:
    """Run a bundle's Keras model on photos and read its attention.

    Args:
        bundle: directory.
        manifest: of the bundle.
        photos: uint8 (n, size, size, 3).

    Returns:
        The maps, or in one sentence why there are none.

    Raises:
        ModelContractError: the model cannot be loaded.
    """
    if KERAS_MODEL not in manifest.files:
        return f"This bundle holds no {KERAS_MODEL}, so its layers cannot be seen."
    if importlib.util.find_spec("tensorflow") is None:
        return "TensorFlow is not installed here, so the layers cannot be seen."
    import keras

    from model_training.erasure import hidden_cells

    model = load_keras_model(bundle / KERAS_MODEL)
    gates = {
        int(m[1]): layer.output for layer in model.layers if (m := _GATE.fullmatch(layer.name))
    }
    # Of two on one stage the later one, the spatial, is what the erasure sees.
    outputs = {
        int(m[1]): layer.output for layer in model.layers if (m := _OUTPUT.fullmatch(layer.name))
    }
    if not outputs:
        return "This network has no attention layers."
    wanted = {f"gate{n}": x for n, x in gates.items()} | {f"out{n}": x for n, x in outputs.items()}
    found = keras.Model(model.input, wanted)(photos.astype(np.float32), training=False)
    network = _erasure_of(manifest)
    fraction, gamma = network.erasure_fraction, network.erasure_gamma
    if network.erasure_kind == "threshold":
        rule = f"above {gamma:g} of the photo's highest"
    else:
        rule = f"the highest {100 * fraction:g} %"

    def marked(x: Any) -> np.ndarray:
        return np.asarray(hidden_cells(x, network.erasure_kind, fraction, gamma))[..., 0]

    return StageMaps(
        {n: np.asarray(found[f"gate{n}"])[..., 0] for n in sorted(gates)},
        {n: marked(found[f"out{n}"]) for n in sorted(outputs) if n >= FIRST_ERASED_STAGE},
        rule,
    )


def hide(photo: Pixels, cells: np.ndarray) -> Pixels:
    """The photo, dark where its cells are marked: uint8 (size, size, 3).

    Args:
        photo: uint8 (size, size, 3).
        cells: bool (h, w).
    """
    height, width = photo.shape[:2]
    mask = cv2.resize(cells.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.where(mask[:, :, None] == 1, photo // 6, photo)


def enlarge(gate: np.ndarray, size: int) -> np.ndarray:
    """A gate as a map over the photo: float32 (size, size), from its lowest (0) to its highest."""
    above = gate.astype(np.float32) - gate.min()
    big = cv2.resize(above, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.maximum(big, 0).astype(np.float32)


def _erasure_of(manifest: Manifest) -> NetworkConfig:
    """The settings a bundle was trained with; the defaults if another hand exported it."""
    try:
        return NetworkConfig.model_validate(manifest.raw["training"]["config"]["network"])
    except (KeyError, TypeError, ValueError):
        return NetworkConfig()
