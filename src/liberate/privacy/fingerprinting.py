"""Copies that differ by recipient, so that rows that leaked name whose copy they were.

Of a row of the base copy there are up to three versions: as it is, the level below, the level above.
A recipient's versions are drawn from a stream of the owner's key and the recipient, independent of all others'.
They need nothing but the base copy, so all copies together reveal no more of the ratings than the base copy does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from liberate.arrays import BoolArray, Float64Array, Int32Array
from liberate.randomness import SECRET_BYTES, stream_words

REPLACED_INSIDE = 0.058
REPLACED_AT_END = 0.02
"""Expected part of the rows that are replaced by a neighbouring level: by each of two, or by the only one."""

FALSE_ACCUSATION = 0.001
"""Bound on the probability of accusing anybody whose copy played no part."""

_DOMAIN = b"liberate mark 2\0"
_STRENGTHS = (0.7, 0.3)
"""Parts of a leak that come from one copy unaltered: most of it, or a third of a mixture."""

_ALTERED = 0.3
"""Part of the rest that is taken to be altered at random; wrong guesses cost sureness, not truth."""

_CELLS = 2**14
"""Cells of the grid on which the tail of an innocent's score is calculated."""

_ROUNDING = 1e-13
"""More than the transforms err by."""


def fingerprint(base: Int32Array, items: Int32Array, n_levels: int, key: bytes, recipient: int) -> Int32Array:
    """Return one recipient's copy of a base copy; a row's version depends on the key, the recipient and the item alone.

    Args:
        base: Which level of the scale each rating has, shape (n,), 0 <= place < n_levels.
        items: Items rated, distinct, shape (n,), >= 0.
        n_levels: Levels of the scale, >= 2.
        key: 32 bytes, secret, of the owner.
        recipient: Number of the recipient, 0 <= recipient < 2**63.

    Returns:
        Levels, shape (n,).

    Raises:
        ValueError: An argument is out of range.
    """
    if len(key) != SECRET_BYTES:
        raise ValueError(f"a key of {len(key)} bytes, wanted {SECRET_BYTES}")
    below, above = _shares(base, n_levels)
    words = stream_words(_DOMAIN + key + recipient.to_bytes(8, "big"), items)
    lower, either = ((share * 2.0**64).astype(np.uint64) for share in (below, below + above))
    return (base - (words < lower) + ((words >= lower) & (words < either))).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Who may be the source of a leak.

    Attributes:
        log10_likelihood: How many times likelier the leak is if the candidate's copy is a source of it than if it
            played no part, as a power of ten, shape (n_candidates,).
        bound: An upper bound on the probability, over the marks, that any candidate whose copy played no part looks
            as guilty as this one, shape (n_candidates,), 0 < bound <= 1.
    """

    log10_likelihood: Float64Array
    bound: Float64Array

    @property
    def accused(self) -> BoolArray:
        """Whose bound is at most `FALSE_ACCUSATION`, shape (n_candidates,)."""
        return np.asarray(self.bound <= FALSE_ACCUSATION)


def score_recipient(leaked: Int32Array, base: Int32Array, copies: Int32Array, n_levels: int) -> Attribution:
    """Weigh, for each candidate, whether its copy is a source of rows that leaked.

    The bound holds whatever was done to the rows and however many copies they were mixed from: it takes only that an
    innocent candidate's marks are independent of the leak, as they are while the owner's key is secret. An owner can
    make every copy, so marks cannot tell a recipient from the owners.

    Args:
        leaked: Levels that leaked, shape (n_rows,), 0 <= level < n_levels; rows of items that no base copy has tell
            nothing and are left out.
        base: The same rows of the owners' base copies, shape (n_rows,).
        copies: The same rows of each candidate's copies, shape (n_candidates, n_rows).
        n_levels: Levels of the scale, >= 2.

    Raises:
        ValueError: Shapes differ, or a level is outside the scale.

    Source: scores are likelihood ratios under fixed models of the leak; the bound is the tail of a sum
    of independent scores, rounded up, times the number of models and of candidates. Cf. Tardos 2003, "Optimal
    Probabilistic Fingerprint Codes", for a code whose innocents are independent of any coalition.
    """
    if not leaked.shape == base.shape == copies.shape[1:]:
        raise ValueError("leaked, base and each candidate's copy must have the same rows")
    if len(leaked) and not 0 <= int(leaked.min()) <= int(leaked.max()) < n_levels:
        raise ValueError(f"a leaked level is outside [0, {n_levels})")
    chances = _chances(leaked, base, n_levels)
    told = chances > 0  # any other level was made up: no copy has it
    chances, matches = chances[told], copies[:, told] == leaked[told]
    scores, bounds = zip(*(_weigh(chances, matches, strength, n_levels) for strength in _STRENGTHS), strict=True)
    log_bound = np.min(bounds, axis=0) + np.log(len(_STRENGTHS) * max(1, len(copies)))
    return Attribution(log10_likelihood=np.max(scores, axis=0) / np.log(10.0), bound=np.exp(np.minimum(log_bound, 0.0)))


def _shares(base: Int32Array, n_levels: int) -> tuple[Float64Array, Float64Array]:
    """Return the probabilities that a row is replaced by the level below, and by the one above, shape (n,) each."""
    if n_levels < 2 or (len(base) and not 0 <= int(base.min()) <= int(base.max()) < n_levels):
        raise ValueError(f"wanted n_levels >= 2 and levels within [0, {n_levels})")
    table = np.full((2, n_levels), REPLACED_INSIDE)
    table[:, [0, -1]] = [[0.0, REPLACED_AT_END], [REPLACED_AT_END, 0.0]]
    below, above = table[:, base]
    return below, above


def _chances(leaked: Int32Array, base: Int32Array, n_levels: int) -> Float64Array:
    """Return the probability that an innocent candidate's copy has the level that leaked, shape (n_rows,)."""
    below, above = _shares(base, n_levels)
    versions = ((base - 1, below), (base + 1, above), (base, 1 - below - above))
    return np.asarray(sum((leaked == level) * share for level, share in versions))


def _weigh(
    chances: Float64Array, matches: BoolArray, strength: float, n_levels: int
) -> tuple[Float64Array, Float64Array]:
    """Return each candidate's log-likelihood ratio, and the logarithm of a bound on an innocent's being as high."""
    rest = (1 - strength) * ((1 - _ALTERED) * chances + _ALTERED / n_levels)
    anyone = strength * chances + rest
    hit, miss = np.log((strength + rest) / anyone), np.log(rest / anyone)
    scores = np.where(matches, hit, miss).sum(axis=1)
    return scores, np.log(_tail(scores, chances, hit, miss))


def _tail(scores: Float64Array, chances: Float64Array, hit: Float64Array, miss: Float64Array) -> Float64Array:
    """Bound the probability that an innocent's score is as high as each of some scores.

    An innocent's score is a sum of independent terms, `hit` with its chance and else `miss`; of rows with the same
    chance it is counted by a binomial. Binomials are added up on a grid, each rounded up, so that the tail of the sum
    is never too small; a floor covers the rounding of the transforms.
    """
    kinds, counts = np.unique(chances, return_counts=True)
    steps = [hit[chances == kind][0] - miss[chances == kind][0] for kind in kinds]
    width = sum(count * step for count, step in zip(counts, steps, strict=True)) / _CELLS or 1.0

    spectrum = np.ones(_CELLS + 1, np.complex128)
    for kind, count, step in zip(kinds, counts, steps, strict=True):
        cells = np.ceil(np.arange(count + 1) * step / width).astype(np.int64)
        spectrum *= np.fft.rfft(np.bincount(cells, _binomial(int(count), float(kind)), 2 * _CELLS))

    tail = np.cumsum(np.fft.irfft(spectrum)[::-1])[::-1]
    reached = np.ceil((scores - miss.sum()) / width - 1e-6).astype(np.int64)
    return np.asarray(np.clip(tail[reached.clip(0, 2 * _CELLS - 1)], 0.0, 1.0) + _ROUNDING)


def _binomial(n: int, chance: float) -> Float64Array:
    """Return the probabilities of 0 to n hits."""
    ratios = np.log(np.arange(n, 0, -1) / np.arange(1, n + 1)) + math.log(chance / (1 - chance))
    logs = n * math.log1p(-chance) + np.concatenate([np.zeros(1), np.cumsum(ratios)])
    return np.asarray(np.exp(logs))
