"""Worlds small enough to play every move of a coordinator: who learns what, by rank; who is cut off, by trying all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

import numpy as np

FIELD = 2**31 - 1


def exposed_sums(honest: Collection[int], told: Mapping[int, Collection[int]], survivors: Collection[int]) -> int:
    """Count the independent sums of honest values that follow from all that a coordinator sees.

    It sees each honest upload, the personal masks of survivors, and the pair masks of all others; and it knows whatever
    colluders know, so that only what honest people have between them hides anything.

    Args:
        honest: Who uploads honestly.
        told: With whom each of them masks; what it masks with others than the honest is known anyhow.
        survivors: Whose own mask is undone; of the rest, the pair masks are.
    """
    people = sorted(honest)
    pairs = sorted({(min(i, j), max(i, j)) for i in people for j in told[i] if j in honest})
    column = {pair: 2 * len(people) + at for at, pair in enumerate(pairs)}
    rows = []

    for at, i in enumerate(people):
        upload = np.zeros(2 * len(people) + len(pairs), np.int64)
        upload[[at, len(people) + at]] = 1
        for j in told[i]:
            if j in honest:
                upload[column[min(i, j), max(i, j)]] = 1 if i < j else FIELD - 1
        rows.append(upload)

        known = [len(people) + at] if i in survivors else [column[pair] for pair in pairs if i in pair]
        for place in known:
            row = np.zeros_like(upload)
            row[place] = 1
            rows.append(row)

    everything = np.array(rows)
    return _rank(everything) - _rank(everything[:, len(people) :])


def components(people: Collection[int], edges: Mapping[int, Collection[int]]) -> list[set[int]]:
    """Return the connected parts of people, by edges between them."""
    left, parts = set(people), []
    while left:
        todo = [left.pop()]
        part = set(todo)
        while todo:
            reached = set(edges[todo.pop()]) & left
            left -= reached
            part |= reached
            todo.extend(reached)
        parts.append(part)
    return parts


def _rank(matrix: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> int:
    """Return the rank over the integers modulo `FIELD`."""
    rows = matrix % FIELD
    rank = 0
    for column in range(rows.shape[1]):
        pivots = np.flatnonzero(rows[rank:, column])
        if len(pivots) == 0:
            continue
        pivot = rank + int(pivots[0])
        rows[[rank, pivot]] = rows[[pivot, rank]]
        rows[rank] = rows[rank] * pow(int(rows[rank, column]), -1, FIELD) % FIELD

        for other in range(rank + 1, len(rows)):
            if rows[other, column]:
                rows[other] = (rows[other] - rows[other, column] * rows[rank]) % FIELD
        rank += 1
    return rank


def play_dropouts(
    out: Mapping[int, Collection[int]], colluders: Collection[int], n_gone: int, threshold: int
) -> tuple[bool, int]:
    """Let an adversary try every set of honest people who vanish, on one graph.

    Args:
        out: Whom each honest person chose.
        colluders: Who works with the coordinator.
        n_gone: How many vanish.
        threshold: Shares that restore a secret.

    Returns:
        Whether a secret falls or at most half of the honest survivors can be summed apart; and the most survivors who
        had no edge to a part of more than half.
    """
    hostile = sum(1 << number for number in colluders)
    chosen = {number: sum(1 << other for other in others) for number, others in out.items()}
    falls = any((chosen[number] & hostile).bit_count() >= threshold for number in chosen)

    near = {number: chosen[number] for number in chosen}
    for number in chosen:
        for other in out[number]:
            if other in near:
                near[other] |= 1 << number

    cut_off, most_strays = falls, 0
    for gone in combinations(chosen, n_gone):
        survivors = sum(1 << number for number in chosen if number not in gone)
        for part in _parts(survivors, near):
            if 2 * part.bit_count() > survivors.bit_count():
                most_strays = max(most_strays, (survivors & ~part).bit_count())
            else:
                holders = part | hostile
                cut_off |= all((chosen[number] & holders).bit_count() >= threshold for number in _members(part))
    return cut_off, most_strays


def _parts(survivors: int, near: Mapping[int, int]) -> list[int]:
    parts = []
    while survivors:
        part = todo = survivors & -survivors
        while todo:
            reached = 0
            for number in _members(todo):
                reached |= near[number]
            todo = reached & survivors & ~part
            part |= todo
        parts.append(part)
        survivors &= ~part
    return parts


def _members(people: int) -> list[int]:
    return [number for number in range(people.bit_length()) if people >> number & 1]
