"""Ratings perturbed once each, so that a copy can be shared at a privacy level per rating."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from liberate.arrays import Int32Array
from liberate.randomness import SECRET_BYTES, stream_words

LEAST_EPSILON, LARGEST_EPSILON = 1e-6, 40.0

_DOMAIN = b"liberate randomised response 1\0"
_RANGE = 2**64
_BELOW_ONE = Fraction(1) - Fraction(1, 2**50)
"""Shrinks e**epsilon by more than `math.exp` may err."""


def respond(places: Int32Array, items: Int32Array, n_levels: int, epsilon: float, key: bytes) -> Int32Array:
    """Keep each rating with a probability that its epsilon allows, and else return one of the other levels.

    An item's answer is fixed by the key: asked again, alone or among others, it is the same. So any number of copies
    made of the answers reveals no more than one. A rating that changed takes another key, whose epsilon adds to the
    first one's: one key's answers to two ratings of an item have no epsilon together.

    Args:
        places: Which level of the scale each rating has, shape (n,), 0 <= place < n_levels.
        items: Items rated, distinct, shape (n,), >= 0. They stay visible.
        n_levels: Levels of the scale, >= 2.
        epsilon: Of one rating replaced by any other, pure, 1e-6 <= epsilon <= 40.
        key: 32 bytes, secret, of one person and one base copy.

    Returns:
        Levels, shape (n,).

    Raises:
        ValueError: An argument is out of range.

    Source: Kairouz, Bonawitz, Ramage 2016, "Discrete Distribution Estimation under Local Privacy", section 2 (k-RR).
    Probabilities are multiples of 2**-64, rounded so that no two differ by more than the factor e**epsilon.
    """
    if n_levels < 2 or len(key) != SECRET_BYTES or not LEAST_EPSILON <= epsilon <= LARGEST_EPSILON:
        raise ValueError("wanted n_levels >= 2, a key of 32 bytes and 1e-6 <= epsilon <= 40")
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < n_levels:
        raise ValueError(f"a place is outside [0, {n_levels})")
    weight_of_other = math.ceil(_RANGE / (Fraction(math.exp(epsilon)) * _BELOW_ONE + n_levels - 1))
    words = stream_words(_DOMAIN + key, items)
    others = (words // np.uint64(weight_of_other)).clip(max=n_levels - 1).astype(np.int32)
    is_kept = others == n_levels - 1
    return np.where(is_kept, places, others + (others >= places)).astype(np.int32)
