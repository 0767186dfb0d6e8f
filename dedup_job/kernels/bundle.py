"""The model bundle: a directory that carries the network and its contract.

Files: `embedder.tflite`, `model.keras`, `manifest.json`, `calibration.json`, `golden.npz`. The
manifest lists the SHA-256 and size of every other file; `model_id` names what is computed: the
embedder's bytes, input size, blur and preprocessing version. Two bundles with one `model_id`
produce the same embeddings, whatever else differs (calibration, measured quality).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError, ModelContractError
from dedup_job.kernels.images import PREPROCESSING_VERSION

BUNDLE_FORMAT = 1
EMBEDDER = "embedder.tflite"
KERAS_MODEL = "model.keras"
CALIBRATION = "calibration.json"
GOLDEN = "golden.npz"
MANIFEST = "manifest.json"
# A bundle is tens of megabytes; anything far larger is a mistake or a zip bomb.
_MAX_FILE_BYTES = 500_000_000


@dataclass(frozen=True)
class Manifest:
    """What a bundle promises. `blur_sigma_px` is in pixels of the `input_px` square."""

    model_id: str
    dim: int
    input_px: int
    blur_sigma_px: float
    preprocessing_version: int
    files: dict[str, dict[str, Any]]
    raw: dict[str, Any]


def compute_model_id(embedder_sha256: str, input_px: int, blur_sigma_px: float) -> str:
    """SHA-256 (64 hex digits) over everything that decides an embedding."""
    identity = json.dumps(
        {
            "embedder_sha256": embedder_sha256,
            "input_px": int(input_px),
            "blur_sigma_px": float(blur_sigma_px),
            "preprocessing_version": PREPROCESSING_VERSION,
        },
        sort_keys=True,
    )
    return hashlib.sha256(identity.encode()).hexdigest()


def write_manifest(
    directory: Path, *, dim: int, input_px: int, blur_sigma_px: float, facts: dict[str, Any]
) -> Manifest:
    """Hash the files of a bundle directory and write its manifest, the last step of an export.

    Args:
        directory: holds at least `embedder.tflite`, `calibration.json` and `golden.npz`.
        dim: length of an embedding.
        input_px: side of the input square.
        blur_sigma_px: see `kernels.images.prepare`.
        facts: everything else worth keeping: library versions, data fingerprint, quality.
    """
    files: dict[str, dict[str, Any]] = {
        path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name != MANIFEST
    }
    content = {
        **facts,
        "bundle_format": BUNDLE_FORMAT,
        "model_id": compute_model_id(files[EMBEDDER]["sha256"], input_px, blur_sigma_px),
        "dim": dim,
        "input_px": input_px,
        "blur_sigma_px": blur_sigma_px,
        "preprocessing_version": PREPROCESSING_VERSION,
        "files": files,
    }
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")
    return read_manifest(directory)


def read_manifest(directory: Path) -> Manifest:
    """Read a manifest and check it against this code and against the files beside it.

    Raises:
        ConfigError: the directory holds no manifest: it is no bundle.
        ModelContractError: missing or altered file, other preprocessing version, wrong model_id.
    """
    path = directory / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(
            model_id=str(raw["model_id"]),
            dim=int(raw["dim"]),
            input_px=int(raw["input_px"]),
            blur_sigma_px=float(raw["blur_sigma_px"]),
            preprocessing_version=int(raw["preprocessing_version"]),
            files=dict(raw["files"]),
            raw=raw,
        )
    except FileNotFoundError:
        raise ConfigError(
            f"model.bundle {directory} has no {MANIFEST}; --model takes a bundle directory"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST} is damaged ({error!r})"
        ) from None
    _check(directory, manifest)
    return manifest


def _check(directory: Path, manifest: Manifest) -> None:
    if manifest.raw.get("bundle_format") != BUNDLE_FORMAT:
        raise ModelContractError(
            f"model bundle {directory} has format {manifest.raw.get('bundle_format')}, "
            f"this version reads {BUNDLE_FORMAT}; export it again"
        )
    if manifest.preprocessing_version != PREPROCESSING_VERSION:
        raise ModelContractError(
            f"model bundle {directory} was trained with preprocessing version "
            f"{manifest.preprocessing_version}, this version is {PREPROCESSING_VERSION}; "
            "retrain it, or install the package version it was trained with"
        )
    for name in (EMBEDDER, CALIBRATION, GOLDEN):
        if name not in manifest.files:
            raise ModelContractError(f"model bundle {directory}: {MANIFEST} does not list {name}")
    for name, fact in manifest.files.items():
        # Executors on LiteRT are not sent the Keras model; whoever loads it asks for it by name.
        if name != KERAS_MODEL or (directory / name).exists():
            _check_file(directory, name, fact)
    expected = compute_model_id(
        manifest.files[EMBEDDER]["sha256"], manifest.input_px, manifest.blur_sigma_px
    )
    if expected != manifest.model_id:
        raise ModelContractError(
            f"model bundle {directory}: model_id does not match embedder, input size and blur"
        )


def _check_file(directory: Path, name: str, fact: dict[str, Any]) -> None:
    path = directory / name
    if Path(name).name != name or not path.is_file():
        raise ModelContractError(f"model bundle {directory}: file {name} is missing")
    size = path.stat().st_size
    if size != fact.get("bytes") or size > _MAX_FILE_BYTES:
        raise ModelContractError(
            f"model bundle {directory}: {name} has {size} bytes, the manifest says {fact.get('bytes')}"
        )
    if sha256_of(path) != fact.get("sha256"):
        raise ModelContractError(f"model bundle {directory}: {name} was altered (SHA-256 differs)")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
