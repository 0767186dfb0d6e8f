"""A bundle that verifies pairs by a network of one line of NumPy: for tests in one process, without TensorFlow."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from dedup_job.kernels import verifier_model
from dedup_job.kernels.bundle import VERIFIER
from dedup_job.kernels.verifier import PAIR_CHANNELS
from model_training import pair_answers
from tests import bundles_with_verifier

_APART = slice(6, 9)  # channels of `kernels.verifier`: how the two differ
_RULE = {"bias": 0.0, "answer_weight": 0.5, "cosine_weight": 2.0}


class GreyLevels:
    """A network that knows how many grey levels the two differ by, and nothing else."""

    def __init__(self, path, n_threads):
        assert path.name == VERIFIER

    def __call__(self, pair):
        apart = pair[..., _APART].astype(np.float32).mean(axis=(1, 2, 3))
        return (20.0 - 2.0 * apart)[:, None]


def verifying_bundle(folder, patch, *, name="verifier"):
    """A bundle whose verifier is `GreyLevels`; another name is another verifier of the same model.

    Args:
        folder: gets the bundle.
        patch: a MonkeyPatch; while it lasts, every verifier is `GreyLevels`.
        name: stands in the file of the network, so that its hash differs.
    """
    for module in (verifier_model, bundles_with_verifier):
        patch.setattr(module, "LiteRtNetwork", GreyLevels)
    return bundles_with_verifier.write_bundle(folder / "bundle", name.encode(), _RULE)


def look_in_this_process(patch):
    """While the patch lasts, `model_training` answers by `GreyLevels` too: in threads, photos as they lie."""
    patch.setattr(pair_answers, "open_pool", _in_threads)
    patch.setattr(pair_answers, "LiteRtNetwork", GreyLevels)
    patch.setattr(pair_answers, "lay_pair", _as_they_lie)


def _in_threads(n, start, arguments):
    return ThreadPoolExecutor(n, initializer=start, initargs=arguments)


def grey_answer(first, second):
    """What `GreyLevels` says of two photos as they lie, by hand."""
    return 20.0 - 2.0 * float(cv2.absdiff(first, second).mean())


def grey_score(answer, cosine):
    """The score of such a bundle, by hand."""
    return 1 / (
        1 + np.exp(-(_RULE["answer_weight"] * answer + _RULE["cosine_weight"] * cosine) / 4)
    )


def _as_they_lie(a, b):
    frames = np.zeros((2, *a.pixels.shape[:2], PAIR_CHANNELS), np.uint8)
    frames[..., _APART] = cv2.absdiff(a.pixels, b.pixels)
    return frames
