"""The default bundle with a verifier that is no trained one: it answers by how far photos are apart."""

import json
import shutil
from pathlib import Path

import numpy as np

from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.bundle import (
    CALIBRATION,
    GOLDEN,
    MANIFEST,
    SCORE_CALIBRATION,
    VERIFIER,
    VERIFIER_KERAS,
    compute_model_id,
    read_manifest,
    write_manifest,
)
from dedup_job.kernels.calibration import calibration_id_of
from dedup_job.kernels.golden import read_golden
from dedup_job.kernels.model import LiteRtNetwork
from dedup_job.kernels.verifier import PAIR_CHANNELS, golden_pairs, mean_answer
from tests.unit.synthetic_calibration import raw_score_calibration

DEFAULT = locate_bundle("")
RULE = {"bias": 0.0, "answer_weight": 1.0, "cosine_weight": 4.0}
N_VOTES = 4
_AT_NO_DIFFERENCE, _PER_GREY_LEVEL = 12.0, 0.8


def difference_network(size_px: int) -> bytes:
    """A verifier.tflite: 12 less 0.8 for each grey level of the mean difference.

    Needs TensorFlow; what it gives runs without.
    """
    import keras
    from keras import layers

    from model_training.export import convert_to_int8

    pair = keras.Input((size_px, size_px, PAIR_CHANNELS))
    picked = layers.Conv2D(1, 1, name="picked")(pair)
    mean = layers.GlobalAveragePooling2D()(picked)
    model = keras.Model(pair, layers.Dense(N_VOTES, name="votes")(mean))
    kernel = np.zeros((1, 1, PAIR_CHANNELS, 1))
    kernel[0, 0, 6:9] = 1 / 3
    model.get_layer("picked").set_weights([kernel, np.zeros(1)])
    model.get_layer("votes").set_weights(
        [
            np.full((1, N_VOTES), -_PER_GREY_LEVEL / N_VOTES),
            np.full(N_VOTES, _AT_NO_DIFFERENCE / N_VOTES),
        ]
    )
    return convert_to_int8(model, _pairs_of_any_difference(size_px))


def _pairs_of_any_difference(size_px: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 256, (24, size_px, size_px, PAIR_CHANNELS), dtype=np.uint8)
    for number, pair in enumerate(pairs):
        pair[..., 6:9] = rng.integers(0, 1 + 4 * number, (size_px, size_px, 3))
    return pairs


def write_bundle(folder: Path, network: bytes, rule: dict[str, float] = RULE) -> Path:
    """A bundle beside which nothing else is in `folder`: the default embedder, this verifier."""
    shutil.copytree(DEFAULT, folder)
    (folder / VERIFIER).write_bytes(network)
    old = read_manifest(DEFAULT)
    model_id = compute_model_id(
        old.files["embedder.tflite"]["sha256"], old.input_px, old.blur_sigma_px, with_verifier=True
    )
    cosines = json.loads((folder / CALIBRATION).read_text()) | {"model_id": model_id}
    write_calibration(folder / CALIBRATION, cosines)
    write_calibration(folder / SCORE_CALIBRATION, raw_score_calibration(model_id=model_id))
    verifier = {
        "rule": dict(rule),
        "golden_answers": golden_answers(folder),
        "floor_cosine": 0.6,
    }
    facts = {"verifier": verifier}
    write_manifest(
        folder, dim=old.dim, input_px=old.input_px, blur_sigma_px=old.blur_sigma_px, facts=facts
    )
    return folder


def write_plain_bundle(folder: Path) -> Path:
    """The default bundle as it would be without a verifier."""
    shutil.copytree(DEFAULT, folder)
    for name in (VERIFIER, VERIFIER_KERAS, SCORE_CALIBRATION):
        (folder / name).unlink()
    old = read_manifest(DEFAULT)
    model_id = compute_model_id(
        old.files["embedder.tflite"]["sha256"], old.input_px, old.blur_sigma_px
    )
    cosines = json.loads((folder / CALIBRATION).read_text()) | {"model_id": model_id}
    write_calibration(folder / CALIBRATION, cosines)
    facts = {name: old.raw[name] for name in ("libraries", "training", "quality")}
    write_manifest(
        folder, dim=old.dim, input_px=old.input_px, blur_sigma_px=old.blur_sigma_px, facts=facts
    )
    return folder


def golden_answers(bundle: Path) -> list[float]:
    """What the bundle's verifier makes of its golden pictures."""
    network = LiteRtNetwork(bundle / VERIFIER, 1)
    images = read_golden(bundle / GOLDEN, read_manifest(DEFAULT)).images
    return [mean_answer(list(network(pair))) for pair in golden_pairs(images)]


def write_calibration(path: Path, raw: dict[str, object]) -> None:
    path.write_text(json.dumps(raw | {"calibration_id": calibration_id_of(raw)}))


def edit_manifest(bundle: Path, **changes: object) -> None:
    """Change the manifest alone; hashes of files stay."""
    content = json.loads((bundle / MANIFEST).read_text()) | changes
    (bundle / MANIFEST).write_text(json.dumps(content))
