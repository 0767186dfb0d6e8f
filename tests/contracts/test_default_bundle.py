"""The bundle that ships: it keeps its contract, and damage never goes unnoticed."""

import json
import shutil

import numpy as np
import pytest

from dedup_job.errors import ModelContractError
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.bundle import CALIBRATION, EMBEDDER, MANIFEST, read_manifest, write_manifest
from dedup_job.kernels.calibration import read_calibration, read_score_calibration
from dedup_job.kernels.images import prepare
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.verifier import describe
from dedup_job.kernels.verifier_model import load_verifier
from tests.photos import jpeg

DEFAULT = locate_bundle("")


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(DEFAULT, tmp_path / "bundle")


def test_it_loads_and_gives_unit_vectors():
    embedder = load_embedder(DEFAULT)
    manifest = embedder.manifest
    photos = [prepare(jpeg(s), manifest.input_px, manifest.blur_sigma_px).pixels for s in range(3)]
    vectors = embedder.embed(np.stack(photos))
    assert vectors.shape == (3, manifest.dim) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    one_by_one = np.concatenate([embedder.embed(photo[None]) for photo in photos])
    assert (one_by_one == vectors).all()


def test_its_calibration_belongs_to_its_model():
    manifest = read_manifest(DEFAULT)
    assert read_calibration(DEFAULT, manifest.model_id).model_id == manifest.model_id


def test_it_verifies_pairs():
    manifest = read_manifest(DEFAULT)
    assert read_score_calibration(DEFAULT, manifest.model_id).n_true > 1_000
    verifier = load_verifier(DEFAULT)
    photos = [prepare(jpeg(s), manifest.input_px, manifest.blur_sigma_px).pixels for s in (1, 2)]
    a, b = (describe(photo) for photo in photos)
    copy = describe(np.ascontiguousarray(photos[0][:, ::-1]))
    answers = [verifier.answer(a, other) for other in (a, copy, b)]
    assert min(answers[:2]) > 0 > answers[2]
    assert "score" in manifest.raw["verifier"]["quality"]


def test_it_fits_the_repository():
    assert sum(path.stat().st_size for path in DEFAULT.iterdir()) <= 30_000_000


@pytest.mark.parametrize("name", [EMBEDDER, CALIBRATION, "golden.npz"])
def test_an_altered_or_missing_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (copy / name).write_bytes(data)
    with pytest.raises(ModelContractError, match=f"{name} was altered"):
        load_embedder(copy)
    (copy / name).write_bytes(data[:100])
    with pytest.raises(ModelContractError, match="has 100 bytes, the manifest says"):
        load_embedder(copy)
    (copy / name).unlink()
    with pytest.raises(ModelContractError, match=f"file {name} is missing"):
        load_embedder(copy)


def test_another_network_under_the_same_golden_vectors_is_refused(copy):
    with np.load(copy / "golden.npz") as golden:
        images, embeddings = golden["images"], golden["embeddings"]
    np.savez(copy / "golden.npz", images=images, embeddings=np.roll(embeddings, 1, axis=1))
    manifest = read_manifest(DEFAULT)
    write_manifest(
        copy,
        dim=manifest.dim,
        input_px=manifest.input_px,
        blur_sigma_px=manifest.blur_sigma_px,
        facts={},
    )
    with pytest.raises(ModelContractError, match="golden embeddings differ"):
        load_embedder(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing_version": 99}, "preprocessing version 99"),
        ({"bundle_format": 99}, "format 99"),
        ({"input_px": 64}, "model_id does not match"),
        ({"files": {}}, "does not list"),
    ],
)
def test_a_manifest_that_promises_something_else_is_refused(copy, change, message):
    content = json.loads((copy / MANIFEST).read_text()) | change
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ModelContractError, match=message):
        read_manifest(copy)


@pytest.mark.training
def test_the_tensorflow_runtime_agrees_with_the_int8_one():
    manifest = read_manifest(DEFAULT)
    photos = np.stack(
        [prepare(jpeg(s), manifest.input_px, manifest.blur_sigma_px).pixels for s in range(8)]
    )
    int8 = load_embedder(DEFAULT).embed(photos)
    full = load_embedder(DEFAULT, "tensorflow").embed(photos)
    assert (int8 * full).sum(axis=1).min() > 0.98
