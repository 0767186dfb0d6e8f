"""Progress of long stages: a bar on a terminal, a plain line now and then in a log."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from dedup_job.io.storage import Folder

logger = logging.getLogger("dedup_job")
_LOCAL_POLL_S, _REMOTE_POLL_S = 1.0, 10.0  # a listing of an object store costs money
_LINE_EVERY_S = 30.0


@contextmanager
def watch_files(folder: Folder, n_tasks: int, what: str) -> Iterator[None]:
    """While a stage runs, count the files its finished tasks have written.

    Spark's own counters need the driver's SparkContext, which a Connect session does not have; the
    files are there either way.

    Args:
        folder: where the stage writes.
        n_tasks: tasks of the stage, each of which writes at most one file.
        what: name of the stage, for the reader of the log.
    """
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, n_tasks, what, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(folder: Folder, n_tasks: int, what: str, stop: threading.Event) -> None:
    on_terminal = sys.stderr.isatty()
    started = last_line = time.monotonic()
    with tqdm(total=n_tasks, desc=what, unit="task", disable=not on_terminal, leave=False) as bar:
        while not stop.wait(_LOCAL_POLL_S if folder.is_local else _REMOTE_POLL_S):
            n_done = _count(folder, n_tasks)
            bar.update(n_done - bar.n)
            now = time.monotonic()
            if not on_terminal and now - last_line >= _LINE_EVERY_S:
                last_line = now
                logger.info("%s: %d of %d tasks, %.0f s", what, n_done, n_tasks, now - started)


def _count(folder: Folder, n_tasks: int) -> int:
    try:
        # a retried task may have left a second file
        return min(len(folder.file_names()), n_tasks)
    except Exception:  # stores raise many types; progress is no reason to fail or to shout
        return 0
