"""Photos decoded in a process of their own, so that the worst of them costs one row.

A decoder is native code that reads what strangers wrote. Where it crashes, hangs or asks for all
memory, the child process ends, its photo is rejected, and the next photo starts a new child. The
child (`decoder_process.py`) serves many photos, a few at a time: they go to it over a socket, what
became of them comes back in shared memory (`decoder_slots.py`). docs/adr/0016 has the price.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from dedup_job.errors import DedupError, ImageRejected, RejectReason
from dedup_job.io.decoder_slots import (
    MEASURED,
    PREPARED,
    REJECTED,
    Answer,
    Slots,
    create_slots_file,
)
from dedup_job.io.processes import child_environment
from dedup_job.kernels.images import ImageLimits, Prepared

if TYPE_CHECKING:  # the child imports this module, and needs no settings
    from dedup_job.config import JobConfig

# What the parent sends: what to do with how many photos, then each photo's length and bytes. The child
# sends a byte when it is ready, and one when all of them are in their slots.
BATCH = struct.Struct("!BI")
LENGTH = struct.Struct("!I")
PREPARE, MEASURE = 0, 1
DONE = b"."
# Photos in one batch, at most. One slot of shared memory each.
BATCH_PHOTOS = 16
# glibc would give the pixels of each photo back to the kernel and fault them in again for the next: a
# tenth of the child's time. It keeps what photos of usual sizes take; larger blocks are mapped.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(8 << 20)}
# The child's own alarm ends a hang; this much later its parent does, should the child be stopped.
_GRACE_S = 5.0
_START_TIMEOUT_S = 60.0
_SOCKET_BUFFER_BYTES = 1 << 20
_ATTEMPTS = 2


@dataclass(frozen=True)
class DecoderSettings:
    """What a decoder process is told when it starts.

    Attributes:
        size_px: side of the square the model takes.
        blur_sigma_px: see `kernels.images.prepare`.
        limits: of headers.
        timeout_s: wall-clock seconds one photo may take to decode.
        memory_mb: megabytes (2**20) of address space decoding may take beyond the idle process.
    """

    size_px: int
    blur_sigma_px: float
    limits: ImageLimits = field(default_factory=ImageLimits)
    timeout_s: float = 30.0
    memory_mb: int = 2048

    @property
    def n_pixel_bytes(self) -> int:
        """Bytes of one prepared photo."""
        return 3 * self.size_px**2

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class _DecoderDied(Exception):
    """The child ended, or is overdue, at the photo behind those of `answers`."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__()
        self.answers = answers


def open_decoder(
    limits: ImageLimits, timeout_s: float, memory_mb: int, size_px: int, blur_sigma_px: float
) -> "IsolatedDecoder":
    """The decoder of this worker process: one child, however many tasks the worker runs."""
    return _shared(DecoderSettings(size_px, blur_sigma_px, limits, timeout_s, memory_mb))


def decoder_opener(config: "JobConfig") -> Callable[[int, float], "IsolatedDecoder"]:
    """`open_decoder` with a run's settings, given the model's input size and blur; can be pickled."""
    images = config.images
    limits = config.image_limits()
    return partial(open_decoder, limits, images.decode_timeout_s, images.decode_memory_mb)


@lru_cache(maxsize=2)
def _shared(settings: DecoderSettings) -> "IsolatedDecoder":
    return IsolatedDecoder(settings)


class IsolatedDecoder:
    """Decodes like `kernels.images`, in a child process. Threads may share it; one is served at a time.

    Args:
        settings: of the child.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def prepare(self, data: bytes) -> Prepared:
        """Do what `kernels.images.prepare` does.

        Raises:
            ImageRejected: as there; or DECODER_CRASH, DECODER_TIMEOUT, TOO_MUCH_MEMORY.
            DedupError: no decoder process can be started.
        """
        [prepared] = self.prepare_all([data])
        if isinstance(prepared, ImageRejected):
            raise prepared
        return prepared

    def prepare_all(self, photos: Sequence[bytes]) -> list[Prepared | ImageRejected]:
        """`prepare` for several photos at once, which saves the two processes waiting in turns.

        Returns:
            In order, one for each photo; a rejection concerns its photo alone.

        Raises:
            DedupError: as `prepare`.
        """
        return [
            answer if isinstance(answer, ImageRejected) else self._as_prepared(answer)
            for answer in self._ask_all(PREPARE, photos)
        ]

    def measure(self, data: bytes) -> tuple[int, int]:
        """Do what `kernels.images.measure` does; raises as `prepare`."""
        [answer] = self._ask_all(MEASURE, [data])
        if isinstance(answer, ImageRejected):
            raise answer
        assert answer.kind == MEASURED
        return answer.first, answer.second

    def close(self) -> None:
        """End the child; the next photo would start another."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Process id of the child, for whoever watches its memory; None while there is none."""
        return self._child.pid if self._child else None

    def _as_prepared(self, answer: Answer) -> Prepared:
        assert answer.kind == PREPARED
        side = self._settings.size_px
        pixels = np.frombuffer(answer.body, np.uint8).reshape(side, side, 3)
        return Prepared(pixels, answer.first, answer.second)

    def _ask_all(self, what: int, photos: Sequence[bytes]) -> list[Answer | ImageRejected]:
        answers: list[Answer | ImageRejected] = []
        n_deaths = 0  # of children that had the photo whose turn it is
        with self._lock:
            while len(answers) < len(photos):
                batch = photos[len(answers) :][:BATCH_PHOTOS]
                child = self._child = self._child or _Child(self._settings)
                try:
                    answers += map(_judge, child.ask(what, batch))
                    n_deaths = 0
                    continue
                except _DecoderDied as died:
                    finished = died.answers
                    rejected = self._blame(child, self._end())
                except BaseException:
                    # No memory, Ctrl-C: the rest of this batch would be taken for the next one.
                    self._end()
                    raise
                answers += map(_judge, finished)
                n_deaths = 1 if finished else n_deaths + 1
                # Once more with a fresh child: the kernel may have killed the first for what others
                # took. A photo that ran out of time would do so again.
                if n_deaths == _ATTEMPTS or rejected.reason is RejectReason.DECODER_TIMEOUT:
                    answers.append(rejected)
                    n_deaths = 0
        return answers

    def _blame(self, child: "_Child", returncode: int) -> ImageRejected:
        if child.is_overdue or returncode == -signal.SIGALRM:
            return ImageRejected(
                RejectReason.DECODER_TIMEOUT,
                f"not decoded within {self._settings.timeout_s:g} s (images.decode_timeout_s)",
            )
        return ImageRejected(
            RejectReason.DECODER_CRASH, f"the decoder process died ({_cause(returncode)})"
        )

    def _end(self) -> int:
        child, self._child = self._child, None
        return child.end() if child else 0


def _judge(answer: Answer) -> Answer | ImageRejected:
    if answer.kind != REJECTED:
        return answer
    reason, _, detail = answer.body.decode().partition("\n")
    return ImageRejected(RejectReason(reason), detail)


class _Child:
    """One decoder process, the socket to it, and the memory shared with it."""

    def __init__(self, settings: DecoderSettings) -> None:
        # A socket, as both directions of it can be waited for with a deadline.
        self._socket, theirs = socket.socketpair()
        self.is_overdue = False
        self._patience_s = settings.timeout_s + _GRACE_S
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        with theirs:
            self._slots, self._process = _start(theirs.fileno(), settings)
        try:
            self._await_start()
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: int, photos: Sequence[bytes]) -> list[Answer]:
        """A batch of photos to the child, what became of them back.

        Raises:
            _DecoderDied: with the answers up to the photo at which the child ended.
        """
        self._slots.clear()
        try:
            self._send(BATCH.pack(what, len(photos)))
            for data in photos:
                self._send(LENGTH.pack(len(data)))
                self._send(data)
            self._await_done()
        except TimeoutError:
            self.is_overdue = True
            raise _DecoderDied(self._finished(len(photos))) from None
        except OSError:
            raise _DecoderDied(self._finished(len(photos))) from None
        return self._finished(len(photos))

    def end(self) -> int:
        """End the process however it feels; returns its exit code, negative for a signal."""
        self._socket.close()  # an idle child reads the end of its work and leaves
        self._slots.close()
        try:
            return self._process.wait(0 if self.is_overdue else 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _finished(self, n: int) -> list[Answer]:
        return [self._slots.read(slot) for slot in range(self._slots.count_filled(n))]

    def _await_start(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as said:
            try:
                self._socket.settimeout(_START_TIMEOUT_S)
                self._receive_byte()
            except OSError as error:
                self._process.kill()
                text = said.read().decode(errors="replace").strip().splitlines()
                reason = text[-1] if text else type(error).__name__
                raise DedupError(
                    f"the decoder process did not start: {reason[:300]}; it runs {sys.executable} "
                    "with this worker's packages and needs some 100 MB of memory"
                ) from None
        self._socket.settimeout(self._patience_s)

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._patiently(partial(self._socket.send, rest)) :]

    def _await_done(self) -> None:
        self._patiently(self._receive_byte)

    def _receive_byte(self) -> int:
        if self._socket.recv(1) != DONE:
            raise ConnectionError
        return 1

    def _patiently(self, act: Callable[[], int]) -> int:
        """Wait as long as the child gets photos done, each within its time."""
        while True:
            before = self._slots.count_filled(BATCH_PHOTOS)
            try:
                return act()
            except TimeoutError:
                if self._slots.count_filled(BATCH_PHOTOS) == before:
                    raise


def _start(descriptor: int, settings: DecoderSettings) -> "tuple[Slots, subprocess.Popen[bytes]]":
    """The child, and the memory shared with it."""
    try:
        memory = create_slots_file(BATCH_PHOTOS, settings.n_pixel_bytes)
        try:
            return Slots(memory, BATCH_PHOTOS, settings.n_pixel_bytes), subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "dedup_job.io.decoder_process",
                    str(descriptor),
                    str(memory),
                    json.dumps(settings.as_dict()),
                ],
                env={**child_environment(), **_KEEP_MEMORY},
                pass_fds=[descriptor, memory],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        finally:
            os.close(memory)
    except OSError as error:
        raise DedupError(
            f"the decoder process did not start: {error.strerror}; it runs {sys.executable}, one "
            "beside every Python worker: raise the limits of processes (ulimit -u) and memory"
        ) from None


def _cause(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
