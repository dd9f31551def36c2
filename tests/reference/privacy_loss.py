"""Plain twins of `privacy.accounting`: divergences of discrete noise by summing over outcomes."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import brentq

from liberate.arrays import Float64Array


def probabilities(scale: int, shift: int, begin: int, end: int) -> Float64Array:
    """P(X + shift = x) for x in [begin, end)."""
    x = np.arange(begin, end)
    return np.asarray(np.tanh(0.5 / scale) * np.exp(-np.abs(x - shift) / scale))


def loss_distribution(scale: int, shift: int) -> tuple[Float64Array, Float64Array]:
    """Losses of a shifted number and their probabilities, by increasing outcome; both ends gather their tails."""
    q = np.exp(-1 / scale)
    mass = probabilities(scale, 0, 0, shift + 1)
    mass[0] = 1 / (1 + q)
    mass[-1] = q**shift / (1 + q)
    if shift == 0:
        mass = np.array([1.0])
    return (shift - 2.0 * np.arange(shift + 1)) / scale, mass


def hockey_stick(shifts: list[int], scale: int, epsilons: Float64Array) -> Float64Array:
    """Sum of max(0, P(x) - exp(epsilon) Q(x)) over all vectors of outcomes, grouped by their losses."""
    deltas = np.zeros_like(epsilons)
    for outcome in itertools.product(*(zip(*loss_distribution(scale, shift), strict=True) for shift in shifts)):
        loss, mass = sum(loss for loss, _ in outcome), np.prod([mass for _, mass in outcome])
        deltas += mass * np.maximum(0.0, -np.expm1(epsilons - loss))
    return deltas


def renyi(sensitivity: int, scale: int, orders: Float64Array) -> Float64Array:
    """log of the sum of P(x)**a * Q(x)**(1 - a), over a - 1."""
    begin, end = -60 * scale, sensitivity + 60 * scale
    p = np.log(probabilities(scale, 0, begin, end))
    q = np.log(probabilities(scale, sensitivity, begin, end))
    return np.array([np.logaddexp.reduce(a * p + (1 - a) * q) / (a - 1) for a in orders])


def composed_epsilon(sensitivity: int, scale: int, rounds: int, delta: float) -> float:
    """Smallest epsilon of several releases at a delta: their losses are summed by convolution."""
    _, mass = loss_distribution(scale, sensitivity)
    total = np.array([1.0])
    for _ in range(rounds):
        total = np.convolve(total, mass)
    losses = (rounds * sensitivity - 2.0 * np.arange(len(total))) / scale

    def excess(epsilon: float) -> float:
        return float(total @ np.maximum(0.0, -np.expm1(epsilon - losses))) - delta

    largest = rounds * sensitivity / scale
    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, largest, xtol=1e-12))


def gaussian_losses(sigma: int, shift: int, n_shares: int = 1) -> tuple[Float64Array, Float64Array]:
    """Losses of one number shifted under a sum of discrete Gaussians, and their probabilities."""
    x = np.arange(-12 * sigma, 12 * sigma + 1)
    one = np.exp(-((x / sigma) ** 2) / 2)
    one /= one.sum()
    mass = np.array([1.0])
    for _ in range(n_shares):
        mass = np.convolve(mass, one)
    before, after = mass[: len(mass) - shift], mass[shift:]
    return np.log(after) - np.log(before), after


def gaussian_delta(shifts: list[int], sigma: int, epsilon: float, n_shares: int = 1) -> float:
    """Probability that a vector's loss exceeds epsilon by how much it does: the sum of max(0, P - exp(epsilon) Q)."""
    losses, mass = np.zeros(1), np.ones(1)
    for shift in shifts:
        own_losses, own_mass = gaussian_losses(sigma, shift, n_shares)
        keep = own_mass > 1e-18
        losses = (losses[:, None] + own_losses[keep]).ravel()
        mass = (mass[:, None] * own_mass[keep]).ravel()
    return float(mass @ np.maximum(0.0, -np.expm1(np.minimum(epsilon - losses, 0.0))))
