from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Float64Array
from liberate.model.spectral import packed, shrunk, signed, unpacked


def symmetric_noise(size: int, deviation: float, seed: int = 0) -> Float64Array:
    """Independent noise of deviation s off the diagonal, sqrt(2) s on it: what the vector's noise becomes."""
    n_packed = size * (size + 1) // 2
    return unpacked(np.random.default_rng(seed).normal(0, deviation * math.sqrt(2), n_packed))


def low_rank(size: int, values: list[float], seed: int = 1) -> Float64Array:
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, len(values))))
    matrix: Float64Array = (vectors * values) @ vectors.T
    return matrix


@given(size=st.integers(0, 8), seed=st.integers(0, 99))
def test_a_packed_matrix_has_the_norm_of_the_matrix_and_comes_back(size: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    matrix = matrix + matrix.T

    vector = packed(matrix)

    assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(matrix))
    np.testing.assert_allclose(unpacked(vector), matrix)


def test_entries_stand_where_the_index_of_a_pair_says() -> None:
    matrix = np.array([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0], [4.0, 5.0, 6.0]])

    vector = packed(matrix)

    for i in range(3):
        for j in range(i + 1):
            scale = 1 if i == j else math.sqrt(2)
            assert vector[i * (i + 1) // 2 + j] == pytest.approx(scale * matrix[i, j])


@pytest.mark.parametrize("length", [2, 4, 5])
def test_a_vector_that_is_no_packed_matrix_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="do not pack a symmetric matrix"):
        unpacked(np.zeros(length))


def test_noise_alone_leaves_next_to_nothing() -> None:
    kept = [len(shrunk(symmetric_noise(200, 1.0, seed), 1.0).values) for seed in range(20)]

    assert max(kept) <= 1
    assert sum(kept) <= 6


def test_without_noise_every_positive_eigenvalue_stays() -> None:
    matrix = low_rank(30, [9.0, 4.0, 1.0])

    spectrum = shrunk(matrix, 0.0)

    np.testing.assert_allclose(spectrum.values, [9.0, 4.0, 1.0])
    np.testing.assert_allclose(spectrum.matrix(), matrix, atol=1e-12)


def test_shrinking_brings_the_matrix_nearer_to_the_truth() -> None:
    truth = low_rank(200, [120.0, 60.0, 40.0])
    noisy = truth + symmetric_noise(200, 1.0)

    spectrum = shrunk(noisy, 1.0)
    values, vectors = np.linalg.eigh(noisy)
    cut = (vectors[:, -3:] * values[-3:]) @ vectors[:, -3:].T

    assert len(spectrum.values) == 3
    error = np.linalg.norm(spectrum.matrix() - truth)
    assert error < np.linalg.norm(cut - truth)
    assert error < 0.3 * np.linalg.norm(noisy - truth)
    for factor in (0.9, 1.1):  # no other multiple of the eigenvectors would be nearer
        other = (spectrum.vectors * (spectrum.values * factor)) @ spectrum.vectors.T
        assert np.linalg.norm(other - truth) > error


def test_no_more_than_asked_are_kept_and_the_largest_first() -> None:
    spectrum = shrunk(low_rank(20, [1.0, 5.0, 3.0]), 0.0, most=2)

    np.testing.assert_allclose(spectrum.values, [5.0, 3.0])


def test_an_empty_or_negative_matrix_leaves_nothing() -> None:
    assert shrunk(np.zeros((0, 0)), 1.0).vectors.shape == (0, 0)
    assert shrunk(np.zeros((3, 3)), 0.0).vectors.shape == (3, 0)
    assert shrunk(-np.eye(3), 0.1).vectors.shape == (3, 0)


def test_signs_of_eigenvectors_are_fixed() -> None:
    vectors = np.array([[0.6, -0.2], [-0.8, 0.1]])

    np.testing.assert_array_equal(signed(vectors), [[-0.6, 0.2], [0.8, -0.1]])
    np.testing.assert_array_equal(signed(-vectors), signed(vectors))
    assert signed(np.zeros((3, 0))).shape == (3, 0)
