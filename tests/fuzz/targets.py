"""What a fuzz target is. A case is bytes, made from a number; running it says what became of it."""

import random
from collections.abc import Callable
from importlib import import_module
from typing import Protocol

NAMES = ("photos", "uris", "catalogs", "decisions")


class Finding(Exception):
    """The code under test broke a promise; the message says which."""


class Target(Protocol):
    """Input of one kind and the code that takes it.

    A target is made once in each worker process and then serves many cases.
    """

    def corpus(self) -> list[bytes]:
        """What cases are made from; part of what a case depends on."""
        ...

    def make(self, rng: random.Random) -> bytes:
        """A case, from nothing but `rng` and the corpus."""
        ...

    def run(self, case: bytes) -> str:
        """Feed a case to the real code; returns `ok` or the reason of a typed rejection.

        Raises:
            Finding: a property does not hold. Any other exception is a finding too.
        """
        ...


def open_target(name: str, **options: object) -> Target:
    """Make the target of a name; `options` as its module takes them."""
    make: Callable[..., Target] = import_module(f"tests.fuzz.{name}").open_target
    return make(**options)


def make_case(target: Target, name: str, seed: int, number: int) -> bytes:
    """The case of (target, seed, number): always the same one."""
    return target.make(random.Random(f"{name}:{seed}:{number}"))


def expect(holds: bool, what: str) -> None:
    """Raise a Finding unless a property holds (an `assert` would vanish under -O)."""
    if not holds:
        raise Finding(what)
