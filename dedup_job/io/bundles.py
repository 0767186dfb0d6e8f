"""Model bundles: found on the driver, shipped to executors, loaded once per worker process."""

import atexit
import importlib.resources
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
from pyspark import SparkFiles
from pyspark.sql import SparkSession

from dedup_job.errors import ModelContractError
from dedup_job.kernels.bundle import KERAS_MODEL, MANIFEST, VERIFIER_KERAS, Manifest
from dedup_job.kernels.champion import read_champion
from dedup_job.kernels.model import Embedder, load_embedder
from dedup_job.kernels.verifier_model import Verifier, load_verifier


@dataclass(frozen=True)
class ShippedBundle:
    """How a worker finds the bundle: unpacked under `name` among the files Spark distributes."""

    name: str
    runtime: str


def locate_bundle(bundle: str) -> Path:
    """The bundle directory on this machine.

    Args:
        bundle: a bundle's directory; a model registry, of which the champion is taken; or empty for
            the default bundle that ships with the package. A package imported from a zip
            (`--py-files`) is unpacked to a temporary directory.

    Raises:
        ConfigError: a registry whose champion cannot be found.
    """
    if bundle:
        directory = Path(bundle).expanduser().absolute()
        return read_champion(directory) or directory
    packed = importlib.resources.files("dedup_job").joinpath("models", "default")
    if isinstance(packed, Path):
        return packed
    unpacked = Path(tempfile.mkdtemp(prefix="dedup-bundle-"))
    atexit.register(shutil.rmtree, unpacked, ignore_errors=True)
    for entry in packed.iterdir():
        (unpacked / entry.name).write_bytes(entry.read_bytes())
    return unpacked


def ship_bundle(
    spark: SparkSession, directory: Path, manifest: Manifest, runtime: str
) -> ShippedBundle:
    """Hand a bundle to Spark for every executor; each verifies it again when it loads it.

    Args:
        spark: the session.
        directory: a bundle.
        manifest: its manifest, as it was verified.
        runtime: what executors run it on; the driver need not have it.

    Raises:
        ModelContractError: `runtime` is tensorflow and the bundle holds no Keras model.
    """
    if runtime == "tensorflow" and not (
        KERAS_MODEL in manifest.files and (directory / KERAS_MODEL).is_file()
    ):
        raise ModelContractError(
            f"model bundle {directory} has no {KERAS_MODEL}; model.runtime=tensorflow needs it"
        )
    # A verifier trained anew has the same model_id: workers must not take the one they loaded before.
    verifier = f"-{manifest.verifier_id[:16]}" if manifest.verifier_id else ""
    name = f"bundle-{manifest.model_id[:16]}{verifier}-{runtime}"
    if not (Path(SparkFiles.getRootDirectory()) / name).is_dir():
        skip = {VERIFIER_KERAS} | (set() if runtime == "tensorflow" else {KERAS_MODEL})
        # Executors ask for the archive when their first task starts: it must outlive this call.
        temporary = Path(tempfile.mkdtemp(prefix="dedup-bundle-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        archive = temporary / f"{name}.zip"
        _zip(directory, [*manifest.files, MANIFEST], archive, skip)
        spark.addArtifacts(f"{archive}#{name}", archive=True)
    return ShippedBundle(name, runtime)


@lru_cache(maxsize=2)
def load_shipped(bundle: ShippedBundle, n_threads: int = 1) -> Embedder:
    """On a worker: load the bundle, once per process however many tasks it runs."""
    return load_embedder(_shipped_directory(bundle), bundle.runtime, n_threads)


@lru_cache(maxsize=2)
def load_shipped_verifier(bundle: ShippedBundle, n_threads: int = 1) -> Verifier:
    """As `load_shipped`, the pair verifier; OpenCV, which lays pairs over each other, gets its threads."""
    # Left alone it takes one for every core of the machine, and heeds no OMP_NUM_THREADS.
    cv2.setNumThreads(n_threads)
    verifier = load_verifier(_shipped_directory(bundle), n_threads)
    if verifier is None:
        raise ModelContractError(f"{bundle.name} has no verifier")
    return verifier


def _shipped_directory(bundle: ShippedBundle) -> Path:
    directory = Path(SparkFiles.getRootDirectory()) / bundle.name
    if not directory.is_dir():
        raise ModelContractError(f"executor has no {bundle.name}; was the job's archive removed?")
    return directory


def _zip(directory: Path, names: list[str], archive: Path, skip: set[str]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name in names:
            if name not in skip:
                packed.write(directory / name, name)
