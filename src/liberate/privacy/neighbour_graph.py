"""Who masks with whom: each person draws its out-neighbours by a seed that it committed to before it knew the others.

Nobody can try out graphs: a seed is committed before it is pinned who advertised, and revealed afterwards. Whoever has
all seeds computes the whole graph.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from liberate.arrays import Int32Array, Int64Array, UInt32Array
from liberate.compilation import serial_kernel
from liberate.errors import PrivacyError

MAX_IN_NEIGHBOURS = 4
"""Times its degree by which people may choose one person; honest draws stay far below."""

_WORD = 4


@dataclass(frozen=True, slots=True)
class NeighbourGraph:
    """Everybody's neighbours, by number.

    Attributes:
        participants: Who advertised keys, increasing, shape (n,).
        degree: Out-neighbours of each; n - 1 in the complete graph.
        out_places: Where each one's out-neighbours stand in `participants`, increasing in each row, shape (n, degree);
            of those who revealed no seed, and in the complete graph of everybody, -1.
        in_begins: Row ranges of `in_places`, shape (n + 1,).
        in_places: Where those stand who chose a person, increasing for each.
    """

    participants: Int64Array
    degree: int
    out_places: Int32Array
    in_begins: Int64Array
    in_places: Int32Array

    @property
    def is_complete(self) -> bool:
        """Whether everybody is everybody's neighbour, both ways."""
        return self.degree == len(self.participants) - 1

    def out_neighbours(self, number: int) -> tuple[int, ...]:
        """Return whom a person chose, increasing; nobody if it revealed no seed.

        Raises:
            ValueError: The person did not advertise.
        """
        place = self._place(number)
        if self.is_complete:
            return self._others(place)
        places = self.out_places[place]
        return tuple(self.participants[places[places >= 0]].tolist())

    def in_neighbours(self, number: int) -> tuple[int, ...]:
        """Return who chose a person, increasing.

        Raises:
            ValueError: The person did not advertise.
        """
        place = self._place(number)
        if self.is_complete:
            return self._others(place)
        places = self.in_places[self.in_begins[place] : self.in_begins[place + 1]]
        return tuple(self.participants[places].tolist())

    def neighbours(self, number: int) -> tuple[int, ...]:
        """Return with whom a person masks: whom it chose, and who chose it; increasing.

        Raises:
            ValueError: The person did not advertise.
        """
        return tuple(sorted({*self.out_neighbours(number), *self.in_neighbours(number)}))

    def verify_in_degree(self, number: int) -> None:
        """Check that a person is not buried under neighbours.

        Raises:
            PrivacyError: More than `MAX_IN_NEIGHBOURS` times the degree chose it, which honest draws never do.
        """
        n_chose = len(self.in_neighbours(number))
        if n_chose > MAX_IN_NEIGHBOURS * self.degree:
            raise PrivacyError(
                f"{n_chose} people chose {number}, wanted at most {MAX_IN_NEIGHBOURS} times the degree of {self.degree}"
            )

    def _place(self, number: int) -> int:
        place = int(np.searchsorted(self.participants, number))
        if place == len(self.participants) or self.participants[place] != number:
            raise ValueError(f"{number} did not advertise")
        return place

    def _others(self, place: int) -> tuple[int, ...]:
        return tuple(np.delete(self.participants, place).tolist())


def seed_commitment(seed: bytes) -> bytes:
    """Return what commits a person to the seed of its draw."""
    return sha256(b"liberate/neighbours/1\0" + seed).digest()


def draw_neighbours(
    seed: bytes, context: bytes, participants: Sequence[int], number: int, degree: int
) -> tuple[int, ...]:
    """Draw a person's out-neighbours, each set of others as likely as any other.

    Args:
        seed: The person's 32 bytes.
        context: 32 bytes that pin who advertised, such as the hash of that ledger entry.
        participants: Who advertised, strictly increasing, the person among them.
        number: The person.
        degree: How many, at least 0; everybody else where that is not fewer.

    Returns:
        Numbers, increasing.
    """
    others = [other for other in participants if other != number]
    if degree >= len(others):
        return tuple(others)
    (drawn,) = _draw_many([_draw_key(seed, context)], len(others), degree).tolist()
    return tuple(others[place] for place in drawn)


def draw_graph(seeds: Mapping[int, bytes], context: bytes, participants: Sequence[int], degree: int) -> NeighbourGraph:
    """Compute the whole graph from the seeds that were revealed.

    The keystream of a person is read as little-endian words of 32 bits. With m others, a word w stands for the other
    number w mod m, in the order of participants without the person. Words from 2**32 - 2**32 mod m on are skipped, and
    so is whoever was drawn before.

    Args:
        seeds: Seeds by number; who is missing chooses nobody, and may be chosen.
        context, participants, degree: As in `draw_neighbours`, the same for everybody.

    Raises:
        ValueError: A seed is of somebody who did not advertise.

    Source: ChaCha20's keystream (RFC 8439), under a key of HMAC-SHA-256.
    """
    numbers = np.asarray(participants, np.int64)
    size = len(numbers)
    if not seeds.keys() <= set(participants):
        raise ValueError("a seed is of somebody who did not advertise")

    out_places = np.full((size, min(degree, size - 1)), -1, np.int32)
    if degree >= size - 1:
        nothing = np.zeros(0, np.int32)
        return NeighbourGraph(numbers, size - 1, out_places[:, :0], np.zeros(size + 1, np.int64), nothing)

    places = np.searchsorted(numbers, np.fromiter(seeds, np.int64, len(seeds)))
    keys = [_draw_key(seed, context) for seed in seeds.values()]
    drawn = _draw_many(keys, size - 1, degree)
    out_places[places] = drawn + (drawn >= places[:, None])

    in_begins = np.zeros(size + 1, np.int64)
    in_places = np.empty(len(seeds) * degree, np.int32)
    _invert(out_places, in_begins, in_places)
    return NeighbourGraph(numbers, degree, out_places, in_begins, in_places)


def _draw_key(seed: bytes, context: bytes) -> bytes:
    return hmac.digest(seed, b"liberate/neighbours/1\0" + context, "sha256")


def _draw_many(keys: Sequence[bytes], others: int, degree: int) -> Int32Array:
    """Draw `degree` distinct numbers in [0, others) for each key, increasing."""
    drawn = np.empty((len(keys), degree), np.int32)
    seen = np.full(others, -1, np.int32)
    n_words = _words_for_most(degree, others)
    for row, key in enumerate(keys):
        n_needed = n_words
        while _take_distinct(_words(key, n_needed), row, seen, drawn[row]) < degree:
            n_needed *= 2
            seen[:] = -1

    drawn.sort(axis=1)
    return drawn


def _words_for_most(degree: int, others: int) -> int:
    """Return how many words are enough for nearly everybody: what a collector draws, and some deviations more."""
    until_new = others / (others - np.arange(degree))
    return int(np.sum(until_new) + 6 * np.sqrt(np.sum(until_new * (until_new - 1)))) + 1


def _words(key: bytes, n_words: int) -> UInt32Array:
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    return np.frombuffer(stream.update(bytes(_WORD * n_words)), "<u4")


@serial_kernel
def _take_distinct(words: UInt32Array, mark: int, seen: Int32Array, drawn: Int32Array) -> int:
    """Read words as numbers below len(seen) until `drawn` is full of distinct ones; return how many were found.

    Args:
        words: The keystream.
        mark: What in `seen` stands for: drawn before. Changed: whatever is drawn now.
        seen: For every number, the mark under which it was last drawn.
        drawn: Filled, in the order of the draw.
    """
    others = np.uint64(len(seen))
    limit = np.uint64(2**32) - np.uint64(2**32) % others
    n_drawn = 0
    for word in words:
        if n_drawn == len(drawn):
            break
        if np.uint64(word) < limit:
            other = np.int64(np.uint64(word) % others)
            if seen[other] != mark:
                seen[other] = mark
                drawn[n_drawn] = other
                n_drawn += 1
    return n_drawn


@serial_kernel
def _invert(out_places: Int32Array, in_begins: Int64Array, in_places: Int32Array) -> None:
    """List for each person who chose it, increasing; `in_begins` is zero before."""
    for place in out_places.ravel():
        if place >= 0:
            in_begins[place + 1] += 1
    for end in range(1, len(in_begins)):
        in_begins[end] += in_begins[end - 1]

    filled = in_begins.copy()
    for chooser in range(len(out_places)):
        for place in out_places[chooser]:
            if place >= 0:
                in_places[filled[place]] = chooser
                filled[place] += 1
