"""From trained weights to a bundle directory: `embedder.tflite`, `model.keras`, golden vectors.

The int8 network ends before L2 normalisation: int8 L2_NORM resolves 1/128, far too coarse for
cosines; `kernels.model` normalises in float32.
"""

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dedup_job.errors import DedupError, ModelContractError
from dedup_job.kernels.golden import Golden, write_golden_file
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.model import LiteRtNetwork, load_keras_model, to_unit_rows

MAX_INT8_LOSS_UAP = 0.01


def convert_to_int8(model: Any, representative: Pixels) -> bytes:
    """Convert to full-integer LiteRT: uint8 input, float32 output, batch 1, per-channel weights.

    Args:
        model: Keras model from raw RGB to the raw embedding (`network.raw_model`).
        representative: uint8 (n, size, size, 3), a few hundred photos as the job will see them.

    Returns:
        The file's bytes.

    Raises:
        DedupError: an operation stayed in float.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = (1, *representative.shape[1:])
    forward = tf.function(lambda photo: model(photo, training=False))
    concrete = forward.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    # Variables become constants first: the converter's calibrator cannot read them otherwise.
    frozen = convert_variables_to_constants_v2(concrete)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [p[None].astype(np.float32)] for p in representative
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    data: bytes = converter.convert()
    floats = float_operations(data)
    if floats:
        raise DedupError(f"the int8 network computes in float: {', '.join(sorted(floats))}")
    return data


def check_int8_loss(float_uap: float, int8_uap: float, max_loss: float, whose: str = "") -> None:
    """Raise DedupError where int8 costs more than `max_loss` uAP; `whose` network it is, for the message."""
    loss = float_uap - int8_uap
    if loss > max_loss:
        raise DedupError(
            f"int8 costs {whose}{loss:.4f} uAP on held-out products (allowed {max_loss:g}, "
            f"--max-int8-loss): {float_uap:.4f} in float32, {int8_uap:.4f} in int8"
        )


def float_operations(data: bytes) -> set[str]:
    """Names of operations that write float32, other than the last DEQUANTIZE."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    types = {t["index"]: t["dtype"] for t in interpreter.get_tensor_details()}
    # A private call, and the only way to list operations without the flatbuffer schema.
    return {
        op["op_name"]
        for op in interpreter._get_ops_details()
        if op["op_name"] not in {"DEQUANTIZE", "DELEGATE"}
        and any(types.get(i) is np.float32 for i in op["outputs"])
    }


def run_int8(embedder: Path, views: Pixels) -> np.ndarray:
    """Embed uint8 (n, size, size, 3) with an `embedder.tflite`; float32 (n, dim) unit rows."""
    return to_unit_rows(LiteRtNetwork(embedder, n_threads=1)(views))


def save_keras(model: Any, path: Path) -> None:
    """Save a model of stock layers with weights stored as float16 (loaded back as float32)."""
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.keras"
        model.save(plain, include_optimizer=False)
        _require_stock_layers(plain)
        with zipfile.ZipFile(plain) as archive:
            archive.extractall(folder)
            names = archive.namelist()
        weights = Path(folder) / "model.weights.h5"
        halved = Path(folder) / "half.h5"
        with h5py.File(weights) as source, h5py.File(halved, "w") as target:
            _copy_as_float16(source, target)
        os.replace(halved, weights)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.write(Path(folder) / name, name)


def draw_golden(size_px: int, n: int = 12) -> Pixels:
    """Drawn test pictures, the same on every machine: uint8 (n, size_px, size_px, 3)."""
    pictures = []
    for i in range(n):
        rng = np.random.default_rng(100 + i)
        picture = np.full((size_px, size_px, 3), rng.integers(150, 256, 3), np.uint8)
        body = np.array([[0.3, 0.15], [0.7, 0.15], [0.95, 0.4], [0.8, 0.5], [0.75, 0.42],
                         [0.75, 0.9], [0.25, 0.9], [0.25, 0.42], [0.2, 0.5], [0.05, 0.4]])  # fmt: skip
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.fillPoly(picture, [np.rint(body * size_px).astype(np.int32)], colour)
        for _ in range(i):
            x, y = (int(v) for v in rng.integers(size_px // 4, 3 * size_px // 4, 2))
            trim = tuple(int(c) for c in rng.integers(0, 256, 3))
            cv2.rectangle(picture, (x, y), (x + size_px // 8, y + size_px // 6), trim, -1)
        pictures.append(picture)
    return np.stack(pictures)


def write_golden(path: Path, embedder: Path, keras_model: Path, size_px: int) -> None:
    """Write `golden.npz`: drawn pictures, and what the int8 and the Keras model make of them."""
    images = draw_golden(size_px)
    model = load_keras_model(keras_model)
    vectors = np.asarray(model(images.astype(np.float32), training=False), np.float32)
    golden = Golden(images, run_int8(embedder, images), to_unit_rows(vectors))
    write_golden_file(path, golden)


def _copy_as_float16(source: Any, target: Any) -> None:
    import h5py

    for key, value in source.attrs.items():
        target.attrs[key] = value
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy_as_float16(item, target.create_group(name))
        else:
            data = item[()]
            half = data.astype(np.float16) if np.asarray(data).dtype == np.float32 else data
            target.create_dataset(name, data=half)


def _require_stock_layers(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    registered = {
        layer.get("registered_name")
        for layer in json.loads(config)["config"]["layers"]
        if str(layer.get("module") or "").startswith("model_training")
    }
    if registered:
        raise ModelContractError(f"the exported model holds custom layers: {registered}")
