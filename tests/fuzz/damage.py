"""Damage to a file: cuts, flipped bits, and what disks and downloads do to blocks."""

from __future__ import annotations

from random import Random

# One or a few bits of a record; the end of the file missing; anything anywhere.
KINDS = ("bits of a record", "cuts", "elsewhere")


def damaged(data: bytes, spans: list[tuple[list[int], int]], number: int) -> tuple[str, bytes]:
    """Return the kind of damage of a number, and the bytes after it, which are others."""
    rng = Random(number)
    kind = KINDS[number % 3]
    if kind == KINDS[0] and not spans:
        kind = KINDS[2]
    while True:
        if kind == KINDS[0]:
            changed = _flipped(rng, data, *rng.choice(spans))
        elif kind == KINDS[1]:
            changed = data[: rng.randrange(len(data))]
        else:
            changed = rng.choice((_flip, _flip, _flip, _zero, _swap, _repeat, _append))(rng, data)
        if changed != data:
            return kind, changed


def _flip(rng: Random, data: bytes) -> bytes:
    # Half of it where files keep what leads to the rest.
    start, stop = rng.choice(((0, len(data)), (0, min(len(data), 512)), (max(0, len(data) - 512), len(data))))
    return _flipped(rng, data, [start], stop - start)


def _flipped(rng: Random, data: bytes, starts: list[int], size: int) -> bytes:
    """Flip bits in some bytes, and in all copies of them."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place, bit = rng.randrange(size), 1 << rng.randrange(8)
        for start in starts:
            changed[start + place] ^= bit
    return bytes(changed)


def _block(rng: Random, data: bytes) -> tuple[int, int]:
    size = rng.choice((16, 512, 4096))
    start = rng.randrange(len(data)) // size * size
    return start, min(start + size, len(data))


def _zero(rng: Random, data: bytes) -> bytes:
    start, stop = _block(rng, data)
    return data[:start] + bytes(stop - start) + data[stop:]


def _swap(rng: Random, data: bytes) -> bytes:
    start, stop = _block(rng, data)
    other = rng.randrange(len(data))
    return data[:start] + data[other : other + stop - start].ljust(stop - start, b"\0") + data[stop:]


def _repeat(rng: Random, data: bytes) -> bytes:
    start, stop = _block(rng, data)
    return data[:stop] + data[start:]


def _append(rng: Random, data: bytes) -> bytes:
    return data + rng.choice((b"\0", b"garbage", bytes(512), data))
