"""A target that does every wrong at a known number: the harness must notice."""

import os
import random
import signal
import time

from tests.fuzz.targets import expect, make_case

_SEED = 1


def open_target(leaked_kib: int = 0) -> "WrongTarget":
    """The target; one that leaks does nothing else."""
    return WrongTarget(leaked_kib)


class WrongTarget:
    """Crashes, hangs, raises, breaks a promise and takes too much memory; or leaks."""

    def __init__(self, leaked_kib: int) -> None:
        self._leaked_kib = leaked_kib
        self._kept: list[bytes] = []
        self._wrongs = {
            make_case(self, "wrong", _SEED, number): wrong for number, wrong in _WRONGS.items()
        }

    def corpus(self) -> list[bytes]:
        return []

    def make(self, rng: random.Random) -> bytes:
        return rng.randbytes(16)

    def run(self, case: bytes) -> str:
        if self._leaked_kib:
            self._kept.append(b"x" * (self._leaked_kib << 10))
            time.sleep(0.005)
        elif case in self._wrongs:
            self._wrongs[case]()
        return "ok"


_WRONGS = {
    5: lambda: os.kill(os.getpid(), signal.SIGSEGV),
    7: lambda: time.sleep(60),
    11: lambda: [][0],
    13: lambda: expect(False, "a broken promise"),
    17: lambda: bytearray(4 << 30),
}
