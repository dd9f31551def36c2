"""The statistics of the private design, one person at a time, as their definitions read."""

from __future__ import annotations

import numpy as np

from liberate.arrays import Float64Array


def bias_sums(targets: Float64Array) -> Float64Array:
    """Return a person's rows (residual, count) of norm one from ratings in standard units."""
    rows = []
    mean = sum(targets) / (len(targets) + 3)
    for target in targets:
        residual = min(2.0, max(-2.0, target - mean))
        rows.append([residual / 2, 0.35])
    table = np.array(rows)
    unit: Float64Array = table / np.linalg.norm(table)
    return unit


def moments(
    items: Float64Array, targets: Float64Array, covariance: Float64Array, noise_variance: float
) -> Float64Array:
    """Return L⁻¹ E[x xᵀ] L⁻ᵀ - I of a person, L Lᵀ the prior's covariance, up to a rotation of its coordinates.

    Args:
        items: (q_i, b_i) of each rated item, shape (n, K).
        targets: The ratings in standard units, shape (n,).
        covariance: The prior's, of (p_u, b_u), its mean zero, shape (K, K).
        noise_variance: Of a rating.
    """
    design = np.concatenate([items[:, :-1], np.ones((len(items), 1))], axis=1)
    posterior = np.linalg.inv(np.linalg.inv(covariance) + design.T @ design / noise_variance)
    mean = posterior @ design.T @ (targets - items[:, -1]) / noise_variance
    whitener = np.linalg.inv(np.linalg.cholesky(covariance))
    whitened: Float64Array = whitener @ (posterior + np.outer(mean, mean)) @ whitener.T
    return whitened - np.eye(len(covariance))
