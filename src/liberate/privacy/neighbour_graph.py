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
from liberate.errors import PrivacyError

MAX_IN_NEIGHBOURS = 4
"""Times its degree by which people may choose one person; honest draws stay far below."""

_WORD = 4
_BATCH = 2**20  # words of keystream that are made at a time


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
    (drawn,) = _draw_many([_draw_key(seed, context)], len(others), degree, _words_for(degree, len(others)))
    return tuple(others[place] for place in drawn.tolist())


def draw_graph(seeds: Mapping[int, bytes], context: bytes, participants: Sequence[int], degree: int) -> NeighbourGraph:
    """Compute the whole graph from the seeds that were revealed.

    The keystream of a person is read as little-endian words of 32 bits. With m others, a word w stands for the other
    number w mod m, in the order of participants without the person. Words from 2**32 - 2**32 mod m on are skipped, and
    so is whoever was drawn before.

    Args:
        seeds: Seeds by number; who is missing chooses nobody, and may be chosen.
        context, participants, degree: As in `draw_neighbours`, the same for everybody.

    Source: ChaCha20's keystream (RFC 8439), under a key of HMAC-SHA-256.
    """
    numbers = np.asarray(participants, np.int64)
    size = len(numbers)
    out_places = np.full((size, min(degree, size - 1)), -1, np.int32)
    if degree >= size - 1:
        nothing = np.zeros(0, np.int32)
        return NeighbourGraph(numbers, size - 1, out_places[:, :0], np.zeros(size + 1, np.int64), nothing)

    drawing = np.searchsorted(numbers, np.fromiter(seeds, np.int64, len(seeds)))
    keys = [_draw_key(seed, context) for seed in seeds.values()]
    n_words = _words_for(degree, size - 1)
    per_batch = max(1, _BATCH // n_words)
    for begin in range(0, len(keys), per_batch):
        places = drawing[begin : begin + per_batch]
        others = _draw_many(keys[begin : begin + per_batch], size - 1, degree, n_words)
        out_places[places] = others + (others >= places[:, None])

    return _with_in_lists(numbers, degree, out_places)


def _with_in_lists(numbers: Int64Array, degree: int, out_places: Int32Array) -> NeighbourGraph:
    choosers, columns = np.nonzero(out_places >= 0)
    chosen = out_places[choosers, columns]

    order = np.argsort(chosen, kind="stable")
    begins = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(np.bincount(chosen, minlength=len(numbers)), out=begins[1:])

    return NeighbourGraph(numbers, degree, out_places, begins, choosers[order].astype(np.int32))


def _draw_key(seed: bytes, context: bytes) -> bytes:
    return hmac.digest(seed, b"liberate/neighbours/1\0" + context, "sha256")


def _words(key: bytes, n_words: int) -> UInt32Array:
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    return np.frombuffer(stream.update(bytes(_WORD * n_words)), "<u4")


def _words_for(degree: int, others: int) -> int:
    """Return how many words nearly everybody needs: the mean of what a collector draws, and six deviations."""
    left = others / (others - np.arange(degree))  # mean number of words until the next one is new
    return int(np.sum(left) + 6 * np.sqrt(np.sum(left * (left - 1)) + 1)) + 1


def _draw_many(keys: Sequence[bytes], others: int, degree: int, n_words: int) -> Int64Array:
    """Draw for several people at once: `degree` distinct numbers in [0, others) for each key, increasing."""
    words = np.stack([_words(key, n_words) for key in keys])
    drawn = (words % np.uint32(others)).astype(np.int64)
    drawn[words >= 2**32 - 2**32 % others] = others  # skipped

    # Sorted by value and place in the stream, the first of equal values is the one that counts.
    order = np.argsort(drawn * n_words + np.arange(n_words), axis=1)
    by_value = np.take_along_axis(drawn, order, axis=1)
    is_first = by_value != others
    is_first[:, 1:] &= by_value[:, 1:] != by_value[:, :-1]

    counts = np.zeros(drawn.shape, np.bool_)
    np.put_along_axis(counts, order, is_first, axis=1)
    taken = counts & (np.cumsum(counts, axis=1) <= degree)

    chosen = np.empty((len(keys), degree), np.int64)
    enough = taken.sum(axis=1) == degree
    chosen[enough] = np.sort(drawn[enough][taken[enough]].reshape(-1, degree), axis=1)
    for row in np.flatnonzero(~enough).tolist():
        chosen[row] = _draw_many([keys[row]], others, degree, 2 * n_words)[0]
    return chosen
