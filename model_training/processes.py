"""Pools of processes that each keep to one core."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import Any

import cv2

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def open_pool(n_processes: int, start: Callable[..., None], arguments: Any) -> Iterator[Pool]:
    """A pool of fresh processes, each of one thread.

    Libraries read how many threads they may start when they are imported. Left alone, each process would
    start one for every core, and they would wait for each other: verifying took three times as long.

    Args:
        n_processes: how many.
        start: runs once in each of them.
        arguments: of `start`.
    """
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        pool = get_context("spawn").Pool(n_processes, _begin, (start, arguments))
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    with pool:
        yield pool


def _begin(start: Callable[..., None], arguments: Any) -> None:
    cv2.setNumThreads(1)
    start(*arguments)
