"""The child of `decoding.py`: reads photos from a socket until it ends, leaves pixels in shared memory.

It limits itself, so that no photo can hold it even when its parent is gone: an alarm per photo for
time, RLIMIT_AS for memory.
"""

import json
import os
import resource
import signal
import socket
import sys
from typing import BinaryIO

from dedup_job.errors import ImageRejected, RejectReason, one_line
from dedup_job.io.decoder_slots import MEASURED, PREPARED, REJECTED, Slots
from dedup_job.io.decoding import BATCH, BATCH_PHOTOS, DONE, LENGTH, MEASURE, DecoderSettings
from dedup_job.kernels.images import ImageLimits, measure, prepare


def main(descriptor: int, memory: int, settings: DecoderSettings) -> None:
    """Serve photos on a socket until it is closed.

    Args:
        descriptor: of the socket, inherited.
        memory: descriptor of the slots for what became of them, inherited.
        settings: as the parent gave them.
    """
    import cv2

    cv2.setNumThreads(0)
    slots = Slots(memory, BATCH_PHOTOS, settings.n_pixel_bytes)
    os.close(memory)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not a handler: native code would not run it
    _limit_memory(settings.memory_mb << 20)
    with socket.socket(fileno=descriptor) as connection:
        connection.sendall(DONE)
        # Decoders write their complaints to stderr; what counts is in the answer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with connection.makefile("rb") as stream:
            while len(head := stream.read(BATCH.size)) == BATCH.size:
                what, n_photos = BATCH.unpack(head)
                for slot in range(n_photos):
                    data = _read_photo(stream)
                    if data is None:
                        return
                    _answer(what, data, settings, slots, slot)
                connection.sendall(DONE)


def _read_photo(stream: BinaryIO) -> bytes | None:
    """The next photo; None where the parent is gone."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    [n_bytes] = LENGTH.unpack(head)
    data = stream.read(n_bytes)
    return data if len(data) == n_bytes else None


def _answer(what: int, data: bytes, settings: DecoderSettings, slots: Slots, slot: int) -> None:
    signal.setitimer(signal.ITIMER_REAL, settings.timeout_s)
    try:
        if what == MEASURE:
            slots.write(slot, MEASURED, *measure(data, settings.limits))
            return
        done = prepare(data, settings.size_px, settings.blur_sigma_px, settings.limits)
        slots.write(slot, PREPARED, done.width, done.height, done.pixels.tobytes())
    except ImageRejected as rejected:
        _reject(slots, slot, rejected.reason, rejected.detail)
    except MemoryError:
        _reject(
            slots,
            slot,
            RejectReason.TOO_MUCH_MEMORY,
            f"decoding needs more than {settings.memory_mb} MB (images.decode_memory_mb)",
        )
    except Exception as error:  # a fault of ours that this photo brought out costs its row as well
        detail = f"{type(error).__name__}: {one_line(error)}"
        _reject(slots, slot, RejectReason.DECODER_CRASH, detail)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reject(slots: Slots, slot: int, reason: RejectReason, detail: str) -> None:
    slots.write(slot, REJECTED, body=f"{reason}\n{detail}".encode())


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
    told = json.loads(sys.argv[3])
    main(
        int(sys.argv[1]),
        int(sys.argv[2]),
        DecoderSettings(**{**told, "limits": ImageLimits(**told["limits"])}),
    )
