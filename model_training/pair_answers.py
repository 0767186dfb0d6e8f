"""What a verifier's network answers on many pairs of views, by several processes."""

from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.kernels.images import Pixels
from dedup_job.kernels.model import LiteRtNetwork
from dedup_job.kernels.verifier import Described, describe_stored, lay_pair, mean_answer
from model_training.processes import open_pool

_PAIRS_PER_PART = 200


def answer_pairs(
    network: Path, views: Pixels, a: np.ndarray, b: np.ndarray, n_processes: int = 2
) -> np.ndarray:
    """Answers on pairs of views, each view stored and read again as the job's are.

    Args:
        network: a `verifier.tflite`.
        views: uint8 (n, size, size, 3), prepared.
        a: int (p,), rows of `views`; pairs of one photo should lie together.
        b: int (p,).
        n_processes: that share the work.

    Returns:
        float64 (p,), logarithms of odds.
    """
    parts = [slice(i, i + _PAIRS_PER_PART) for i in range(0, len(a), _PAIRS_PER_PART)]
    rows = [(a[part], b[part]) for part in parts]
    with open_pool(n_processes, _open, (network, views)) as pool:
        return np.concatenate([np.zeros(0), *pool.map(_answer_part, rows)])


_opened: dict[str, Any] = {}


def _open(network: Path, views: Pixels) -> None:
    _opened.update(network=LiteRtNetwork(network, 1), views=views, described={})


def _answer_part(rows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    network = _opened["network"]
    answers = [
        mean_answer(list(network(lay_pair(_described(int(i)), _described(int(j))))))
        for i, j in zip(*rows, strict=True)
    ]
    return np.array(answers)


def _described(row: int) -> Described:
    known: dict[int, Described] = _opened["described"]
    if row not in known:
        known[row] = describe_stored(_opened["views"][row])
    return known[row]
