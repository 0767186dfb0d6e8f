"""The child of `decoding.py`: reads photos from a socket, answers with pixels, until the socket ends.

It limits itself, so that no photo can hold it even when its parent is gone: an alarm per photo for
time, RLIMIT_AS for memory.
"""

import json
import os
import resource
import signal
import socket
import sys

from dedup_job.errors import ImageRejected, RejectReason, one_line
from dedup_job.io.decoding import (
    ANSWER,
    ASK,
    MEASURE,
    MEASURED,
    PREPARED,
    READY,
    REJECTED,
    DecoderSettings,
)
from dedup_job.kernels.images import ImageLimits, measure, prepare


def main(descriptor: int, settings: DecoderSettings) -> None:
    """Serve photos on a socket until it is closed.

    Args:
        descriptor: of the socket, inherited.
        settings: as the parent gave them.
    """
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not a handler: native code would not run it
    _limit_memory(settings.memory_mb << 20)
    with socket.socket(fileno=descriptor) as connection:
        connection.sendall(ANSWER.pack(READY, 0, 0, 0))
        # Decoders write their complaints to stderr; what counts is in the answer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with connection.makefile("rb") as stream:
            while len(asked := stream.read(ASK.size)) == ASK.size:
                what, n_bytes = ASK.unpack(asked)
                data = stream.read(n_bytes)
                if len(data) < n_bytes:
                    return
                for part in _answer(what, data, settings):
                    connection.sendall(part)


def _answer(what: int, data: bytes, settings: DecoderSettings) -> tuple[bytes, bytes]:
    signal.setitimer(signal.ITIMER_REAL, settings.timeout_s)
    try:
        if what == MEASURE:
            return ANSWER.pack(MEASURED, *measure(data, settings.limits), 0), b""
        done = prepare(data, settings.size_px, settings.blur_sigma_px, settings.limits)
        pixels = done.pixels.tobytes()
        return ANSWER.pack(PREPARED, done.width, done.height, len(pixels)), pixels
    except ImageRejected as rejected:
        return _rejection(rejected.reason, rejected.detail)
    except MemoryError:
        return _rejection(
            RejectReason.TOO_MUCH_MEMORY,
            f"decoding needs more than {settings.memory_mb} MB (images.decode_memory_mb)",
        )
    except Exception as error:  # a fault of ours that this photo brought out costs its row as well
        return _rejection(RejectReason.DECODER_CRASH, f"{type(error).__name__}: {one_line(error)}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _rejection(reason: RejectReason, detail: str) -> tuple[bytes, bytes]:
    text = f"{reason}\n{detail}".encode()
    return ANSWER.pack(REJECTED, 0, 0, len(text)), text


def _limit_memory(budget_bytes: int) -> None:
    """Let the address space grow by so much and no more; a tighter limit that stands is kept."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            in_use = int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # not Linux: there the limit would not be kept either
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = in_use + budget_bytes
    limit = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    told = json.loads(sys.argv[2])
    main(int(sys.argv[1]), DecoderSettings(**{**told, "limits": ImageLimits(**told["limits"])}))
