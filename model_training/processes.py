"""Pools of processes that each keep to one core."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import cv2

from dedup_job.errors import DedupError

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def open_pool(
    n_processes: int, start: Callable[..., None] | None = None, arguments: Any = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes, each of one thread.

    Libraries read how many threads they may start when they are imported. Left alone, each process would
    start one for every core, and they would wait for each other: verifying took three times as long.

    Args:
        n_processes: how many.
        start: runs once in each of them.
        arguments: of `start`.

    Raises:
        DedupError: a process died, or `start` failed in it.
    """
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    # Processes start when work comes, and take the environment of that moment.
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), _begin, (start, arguments))
    try:
        yield pool
    except BrokenProcessPool:
        raise DedupError(
            "a helper process died, most often for lack of memory; use fewer processes or free memory, and "
            "start again: a training goes on with --resume"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(start: Callable[..., None] | None, arguments: Any) -> None:
    end_with_parent()
    cv2.setNumThreads(1)
    if start is not None:
        start(*arguments)


def end_with_parent() -> None:
    """End this helper process when its parent ends.

    A killed parent cannot end its helpers, and they would wait for ever.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
