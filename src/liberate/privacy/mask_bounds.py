"""How likely masks fail, as natural logarithms of upper bounds: a secret falls, people are cut off, a round is stuck.

The world: of n people at most D vanish, of these at most D_late after the round's keys were pinned, as the coordinator
likes. Each of the n1 who advertised keys draws k out-neighbours uniformly out of the n1 - 1 others, after it is settled
who colludes, and deals them shares of its two secrets, t of which restore one. Masks run along edges either way.

Source: union bounds of our own over sets of people, for conditions as those of Bell, Bonawitz, Gascón, Lepoint,
Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from liberate.arrays import Float64Array, Int64Array

_SINGLE_SIZES = 64  # sets up to this size are bounded one size at a time, larger ones by intervals
_INTERVAL_RATIO = 1.02
_SPANS = 8  # pieces into which each range of early dropouts is cut

_Numbers = int | Int64Array


@dataclass(frozen=True, slots=True)
class People:
    """How many people a round names, and how many of them may do what.

    Attributes:
        named: Whom the round names, n.
        colluders: Most who work with the coordinator, C.
        dropouts: Most who vanish in the round, D.
        late_dropouts: Most who vanish after the keys were pinned, D_late <= D.
    """

    named: int
    colluders: int
    dropouts: int
    late_dropouts: int


@dataclass(frozen=True, slots=True)
class _Span:
    """A range of how many advertised keys; whatever is bounded takes each of its factors at the worse end.

    Attributes:
        fewest, most: People who advertised, n1.
        gone_fewest, gone_most: How many may vanish later, where the fewest and the most advertised.
    """

    fewest: int
    most: int
    gone_fewest: int
    gone_most: int


def log_secret_falls(people: People, degree: int) -> Float64Array:
    """Bound the chance that an honest person deals t shares of a secret to colluders, for every t in [0, degree].

    The fewest people are the worst case, for every t above the mean by one; for smaller t the bound is useless anyhow.
    """
    present = people.named - people.dropouts
    tails = _log_tails(present - 1, people.colluders, degree)
    return np.minimum(math.log(max(1, present - people.colluders)) + tails, 0.0)


def log_stuck(people: People, degree: int) -> Float64Array:
    """Bound the chance that late dropouts, at random, leave somebody fewer than t holders, for t in [0, degree]."""
    present = people.named - people.dropouts + people.late_dropouts
    tails = _log_tails(present - 1, people.late_dropouts, degree)

    more_than_spare = np.append(tails, -np.inf)[:0:-1]  # P[more than degree - t are gone], at t
    return np.minimum(math.log(present) + more_than_spare, 0.0)


def log_cut_off(people: People, degree: int, threshold: int) -> float:
    """Bound the chance that some set S of at most half of the honest can be summed apart from the rest.

    Each member of S needs `threshold` out-neighbours in S or among colluders. Or there is besides no edge between S and
    the rest, once the adversary has chosen who vanishes.
    """
    return min(0.0, max(_log_cut_off(people, span, degree, threshold) for span in _spans(people)))


def most_strays(people: People, degree: int, log_chance: float) -> int:
    """Return how many honest survivors may have no edge to the others, but for a chance of exp(log_chance).

    They are named survivors, nobody can unmask them, and their noise is missing in what is read. At most half of the
    honest survivors, whatever the degree.
    """
    return max(_most_strays(people, span, degree, log_chance) for span in _spans(people))


def _log_cut_off(people: People, span: _Span, degree: int, threshold: int) -> float:
    smallest, largest = _intervals((span.most - people.colluders) // 2)
    chosen_within = _log_tail(threshold, span.fewest - 1, largest - 1 + people.colluders, degree)

    shown_apart = _log_sets(people, span, smallest, largest) + smallest * chosen_within
    no_edges = _log_no_edges(people, span, degree, smallest, largest, chosen_within)

    return float(np.logaddexp.reduce(np.minimum(shown_apart, no_edges)))


def _most_strays(people: People, span: _Span, degree: int, log_chance: float) -> int:
    half = (span.most - people.colluders - span.gone_most) // 2
    smallest, largest = _intervals(half)

    no_edges = _log_no_edges(people, span, degree, smallest, largest, np.zeros(len(smallest)))
    so_many = np.logaddexp.accumulate(no_edges[::-1])[::-1]
    excluded = np.flatnonzero(so_many <= log_chance)

    return int(smallest[excluded[0]]) - 1 if len(excluded) else half


def _log_sets(people: People, span: _Span, smallest: Int64Array, largest: Int64Array) -> Float64Array:
    honest = span.most - people.colluders
    log_width: Float64Array = np.log(largest - smallest + 1)
    return log_width + _log_binomial(honest, np.minimum(largest, honest // 2))


def _log_no_edges(
    people: People,
    span: _Span,
    degree: int,
    smallest: Int64Array,
    largest: Int64Array,
    chosen_within: Float64Array,
) -> Float64Array:
    """Bound the chance that a set of such a size has no edge to the rest, for some choice of who vanishes."""
    honest = span.most - people.colluders
    gone = np.where(2 * span.gone_most <= honest - smallest, span.gone_most, (honest - smallest) // 2)
    rest = span.fewest - people.colluders - span.gone_fewest - largest

    avoiding_rest = np.maximum(
        _log_all_among(people.colluders + largest + span.gone_fewest - 1, span.fewest - 1, degree),
        _log_all_among(people.colluders + largest + span.gone_most - 1, span.most - 1, degree),
    )
    avoiding_set = _log_all_among(span.most - 1 - smallest, span.most - 1, degree)
    edges = smallest * np.minimum(chosen_within, avoiding_rest) + np.maximum(rest, 0) * avoiding_set

    return np.where(
        rest >= 1,
        _log_sets(people, span, smallest, largest) + _log_binomial(honest - smallest, gone) + edges,
        np.inf,
    )


def _spans(people: People) -> list[_Span]:
    """Cut the range of how many advertise: while late dropouts take up the rest of D, then while D_late limits them."""
    fewest = people.named - people.dropouts
    late, rest = people.late_dropouts, people.dropouts - people.late_dropouts
    parts = range(_SPANS + 1)
    ends = sorted({*(late * part // _SPANS for part in parts), *(late + rest * part // _SPANS for part in parts)})

    pairs = [(0, 0), *pairwise(ends)]
    return [_Span(fewest + a, fewest + b, min(late, a), min(late, b)) for a, b in pairs]


def _intervals(top: int) -> tuple[Int64Array, Int64Array]:
    """Cover 1 to max(1, top) with intervals, both ends included: single numbers first, then of one ratio."""
    smallest, largest = [], []
    begin = 1
    while begin <= max(1, top):
        end = begin if begin < _SINGLE_SIZES else min(top, int(begin * _INTERVAL_RATIO))
        smallest.append(begin)
        largest.append(end)
        begin = end + 1
    return np.array(smallest, np.int64), np.array(largest, np.int64)


def _log_tails(population: int, marked: int, draws: int) -> Float64Array:
    """Return ln P[at least t of the draws are marked] for every t in [0, draws], drawing without replacement."""
    chances = _log_hypergeometric(np.arange(draws + 1), population, marked, draws)
    tails: Float64Array = np.minimum(np.logaddexp.accumulate(chances[::-1])[::-1], 0.0)
    return tails


def _log_tail(least: int, population: int, marked: Int64Array, draws: int) -> Float64Array:
    """Return ln P[at least `least` of the draws are marked] for several numbers of marked people."""
    marked = np.minimum(marked, population)
    chances = _log_hypergeometric(np.arange(least, draws + 1)[:, None], population, marked, draws)
    tails: Float64Array = np.minimum(np.logaddexp.reduce(chances, axis=0), 0.0)
    return tails


def _log_hypergeometric(hits: Int64Array, population: int, marked: _Numbers, draws: int) -> Float64Array:
    ways = _log_binomial(marked, hits) + _log_binomial(population - marked, draws - hits)
    return ways - _log_binomial(population, draws)


def _log_all_among(allowed: Int64Array, population: int, draws: int) -> Float64Array:
    """Return ln P[all draws fall among the allowed], drawing without replacement."""
    return np.minimum(_log_binomial(np.minimum(allowed, population), draws) - _log_binomial(population, draws), 0.0)


def _log_binomial(n: _Numbers, k: _Numbers) -> Float64Array:
    """Return ln of the binomial coefficient, of -inf where there is none."""
    from scipy.special import gammaln  # 0.1 s, only where it is needed

    n, k = np.asarray(n, np.float64), np.asarray(k, np.float64)
    possible = (k >= 0) & (k <= n)
    n, k = np.where(possible, n, 0.0), np.where(possible, k, 0.0)
    return np.where(possible, gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), -np.inf)
