"""Memory that a worker and its decoder process share: one slot for what became of each photo.

Pixels are most of what passes between the two. In shared memory they are written once, and neither
side wakes the other for each photo: the parent reads what is there when the whole batch is done, or
when the child died.
"""

import fcntl
import mmap
import os
import struct
import tempfile
from typing import NamedTuple

EMPTY, PREPARED, MEASURED, REJECTED = range(4)
# Kind, two numbers (width and height), bytes that follow.
_HEAD = struct.Struct("=BIII")
_BODY_OFFSET = 16  # the head, and pixels aligned behind it
_LEAST_BODY_BYTES = 1024  # a rejection's text


class Answer(NamedTuple):
    """What became of a photo: `body` is pixels or the text of a rejection."""

    kind: int
    first: int
    second: int
    body: bytes


class Slots:
    """`n` slots for photos of `body_bytes` each; both processes map the same file.

    Args:
        descriptor: of the file, as `create_slots_file` made it.
        n: slots.
        body_bytes: as given there.
    """

    def __init__(self, descriptor: int, n: int, body_bytes: int) -> None:
        self.n = n
        self._stride = _stride(body_bytes)
        self._memory = mmap.mmap(descriptor, n * self._stride)

    def clear(self) -> None:
        """Make all slots empty."""
        for slot in range(self.n):
            self._memory[slot * self._stride] = EMPTY

    def count_filled(self, n: int) -> int:
        """How many of the first `n` slots are filled, counted to the first that is not."""
        filled = 0
        while filled < n and self._memory[filled * self._stride] != EMPTY:
            filled += 1
        return filled

    def write(
        self, slot: int, kind: int, first: int = 0, second: int = 0, body: bytes | memoryview = b""
    ) -> None:
        """Fill a slot; its kind is written last, so that a filled slot is a whole one."""
        start = slot * self._stride
        body = memoryview(body).cast("B")[: self._stride - _BODY_OFFSET]
        self._memory[start + _BODY_OFFSET : start + _BODY_OFFSET + len(body)] = body
        head = _HEAD.pack(EMPTY, first, second, len(body))
        self._memory[start : start + len(head)] = head
        self._memory[start] = kind

    def read(self, slot: int) -> Answer:
        """What a filled slot holds, copied."""
        start = slot * self._stride
        kind, first, second, n_bytes = _HEAD.unpack_from(self._memory, start)
        # The other side has read what strangers wrote: it is not believed about lengths.
        end = start + _BODY_OFFSET + min(n_bytes, self._stride - _BODY_OFFSET)
        return Answer(kind, first, second, self._memory[start + _BODY_OFFSET : end])

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()


def create_slots_file(n: int, body_bytes: int) -> int:
    """Descriptor of a file in memory, of a size that nobody can change, for `Slots`."""
    size = n * _stride(body_bytes)
    if not hasattr(os, "memfd_create"):  # not Linux
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("decoder-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    # A child that cut the file short would end its parent with SIGBUS.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


def _stride(body_bytes: int) -> int:
    stride = _BODY_OFFSET + max(body_bytes, _LEAST_BODY_BYTES)
    return -(-stride // 64) * 64
