"""A Merkle tree over a growing list: one root names all of it, and a proof of log n digests shows that an entry, or an earlier
state, is part of it.

Hashes are those of RFC 6962, section 2.1: a leaf is SHA-256 of a zero byte and its content, a node SHA-256 of a one byte and
both children; the empty tree is SHA-256 of nothing. Only *complete* subtrees are stored, by level and position: a node on
level l covers 2^l leaves, none of them ever changes, and everything else follows from at most log n of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

Get = Callable[[int, int], bytes]  # (level, position) → digest of a complete subtree
EMPTY = hashlib.sha256(b"").digest()


def leaf(content: bytes) -> bytes:
    """Digest of one entry."""
    return hashlib.sha256(b"\x00" + content).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Digest of two subtrees side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed(position: int, entry: bytes, get: Get) -> Iterator[tuple[int, int, bytes]]:
    """What is to be stored when the leaf ``entry`` comes in at ``position``: it, and every subtree that it completes."""
    level = 0
    yield level, position, entry
    while position % 2:
        entry = node(get(level, position - 1), entry)
        level, position = level + 1, position // 2
        yield level, position, entry


def root(size: int, get: Get) -> bytes:
    """The root over the first ``size`` leaves."""
    return _range(0, size, get) if size else EMPTY


def inclusion(position: int, size: int, get: Get) -> list[bytes]:
    """Proof that the leaf at ``position`` is among the first ``size``; siblings from the leaf upwards (RFC 6962, 2.1.1)."""

    def path(position: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + _split(end - start)
        if position < middle:
            return [*path(position, start, middle), _range(middle, end, get)]
        return [*path(position, middle, end), _range(start, middle, get)]

    return path(position, 0, size)


def root_from(entry: bytes, position: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that ``proof`` leads to from the leaf ``entry``; ``None`` where the proof has another length than it must."""
    if not 0 <= position < size:
        return None
    place, last, digest = position, size - 1, entry
    steps = iter(proof)
    for step in steps:
        if not last:
            return None
        if place % 2 or place == last:
            digest = node(step, digest)
            while place and place % 2 == 0:
                place, last = place // 2, last // 2
        else:
            digest = node(digest, step)
        place, last = place // 2, last // 2
    return None if last else digest


def consistency(old: int, new: int, get: Get) -> list[bytes]:
    """Proof that the first ``old`` of ``new`` leaves are those of the earlier tree (RFC 6962, 2.1.2)."""

    def proof(old: int, start: int, end: int, whole: bool) -> list[bytes]:
        if old == end - start:
            return [] if whole else [_range(start, end, get)]
        middle = start + _split(end - start)
        if start + old <= middle:
            return [*proof(old, start, middle, whole), _range(middle, end, get)]
        return [*proof(start + old - middle, middle, end, False), _range(start, middle, get)]

    return proof(old, 0, new, True) if 0 < old < new else []


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the tree of ``new`` leaves continues the one of ``old`` leaves."""
    if old == new or not old:
        return not proof and (old_root == new_root if old == new else old_root == EMPTY)
    if not 0 < old < new or not proof:
        return False
    steps = list(proof) if old & (old - 1) else [old_root, *proof]
    place, last = old - 1, new - 1
    while place % 2:
        place, last = place // 2, last // 2
    first = second = steps[0]
    for step in steps[1:]:
        if not last:
            return False
        if place % 2 or place == last:
            first, second = node(step, first), node(step, second)
            while place and place % 2 == 0:
                place, last = place // 2, last // 2
        else:
            second = node(second, step)
        place, last = place // 2, last // 2
    return first == old_root and second == new_root and not last


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << ((count - 1).bit_length() - 1)


def _range(start: int, end: int, get: Get) -> bytes:
    """Digest of the leaves from ``start`` to ``end``; ``start`` is a multiple of the power of two that covers them."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return get(level, start >> level)
    middle = start + _split(count)
    return node(_range(start, middle, get), _range(middle, end, get))
