"""A model bundle made ready to compute: `Embedder.embed(photos) -> unit vectors`.

Executors run the int8 network on LiteRT and need no TensorFlow; `runtime="tensorflow"` runs the
Keras model of the same bundle (GPU executors). Either is compared with the bundle's golden vectors
when it is loaded, so that a damaged or foreign model never runs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dedup_job.errors import ConfigError, ModelContractError, one_line
from dedup_job.kernels.bundle import EMBEDDER, GOLDEN, KERAS_MODEL, Manifest, read_manifest
from dedup_job.kernels.golden import Golden, read_golden
from dedup_job.kernels.keras_archive import check_keras_archive

Vectors = NDArray[np.float32]
Photos = NDArray[np.uint8]
RUNTIMES = ("litert", "tensorflow")

# Between what other roundings cost and what a zeroed kernel costs, as measured on the default bundle
# (docs/adr/0017): LiteRT's three kernel sets, and Keras in float, agree to 0.9988; the zeroed kernel
# that matters least leaves 0.9945 in int8 and 0.9954 in float.
GOLDEN_MIN_COSINE = 0.9975


class Network(Protocol):
    """The raw network: uint8 (n, size, size, 3) RGB to float32 (n, dim), any norm."""

    def __call__(self, photos: Photos) -> Vectors:
        """Run the network on one batch."""


class Embedder:
    """Computes embeddings as the bundle's manifest promises them.

    Attributes:
        manifest: the bundle's contract (`dim`, `input_px`, `blur_sigma_px`, `model_id`).
    """

    def __init__(self, manifest: Manifest, network: Network) -> None:
        self.manifest = manifest
        self._network = network

    def embed(self, photos: Photos) -> Vectors:
        """Embed prepared photos.

        Args:
            photos: uint8 (n, input_px, input_px, 3) RGB, from `kernels.images.prepare`.

        Returns:
            float32 (n, dim), unit L2 norm. A row the network could not embed (not finite, or
            zero) is all NaN; the caller rejects that photo.
        """
        raw = np.asarray(self._network(photos), dtype=np.float32)
        if raw.shape != (len(photos), self.manifest.dim):
            raise ModelContractError(
                f"model gave shape {raw.shape}, its manifest promises ({len(photos)}, {self.manifest.dim})"
            )
        return to_unit_rows(raw)


def to_unit_rows(raw: Vectors) -> Vectors:
    """Scale rows to unit L2 norm; rows that are zero or not finite become NaN."""
    norms = np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 1e-12)
    unit = raw / np.where(usable, norms, 1.0)
    return np.where(usable, unit, np.nan).astype(np.float32)


def load_embedder(directory: Path, runtime: str = "litert", n_threads: int = 1) -> Embedder:
    """Load a bundle, verify its hashes, and compare golden vectors.

    Args:
        directory: the bundle.
        runtime: "litert" (int8) or "tensorflow" (the Keras model, float).
        n_threads: threads one call may use.

    Raises:
        ModelContractError: the bundle is not what it promises.
        ConfigError: unknown runtime, or TensorFlow is not installed.
    """
    manifest = read_manifest(directory)
    if runtime == "litert":
        network: Network = LiteRtNetwork(directory / EMBEDDER, n_threads)
    elif runtime == "tensorflow":
        if KERAS_MODEL not in manifest.files:
            raise ModelContractError(
                f"model bundle {directory} has no {KERAS_MODEL}; model.runtime=tensorflow needs it"
            )
        network = _load_keras_network(directory / KERAS_MODEL, n_threads)
    else:
        raise ConfigError(f"model.runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}")
    embedder = Embedder(manifest, network)
    compare_golden(embedder, read_golden(directory / GOLDEN, manifest), runtime)
    return embedder


def compare_golden(embedder: Embedder, golden: Golden, runtime: str) -> None:
    """Check that a network makes of the bundle's pictures what it made of them at export.

    Raises:
        ModelContractError: it does not, or it cannot run them.
    """
    try:
        got = embedder.embed(golden.images)
    except (ValueError, RuntimeError) as error:
        raise ModelContractError(
            f"model bundle: the network cannot run its golden pictures: {one_line(error)}"
        ) from None
    cosine = float(np.min(np.sum(got * to_unit_rows(golden.of_runtime(runtime)), axis=1)))
    # `not >=` so that NaN fails too.
    if not cosine >= GOLDEN_MIN_COSINE:
        raise ModelContractError(
            f"model bundle {embedder.manifest.model_id[:12]}: golden embeddings differ (cosine "
            f"{cosine:.4f}, needs {GOLDEN_MIN_COSINE}); the network is damaged or computes "
            f"differently here (runtime {runtime})"
        )


class LiteRtNetwork:
    """One LiteRT interpreter at batch 1, which is the fastest shape on one CPU thread.

    The file is memory-mapped by LiteRT, so worker processes of one host share its pages.
    """

    def __init__(self, path: Path, n_threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with _silenced_stderr():
                self._interpreter = Interpreter(model_path=str(path), num_threads=n_threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelContractError(f"{path.name} cannot be loaded: {error}") from None
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        if self._input["dtype"] is not np.uint8 or self._output["dtype"] is not np.float32:
            raise ModelContractError(
                f"{path.name} must take uint8 and give float32; it takes "
                f"{self._input['dtype'].__name__} and gives {self._output['dtype'].__name__}"
            )

    def __call__(self, photos: Photos) -> Vectors:
        """Run the network photo by photo."""
        rows = [self._embed_one(photo) for photo in photos]
        return np.stack(rows) if rows else np.zeros((0, self._output["shape"][-1]), np.float32)

    def _embed_one(self, photo: Photos) -> Vectors:
        self._interpreter.set_tensor(self._input["index"], photo[None])
        self._interpreter.invoke()
        vector: Vectors = self._interpreter.get_tensor(self._output["index"])[0]
        return vector


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Keep LiteRT from announcing its CPU delegate in every worker's log.

    It writes from C++ and has no switch for it; problems come as exceptions.
    """
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def load_keras_model(path: Path) -> Any:
    """Load a `.keras` file of stock layers, for inference. Nothing else here loads one.

    Raises:
        ModelContractError: see `check_keras_archive`; or Keras refuses it (code in the file, a
            missing weight group, a layer it does not know).
        ConfigError: TensorFlow is not installed.
    """
    check_keras_archive(path)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    _import_tensorflow()
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises what its parts raise: there is no common class
        # Of a layer within a model Keras says first which model, at length, and then what was wrong.
        cause = " ".join(str(error).split()).rpartition("Exception encountered: ")[2]
        raise ModelContractError(
            f"{path} cannot be loaded: {cause[:200] or one_line(error)}"
        ) from None


def _import_tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError:
        raise ConfigError(
            "model.runtime=tensorflow needs TensorFlow: pip install 'catalog-dedup[train]'"
        ) from None
    return tf


def _load_keras_network(path: Path, n_threads: int) -> Network:
    tf = _import_tensorflow()
    with suppress(RuntimeError):  # it already runs here; its thread pools cannot change any more
        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    # An exported model holds stock Keras layers only, so executors need no model_training.
    model = load_keras_model(path)

    @tf.function(reduce_retracing=True)
    def forward(photos: Any) -> Any:
        return model(tf.cast(photos, tf.float32), training=False)

    return lambda photos: np.asarray(forward(tf.constant(photos)))
