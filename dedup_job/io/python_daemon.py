"""Spark's daemon of Python workers, for local sessions: a worker that Spark lets go ends in silence.

Spark closes the socket of a worker that had nothing to do for a minute. Over Unix sockets the worker
notices as it flushes what it has left, and Spark 4.3's daemon prints that as a stack trace, which looks
like a failed run and is not one.
"""

import socket

from pyspark import daemon

_run_worker = daemon.worker


def run_quietly(sock: socket.socket, authenticated: bool) -> int:
    """`pyspark.daemon.worker`, but a peer that has gone is no error; returns its exit code."""
    try:
        return _run_worker(sock, authenticated)
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    daemon.worker = run_quietly
    daemon.manager()
