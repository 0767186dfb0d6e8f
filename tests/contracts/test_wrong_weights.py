"""Wrong weights are never used, though every hash of the bundle agrees."""

import ast
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from dedup_job.errors import ModelContractError
from dedup_job.kernels.bundle import EMBEDDER, GOLDEN, KERAS_MODEL, read_manifest
from dedup_job.kernels.golden import Golden, read_golden, write_golden_file
from dedup_job.kernels.model import (
    GOLDEN_MIN_COSINE,
    Embedder,
    LiteRtNetwork,
    compare_golden,
    load_embedder,
    load_keras_model,
    to_unit_rows,
)
from model_training.backbone import load_backbone
from model_training.config import NetworkConfig
from tests.broken_bundles import (
    DEFAULT,
    copy_bundle,
    edit_keras,
    keras_kernels,
    kernels_of,
    rehash,
    zero_keras_kernel,
    zeroed,
)
from tests.hostile.keras_files import zeros

ROOT = Path(__file__).parents[2]
# What is left between a golden cosine and the limit, on either side.
MARGIN = 0.001


@pytest.fixture(scope="module")
def golden():
    return read_golden(DEFAULT / GOLDEN, read_manifest(DEFAULT))


def worst_cosine(vectors, golden, runtime="litert"):
    expected = to_unit_rows(golden.of_runtime(runtime))
    return float((to_unit_rows(vectors) * expected).sum(axis=1).min())


def test_each_zeroed_kernel_of_the_int8_network_is_noticed(tmp_path, golden):
    network = (DEFAULT / EMBEDDER).read_bytes()
    kernels = kernels_of(network)
    assert len(kernels) > 50
    file = tmp_path / EMBEDDER
    left = {}
    for name, place in kernels.items():
        file.write_bytes(zeroed(network, place))
        left[name] = worst_cosine(LiteRtNetwork(file, 1)(golden.images), golden)
    closest = max(left, key=left.get)
    assert left[closest] < GOLDEN_MIN_COSINE - MARGIN, closest


@pytest.mark.training
def test_each_zeroed_kernel_of_the_keras_network_is_noticed(golden):
    import tensorflow as tf

    model = load_keras_model(DEFAULT / KERAS_MODEL)
    photos = golden.images.astype(np.float32)
    run = tf.function(lambda given: model(given, training=False))

    def worst():
        return worst_cosine(np.asarray(run(photos)), golden, "tensorflow")

    assert worst() > GOLDEN_MIN_COSINE + MARGIN
    left = {}
    for weight in model.weights:
        if weight.path.endswith("/kernel"):
            kept = weight.numpy()
            weight.assign(np.zeros_like(kept))
            left[weight.path] = worst()
            weight.assign(kept)
    assert len(left) > 50
    closest = max(left, key=left.get)
    assert left[closest] < GOLDEN_MIN_COSINE - MARGIN, closest


@pytest.mark.parametrize(
    "kind", [OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES]
)
def test_other_roundings_of_the_same_network_are_accepted(golden, kind):
    """LiteRT's other kernel sets stand in for other processors."""
    interpreter = Interpreter(str(DEFAULT / EMBEDDER), experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    vectors = []
    for photo in golden.images:
        interpreter.set_tensor(given["index"], photo[None])
        interpreter.invoke()
        vectors.append(interpreter.get_tensor(made["index"])[0])
    cosine = worst_cosine(np.stack(vectors), golden)
    assert GOLDEN_MIN_COSINE + MARGIN < cosine < 1


def test_a_bundle_with_one_zeroed_kernel_refuses_to_run(tmp_path):
    bundle = copy_bundle(tmp_path)
    network = (bundle / EMBEDDER).read_bytes()
    (bundle / EMBEDDER).write_bytes(zeroed(network, list(kernels_of(network).values())[30]))
    rehash(bundle)
    with pytest.raises(ModelContractError, match=r"golden embeddings differ .*runtime litert"):
        load_embedder(bundle)


@pytest.mark.training
def test_a_keras_file_with_one_zeroed_kernel_or_none_refuses_to_run(tmp_path):
    bundle = copy_bundle(tmp_path)
    edit_keras(bundle / KERAS_MODEL, lambda file: zero_keras_kernel(file, keras_kernels(file)[20]))
    rehash(bundle)
    with pytest.raises(ModelContractError, match=r"golden embeddings differ .*runtime tensorflow"):
        load_embedder(bundle, "tensorflow")
    assert load_embedder(bundle).manifest.dim == 128  # the int8 network is sound

    def delete_group(file):
        del file["layers/conv2d_20"]

    edit_keras(bundle / KERAS_MODEL, delete_group)
    rehash(bundle)
    with pytest.raises(ModelContractError, match=r"model\.keras cannot be loaded: ") as caught:
        load_embedder(bundle, "tensorflow")
    assert "\n" not in str(caught.value)


def test_each_runtime_is_compared_with_its_own_golden_vectors(tmp_path, golden):
    manifest = read_manifest(DEFAULT)
    turned = np.roll(golden.embeddings, 1, axis=1)
    write_golden_file(tmp_path / GOLDEN, Golden(golden.images, golden.embeddings, turned))
    both = read_golden(tmp_path / GOLDEN, manifest)
    embedder = Embedder(manifest, lambda photos: golden.embeddings)
    compare_golden(embedder, both, "litert")
    with pytest.raises(ModelContractError, match="golden embeddings differ"):
        compare_golden(embedder, both, "tensorflow")
    earlier = Golden(golden.images, golden.embeddings)  # of a bundle with int8 vectors only
    compare_golden(embedder, earlier, "tensorflow")


@pytest.mark.training
def test_published_weights_are_looked_at_before_they_are_unpacked(tmp_path):
    zeros(119)(tmp_path / "resnet.keras")
    config = NetworkConfig(width=1.0, backbone_weights=str(tmp_path / "resnet.keras"))
    with pytest.raises(ModelContractError, match="would unpack from 19"):
        load_backbone(None, config)


def test_keras_files_are_loaded_in_one_place_and_in_safe_mode():
    found = []
    for package in ("dedup_job", "model_training", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
            found += [(path, call) for call in calls if _name(call) == "load_model"]
            assert "enable_unsafe_deserialization" not in source, path
    ((path, call),) = found
    assert path == ROOT / "dedup_job" / "kernels" / "model.py"
    assert {k.arg: ast.literal_eval(k.value) for k in call.keywords} == {
        "compile": False,
        "safe_mode": True,
    }


def _name(call):
    return getattr(call.func, "attr", None) or getattr(call.func, "id", None)
