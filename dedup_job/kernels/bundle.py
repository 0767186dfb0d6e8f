"""The model bundle: a directory that carries the network and its contract.

Files: `embedder.tflite`, `model.keras`, `manifest.json`, `calibration.json`, `golden.npz`. The
manifest lists the SHA-256 and size of every other file; `model_id` names what is computed: the
embedder's bytes, input size, blur and preprocessing version. Two bundles with one `model_id`
produce the same embeddings, whatever else differs (calibration, measured quality).

With a pair verifier (docs/adr/0027) there are `verifier.tflite`, `verifier.keras` and
`score_calibration.json` too, and what is kept of a photo is its embedding and a picture of it: such a
model_id differs from the one without.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError, ModelContractError, one_line
from dedup_job.kernels.alignment import ALIGNMENT_VERSION
from dedup_job.kernels.images import PREPROCESSING_VERSION
from dedup_job.kernels.pictures import PICTURE_VERSION

BUNDLE_FORMAT = 1
EMBEDDER = "embedder.tflite"
KERAS_MODEL = "model.keras"
CALIBRATION = "calibration.json"
VERIFIER = "verifier.tflite"
VERIFIER_KERAS = "verifier.keras"
SCORE_CALIBRATION = "score_calibration.json"
GOLDEN = "golden.npz"
MANIFEST = "manifest.json"
# A bundle is tens of megabytes, its manifest kilobytes; anything far larger is a mistake or an attack.
MAX_BUNDLE_BYTES = 500_000_000
_MAX_MANIFEST_BYTES = 4_000_000
# Files that are read whole.
_MAX_FILE_BYTES = {
    CALIBRATION: 16_000_000,
    SCORE_CALIBRATION: 16_000_000,
    GOLDEN: 64_000_000,
}
# What only trains and evaluates; executors are not sent it.
_NOT_SHIPPED = {KERAS_MODEL, VERIFIER_KERAS}
_MAX_DIM, _MAX_INPUT_PX = 8_192, 2_048
_COMPUTED = ("bundle_format", "model_id", "dim", "input_px", "blur_sigma_px",
             "preprocessing_version", "files")  # fmt: skip


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

    @property
    def facts(self) -> dict[str, Any]:
        """What an export was told, without what `write_manifest` computes."""
        return {key: value for key, value in self.raw.items() if key not in _COMPUTED}

    @property
    def has_verifier(self) -> bool:
        """Whether the bundle verifies pairs."""
        return VERIFIER in self.files

    @property
    def verified_from(self) -> float:
        """Cosine of the least alike pairs that the calibration of scores counted; of a bundle with a verifier."""
        return float(self.raw["verifier"]["floor_cosine"])

    @property
    def verifier_id(self) -> str | None:
        """SHA-256 (64 hex digits) of what decides a pair's score; None without a verifier."""
        if not self.has_verifier:
            return None
        facts = [
            self.model_id,
            self.files[VERIFIER]["sha256"],
            self.raw.get("verifier", {}).get("rule"),
            ALIGNMENT_VERSION,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def compute_model_id(
    embedder_sha256: str, input_px: int, blur_sigma_px: float, *, with_verifier: bool = False
) -> str:
    """SHA-256 (64 hex digits) over everything that decides what is kept of a photo.

    Args:
        embedder_sha256: of `embedder.tflite`.
        input_px: side of the input square.
        blur_sigma_px: see `kernels.images.prepare`.
        with_verifier: whether a picture is kept beside the embedding; whichever verifier reads it.
    """
    identity = {
        "embedder_sha256": embedder_sha256,
        "input_px": int(input_px),
        "blur_sigma_px": float(blur_sigma_px),
        "preprocessing_version": PREPROCESSING_VERSION,
        **({"picture_version": PICTURE_VERSION} if with_verifier else {}),
    }
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
        "model_id": compute_model_id(
            files[EMBEDDER]["sha256"], input_px, blur_sigma_px, with_verifier=VERIFIER in files
        ),
        "dim": dim,
        "input_px": input_px,
        "blur_sigma_px": blur_sigma_px,
        "preprocessing_version": PREPROCESSING_VERSION,
        "files": files,
    }
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")
    return read_manifest(directory)


def renew_manifest(directory: Path, old: Manifest, facts: dict[str, Any]) -> Manifest:
    """Write the manifest of a bundle whose files changed, but not how it prepares photos."""
    return write_manifest(
        directory,
        dim=old.dim,
        input_px=old.input_px,
        blur_sigma_px=old.blur_sigma_px,
        facts=facts,
    )


def read_manifest(directory: Path) -> Manifest:
    """Read a manifest and check it against this code and against the files beside it.

    Files may be symbolic links (stores of shared files and mounted volumes are made of them): what
    counts is their content.

    Raises:
        ConfigError: the directory holds no manifest: it is no bundle.
        ModelContractError: missing, altered or oversized file, other preprocessing version, wrong
            model_id, or a manifest that is damaged.
    """
    manifest = _parse(directory, _read_small(directory))
    _check(directory, manifest)
    return manifest


def _read_small(directory: Path) -> bytes:
    path = directory / MANIFEST
    if not path.is_file():
        raise ConfigError(
            f"model.bundle {directory} has no {MANIFEST}; --model takes a bundle directory, or a model "
            "registry that has a champion"
        )
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST} cannot be read: {error.strerror}"
        ) from None
    if len(data) > _MAX_MANIFEST_BYTES:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes"
        )
    return data


def _parse(directory: Path, data: bytes) -> Manifest:
    try:
        raw = json.loads(data)
        files = {str(name): dict(fact) for name, fact in raw["files"].items()}
        manifest = Manifest(
            model_id=str(raw["model_id"]),
            dim=int(raw["dim"]),
            input_px=int(raw["input_px"]),
            blur_sigma_px=float(raw["blur_sigma_px"]),
            preprocessing_version=int(raw["preprocessing_version"]),
            files=files,
            raw=raw,
        )
    # Numbers may overflow, and brackets nest deeper than Python's stack.
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST} is damaged ({type(error).__name__}: "
            f"{one_line(error)})"
        ) from None
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
    for name, value, least, most in (
        ("dim", manifest.dim, 1, _MAX_DIM),
        ("input_px", manifest.input_px, 1, _MAX_INPUT_PX),
        ("blur_sigma_px", manifest.blur_sigma_px, 0, manifest.input_px),
    ):
        if not least <= value <= most:
            raise ModelContractError(
                f"model bundle {directory}: {name} is {value}, expected {least} to {most}"
            )
    for name in (EMBEDDER, CALIBRATION, GOLDEN):
        if name not in manifest.files:
            raise ModelContractError(f"model bundle {directory}: {MANIFEST} does not list {name}")
    # Executors on LiteRT are not sent the Keras models; whoever loads one asks for it by name.
    files = {
        name: fact
        for name, fact in manifest.files.items()
        if name not in _NOT_SHIPPED or (directory / name).exists()
    }
    _check_sizes(directory, files)
    for name, fact in files.items():
        if sha256_of(directory / name) != fact.get("sha256"):
            raise ModelContractError(
                f"model bundle {directory}: {name} was altered (SHA-256 differs)"
            )
    if manifest.has_verifier and SCORE_CALIBRATION not in manifest.files:
        raise ModelContractError(
            f"model bundle {directory}: {MANIFEST} lists {VERIFIER} without {SCORE_CALIBRATION}; run "
            "`model-training verifier`"
        )
    expected = compute_model_id(
        manifest.files[EMBEDDER]["sha256"],
        manifest.input_px,
        manifest.blur_sigma_px,
        with_verifier=manifest.has_verifier,
    )
    if expected != manifest.model_id:
        raise ModelContractError(
            f"model bundle {directory}: model_id does not match embedder, input size and blur"
        )


def _check_sizes(directory: Path, files: dict[str, dict[str, Any]]) -> None:
    """Names and sizes of all files, before any of them is read."""
    total = 0
    for name, fact in files.items():
        if not is_plain_name(name):
            raise ModelContractError(
                f"model bundle {directory}: {MANIFEST} lists {name[:80]!a}; "
                "expected the name of a file beside it"
            )
        path = directory / name
        if not path.is_file():
            raise ModelContractError(f"model bundle {directory}: file {name} is missing")
        size = path.stat().st_size
        if size != fact.get("bytes"):
            raise ModelContractError(
                f"model bundle {directory}: {name} has {size} bytes, the manifest says "
                f"{fact.get('bytes')}"
            )
        total += size
        most = _MAX_FILE_BYTES.get(name, MAX_BUNDLE_BYTES)
        if size > most or total > MAX_BUNDLE_BYTES:
            raise ModelContractError(
                f"model bundle {directory}: {name} has {size} bytes, all files so far {total}; "
                f"that is no bundle (at most {most}, and {MAX_BUNDLE_BYTES} in all)"
            )


def is_plain_name(name: str) -> bool:
    """Whether a name can only mean a file directly in a folder, on any system."""
    return (
        name not in ("", ".", "..")
        and name.isprintable()
        and not set(name) & set("/\\:")
        and len(name) <= 100
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
