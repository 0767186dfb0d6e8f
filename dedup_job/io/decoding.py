"""Photos decoded in a process of their own, so that the worst of them costs one row.

A decoder is native code that reads what strangers wrote. Where it crashes, hangs or asks for all
memory, the child process ends, its photo is rejected, and the next photo starts a new child. The
child (`decoder_process.py`) serves many photos, one at a time; docs/adr/0016 has the price.
"""

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import numpy as np

from dedup_job.errors import DedupError, ImageRejected, RejectReason
from dedup_job.io.processes import child_environment
from dedup_job.kernels.images import ImageLimits, Prepared

# Frames on the socket. Asked: what to do, bytes of the photo. Answered: kind, two numbers, bytes
# that follow.
ASK = struct.Struct("!BI")
ANSWER = struct.Struct("!BIII")
PREPARE, MEASURE = 0, 1
PREPARED, MEASURED, REJECTED, READY = 0, 1, 2, 3
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

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class _DecoderDied(Exception):
    """The child ended, or was ended, while it had a photo."""


def open_decoder(
    limits: ImageLimits, timeout_s: float, memory_mb: int, size_px: int, blur_sigma_px: float
) -> "IsolatedDecoder":
    """The decoder of this worker process: one child, however many tasks the worker runs."""
    return _shared(DecoderSettings(size_px, blur_sigma_px, limits, timeout_s, memory_mb))


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
        kind, width, height, body = self._ask(PREPARE, data)
        assert kind == PREPARED
        side = self._settings.size_px
        return Prepared(np.frombuffer(body, np.uint8).reshape(side, side, 3), width, height)

    def measure(self, data: bytes) -> tuple[int, int]:
        """Do what `kernels.images.measure` does; raises as `prepare`."""
        kind, width, height, _ = self._ask(MEASURE, data)
        assert kind == MEASURED
        return width, height

    def close(self) -> None:
        """End the child; the next photo would start another."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Process id of the child, for whoever watches its memory; None while there is none."""
        return self._child.pid if self._child else None

    def _ask(self, what: int, data: bytes) -> tuple[int, int, int, bytearray]:
        with self._lock:
            kind, first, second, body = self._ask_until_answered(what, data)
        if kind == REJECTED:
            reason, _, detail = body.decode().partition("\n")
            raise ImageRejected(RejectReason(reason), detail)
        return kind, first, second, body

    def _ask_until_answered(self, what: int, data: bytes) -> tuple[int, int, int, bytearray]:
        # Once more with a fresh child: the kernel may have killed the first for what others took.
        for attempt in range(1, _ATTEMPTS + 1):
            child = self._child = self._child or _Child(self._settings)
            try:
                return child.ask(what, data)
            except _DecoderDied:
                rejected = self._blame(child, self._end())
                if rejected.reason is RejectReason.DECODER_TIMEOUT or attempt == _ATTEMPTS:
                    raise rejected from None
            except BaseException:
                # No memory, Ctrl-C: the rest of this answer would be taken for the next one.
                self._end()
                raise
        raise AssertionError("unreachable: the last attempt returns or raises")

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


class _Child:
    """One decoder process and the socket to it."""

    def __init__(self, settings: DecoderSettings) -> None:
        # A socket, as both directions of it can be waited for with a deadline.
        self._socket, theirs = socket.socketpair()
        self.is_overdue = False
        self._patience_s = settings.timeout_s + _GRACE_S
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        with theirs:
            self._process = _start(theirs.fileno(), settings)
        try:
            self._await_start()
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: int, data: bytes) -> tuple[int, int, int, bytearray]:
        """One photo to the child, one answer back; raises _DecoderDied without one."""
        deadline = time.monotonic() + self._patience_s
        try:
            self._socket.settimeout(self._patience_s)
            self._socket.sendall(ASK.pack(what, len(data)))
            self._socket.sendall(data)
            return self._answer(deadline)
        except TimeoutError:
            self.is_overdue = True
            raise _DecoderDied from None
        except OSError:
            raise _DecoderDied from None

    def end(self) -> int:
        """End the process however it feels; returns its exit code, negative for a signal."""
        self._socket.close()  # an idle child reads the end of its work and leaves
        try:
            return self._process.wait(0 if self.is_overdue else 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _await_start(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as said:
            try:
                self._answer(time.monotonic() + _START_TIMEOUT_S)
            except (OSError, _DecoderDied) as error:
                self._process.kill()
                text = said.read().decode(errors="replace").strip().splitlines()
                reason = text[-1] if text else type(error).__name__
                raise DedupError(
                    f"the decoder process did not start: {reason[:300]}; it runs {sys.executable} "
                    "with this worker's packages and needs some 100 MB of memory"
                ) from None

    def _answer(self, deadline: float) -> tuple[int, int, int, bytearray]:
        kind, first, second, n_bytes = ANSWER.unpack(self._receive(ANSWER.size, deadline))
        return kind, first, second, self._receive(n_bytes, deadline)

    def _receive(self, n_bytes: int, deadline: float) -> bytearray:
        received = bytearray(n_bytes)
        view, n_read = memoryview(received), 0
        while n_read < n_bytes:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            n_new = self._socket.recv_into(view[n_read:])
            if not n_new:
                raise _DecoderDied
            n_read += n_new
        return received


def _start(descriptor: int, settings: DecoderSettings) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dedup_job.io.decoder_process",
                str(descriptor),
                json.dumps(settings.as_dict()),
            ],
            env=child_environment(),
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
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
