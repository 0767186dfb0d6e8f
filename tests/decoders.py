"""Decoders for tests: one without a process of its own, and photos that kill the one that has."""

from pathlib import Path

from dedup_job.errors import ImageRejected
from dedup_job.kernels import images
from tests.photos import jpeg

POISON_PATH = str(Path(__file__).parent / "poison")  # must be on a worker's Python path


class InProcessDecoder:
    """`kernels.images` as it is."""

    def __init__(self, size_px, blur_sigma_px):
        self._settings = (size_px, blur_sigma_px)

    def prepare_all(self, photos):
        return [self._prepare(data) for data in photos]

    def _prepare(self, data):
        try:
            return images.prepare(data, *self._settings)
        except ImageRejected as rejected:
            return rejected

    def measure(self, data):
        return images.measure(data)


def poison(word, seed=0):
    """A photo like any other, where `POISON_PATH` is not; else see poison/sitecustomize.py."""
    return jpeg(seed) + b"POISON:" + word.encode()
