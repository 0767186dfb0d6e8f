"""Photos of a user, seen as the nightly job sees them: one decoder, one model, one judgement of a pair."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError, ImageRejected
from dedup_job.io.bundles import locate_bundle
from dedup_job.io.decoding import decoder_opener
from dedup_job.io.manifests import RunManifest, verifier_of
from dedup_job.kernels.bundle import Manifest
from dedup_job.kernels.calibration import Calibration, read_calibration, read_score_calibration
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.neighbours import Vectors
from dedup_job.kernels.pictures import pack_picture, unpack_picture
from dedup_job.kernels.verifier import Described, describe
from dedup_job.kernels.verifier_model import load_verifier

_PHOTOS_AT_HAND = 64


class Shown(NamedTuple):
    """What a pair is verified by, of one photo. `picture`: None where it is not to be verified."""

    content_sha256: str
    picture: bytes | None


@dataclass(frozen=True)
class Photo:
    """A photo of a user.

    Attributes:
        content_sha256: of its file.
        pixels: uint8 (size, size, 3) RGB, as the model takes it.
        embedding: float32 (d,), unit L2 norm.
    """

    content_sha256: str
    pixels: Pixels
    embedding: Vectors

    @cached_property
    def shown(self) -> Shown:
        """As the job would keep it."""
        return Shown(self.content_sha256, pack_picture(self.pixels))


@dataclass(frozen=True)
class Likeness:
    """How alike two photos are.

    Attributes:
        cosine: of their embeddings.
        score: what a threshold acts on: the verifier's or, where no pairs are verified, the cosine; None
            where the job would not have verified this pair, so that it matches nothing.
        probability: that they show one product.
    """

    cosine: float
    score: float | None
    probability: float

    @property
    def rank(self) -> tuple[bool, float, float]:
        """The most alike first: by score, then, of those without one, by cosine."""
        return self.score is None, -(self.score or 0.0), -self.cosine


# The job compares no file with itself: SKUs that share one match, whatever it shows.
_SAME_FILE = Likeness(1.0, 1.0, 1.0)


def cosine_of(a: Photo, b: Photo) -> float:
    """The cosine of two photos' embeddings."""
    return float(np.clip(a.embedding.astype(np.float64) @ b.embedding, -1.0, 1.0))


class PhotoModel:
    """The model of a bundle, ready for photos from files.

    Args:
        bundle: as `--model`.
        run: whose judgement of pairs is asked for; without one every pair is verified, if the bundle has a
            verifier.

    Raises:
        ModelContractError, ConfigError: as of a run; or `run` used another model or verifier.
    """

    def __init__(self, bundle: str, run: RunManifest | None = None) -> None:
        directory = locate_bundle(bundle)
        self._embedder = load_embedder(directory)
        manifest = self._embedder.manifest
        self._decoder = decoder_opener(JobConfig())(manifest.input_px, manifest.blur_sigma_px)
        self._calibration = read_calibration(directory, manifest.model_id)
        self._verifier, self._scores, self._floor_cosine = None, self._calibration, -1.0
        if run is not None:
            check_run(manifest, run)
            if verifier_of(run.facts) is None:
                return
            self._floor_cosine = float(run.facts["min_cosine"])
        if manifest.has_verifier:
            self._verifier = load_verifier(directory)
            self._scores = read_score_calibration(directory, manifest.model_id)

    @property
    def verifies(self) -> bool:
        """Whether scores are the verifier's; otherwise they are cosines."""
        return self._verifier is not None

    def would_verify(self, cosine: float) -> bool:
        """Whether a pair of this cosine is verified."""
        return self.verifies and cosine >= self._floor_cosine

    def likeness(self, cosine: float, a: Shown, b: Shown) -> Likeness:
        """How alike two photos are, as the job judges it; some 8 ms where the pair is verified."""
        if a.content_sha256 == b.content_sha256:
            return _SAME_FILE
        if self._verifier is None:
            return Likeness(cosine, cosine, _probability(self._calibration, cosine))
        # The job's order: which photo is laid over which decides the last digits.
        first, second = sorted((a, b), key=lambda shown: shown.content_sha256)
        if first.picture is None or second.picture is None or not self.would_verify(cosine):
            return Likeness(cosine, None, _probability(self._calibration, cosine))
        answer = self._verifier.answer(_described(first.picture), _described(second.picture))
        score = float(self._verifier.score([answer], [cosine])[0])
        return Likeness(cosine, score, _probability(self._scores, score))

    def open(self, path: Path) -> Photo:
        """The photo of a file.

        Raises:
            ConfigError: the file cannot be read, or is no usable photo.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"photo {path}: {error.strerror}") from None
        try:
            return self.see(data)
        except ImageRejected as rejected:
            raise ConfigError(
                f"photo {path} cannot be used: {rejected.reason}: {rejected.detail}"
            ) from None

    def see(self, data: bytes) -> Photo:
        """As `open`, of a file's bytes; raises ImageRejected."""
        pixels = self._decoder.prepare(data).pixels
        [embedding] = self.embed_pixels(pixels[None])
        return Photo(hashlib.sha256(data).hexdigest(), pixels, embedding)

    def embed_pixels(self, pixels: Pixels) -> Vectors:
        """float32 (n, d), unit L2 norm, of uint8 (n, size, size, 3)."""
        return self._embedder.embed(pixels)


def check_run(bundle: Manifest, run: RunManifest) -> None:
    """Raise ConfigError where a run used another model or verifier: its figures would mean something else."""
    used = run.facts["model_id"]
    if used != bundle.model_id:
        raise ConfigError(
            f"run {run.run_id} used model {used[:12]}, this is {bundle.model_id[:12]}; "
            "give its bundle with --model BUNDLE"
        )
    verifier, own = verifier_of(run.facts), bundle.verifier_id
    if verifier is not None and verifier != own:
        raise ConfigError(
            f"run {run.run_id} verified pairs with verifier {verifier[:12]}, the bundle has "
            f"{own[:12] if own else 'none'}; give the run's bundle with --model BUNDLE"
        )


def _probability(calibration: Calibration, value: float) -> float:
    return float(calibration.match_probability(np.array([value]))[0])


@lru_cache(maxsize=_PHOTOS_AT_HAND)
def _described(picture: bytes) -> Described:
    return describe(unpack_picture(picture))
