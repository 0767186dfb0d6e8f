"""Photos of a user, seen as the nightly job sees them: one decoder, one model, one calibration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError, ImageRejected
from dedup_job.io.bundles import locate_bundle
from dedup_job.io.decoding import decoder_opener
from dedup_job.io.manifests import RunManifest
from dedup_job.kernels.calibration import Calibration, read_calibration
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.neighbours import Vectors


class PhotoModel:
    """The model of a bundle, ready for photos from files.

    Args:
        bundle: as `--model`.

    Raises:
        ModelContractError, ConfigError: as of a run.
    """

    def __init__(self, bundle: str) -> None:
        directory = locate_bundle(bundle)
        self._embedder = load_embedder(directory)
        manifest = self._embedder.manifest
        self.model_id = manifest.model_id
        self.calibration: Calibration = read_calibration(directory, manifest.model_id)
        self._decoder = decoder_opener(JobConfig())(manifest.input_px, manifest.blur_sigma_px)

    def check_run(self, manifest: RunManifest) -> None:
        """Raise ConfigError where a run used another model: its cosines would mean something else."""
        used = manifest.facts["model_id"]
        if used != self.model_id:
            raise ConfigError(
                f"run {manifest.run_id} used model {used[:12]}, this is {self.model_id[:12]}; "
                "give its bundle with --model BUNDLE"
            )

    def probability(self, cosine: float) -> float:
        """That two photos of this cosine show one product."""
        return float(self.calibration.match_probability(np.array([cosine]))[0])

    def prepare(self, path: Path) -> Pixels:
        """uint8 (size, size, 3) RGB, as the model takes it.

        Raises:
            ConfigError: the file cannot be read, or is no usable photo.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"photo {path}: {error.strerror}") from None
        try:
            return self.prepare_bytes(data)
        except ImageRejected as rejected:
            raise ConfigError(
                f"photo {path} cannot be used: {rejected.reason}: {rejected.detail}"
            ) from None

    def prepare_bytes(self, data: bytes) -> Pixels:
        """As `prepare`, of a file's bytes; raises ImageRejected."""
        return self._decoder.prepare(data).pixels

    def embed(self, paths: Sequence[Path]) -> Vectors:
        """float32 (n, d), unit L2 norm; raises as `prepare`."""
        return self.embed_pixels(np.stack([self.prepare(path) for path in paths]))

    def embed_pixels(self, pixels: Pixels) -> Vectors:
        """float32 (n, d), unit L2 norm, of uint8 (n, size, size, 3)."""
        return self._embedder.embed(pixels)
