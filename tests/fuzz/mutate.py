"""Ways to damage bytes without knowing what they mean."""

import random
from collections.abc import Callable, Sequence

MAGIC = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, -1, -2)


def pick(rng: random.Random, things: Sequence):
    """One of them; quicker than `rng.choice`."""
    return things[int(rng.random() * len(things))]


def below(rng: random.Random, limit: int) -> int:
    """An integer from 0 to limit - 1; 0 when there is none."""
    return int(rng.random() * limit)


def magic_number(rng: random.Random, n_bytes: int, order: str) -> bytes:
    """A number that parsers get wrong, as `n_bytes` bytes."""
    return (pick(rng, MAGIC) & (256**n_bytes - 1)).to_bytes(n_bytes, order)


def _flip_bits(rng: random.Random, data: bytearray, _: bytes) -> None:
    for _i in range(1 + below(rng, 8)):
        data[below(rng, len(data))] ^= 1 << below(rng, 8)


def _set_bytes(rng: random.Random, data: bytearray, _: bytes) -> None:
    start = below(rng, len(data))
    new = rng.randbytes(1 + below(rng, 8))
    data[start : start + len(new)] = new


def _set_early_byte(rng: random.Random, data: bytearray, _: bytes) -> None:
    data[below(rng, min(len(data), 64))] = below(rng, 256)


def _set_number(rng: random.Random, data: bytearray, _: bytes) -> None:
    n_bytes = pick(rng, (1, 2, 4))
    start = below(rng, min(len(data), pick(rng, (64, 1 << 20))))
    data[start : start + n_bytes] = magic_number(rng, n_bytes, pick(rng, ("big", "little")))


def _cut_end(rng: random.Random, data: bytearray, _: bytes) -> None:
    del data[below(rng, len(data)) :]


def _cut_block(rng: random.Random, data: bytearray, _: bytes) -> None:
    start = below(rng, len(data))
    del data[start : start + 1 + below(rng, min(len(data), 256))]


def _copy_block(rng: random.Random, data: bytearray, _: bytes) -> None:
    start, to = below(rng, len(data)), below(rng, len(data))
    block = data[start : start + 1 + below(rng, min(len(data), 512))]
    if rng.random() < 0.5:
        data[to:to] = block
    else:
        data[to : to + len(block)] = block


def _fill_block(rng: random.Random, data: bytearray, _: bytes) -> None:
    start, length = below(rng, len(data)), 1 + below(rng, 64)
    data[start : start + length] = bytes([pick(rng, (0, 0xFF, below(rng, 256)))]) * length


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[below(rng, len(data)) :] = other[below(rng, len(other)) :]


def _append(rng: random.Random, data: bytearray, other: bytes) -> None:
    data += other if rng.random() < 0.3 else rng.randbytes(below(rng, 64))


_MUTATORS: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip_bits,
    _flip_bits,
    _set_bytes,
    _set_early_byte,
    _set_number,
    _set_number,
    _cut_end,
    _cut_block,
    _copy_block,
    _fill_block,
    _splice,
    _append,
)


def mutate(rng: random.Random, data: bytes, other: bytes, most: int = 4) -> bytes:
    """Damage `data` one to `most` times; `other` is what it may be spliced with."""
    damaged = bytearray(data)
    for _ in range(1 + below(rng, most)):
        if not damaged:
            damaged += other[:64] or b"\0"
        pick(rng, _MUTATORS)(rng, damaged, other)
    return bytes(damaged)
