from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.arrays import Float32Array, Float64Array
from liberate.data.ratings import Ratings
from liberate.model.kernels import device, linear_algebra, ranking, server
from tests.reference import factorisation as plain
from tests.strategies import ratings

sizes = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)


def moments_of(rng: np.random.Generator, n: int, k: int) -> tuple[Float32Array, Float32Array]:
    """Means and packed second moments of n random Gaussians."""
    means = rng.normal(0, 0.5, (n, k))
    roots = rng.normal(0, 0.3, (n, k, k))
    packed = [plain.pack(np.outer(m, m) + a @ a.T) for m, a in zip(means, roots, strict=True)]
    return means.astype(np.float32), np.array(packed, np.float32).reshape(n, k * (k + 1) // 2)


def precision_of(rng: np.random.Generator, k: int) -> Float64Array:
    a = rng.normal(0, 1, (k, k))
    precision: Float64Array = a @ a.T + 3 * np.eye(k)
    return precision


def fit(
    function: Callable[..., None], own: Ratings, k: int, seed: int
) -> tuple[Float32Array, Float32Array, Float64Array]:
    rng = np.random.default_rng(seed)
    item_means, item_moments = moments_of(rng, own.n_items, k)
    precision, target = precision_of(rng, k).astype(np.float32), rng.normal(0, 1, k).astype(np.float32)
    n = own.n_users
    means = np.empty((n, k), np.float32)
    moments, errors = np.empty((n, k * (k + 1) // 2), np.float32), np.empty(n)
    targets = own.values - np.float32(3.5)
    given_side = (own.indptr, own.items, targets, item_means, item_moments, np.float32(1.3), precision, target)
    function(*given_side, means, moments, errors)
    return means, moments, errors


@given(ratings(), sizes, seeds)
def test_fit_profiles_equals_its_twin(own: Ratings, k: int, seed: int) -> None:
    fast, slow = fit(device.fit_profiles, own, k, seed), fit(plain.fit_profiles, own, k, seed)

    for place in range(3):
        np.testing.assert_allclose(fast[place], slow[place], rtol=2e-4, atol=2e-4)


@given(ratings(), sizes, seeds)
def test_normal_rows_equal_their_twin(own: Ratings, k: int, seed: int) -> None:
    means, moments = moments_of(np.random.default_rng(seed), own.n_users, k)
    targets = own.values - np.float32(3.5)
    fast, slow = np.empty((2, own.n_ratings, moments.shape[1] + k), np.float32)

    device.normal_rows(own.indptr, targets, means, moments, fast)
    plain.normal_rows(own.indptr, targets, means, moments, slow)

    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-5)


@given(ratings(), sizes, seeds)
def test_adapt_equals_its_twin(own: Ratings, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    means, moments = moments_of(rng, own.n_users, k)
    before, after = (rng.normal(0, 0.5, (own.n_items, k)).astype(np.float32) for _ in range(2))
    targets = own.values - np.float32(3.5)
    fast, slow = np.empty_like(means), np.empty_like(means)

    for adapt, adapted in ((device.adapt, fast), (plain.adapt, slow)):
        adapt(own.indptr, own.items, targets, means, moments, before, after, np.float32(1.3), adapted)

    np.testing.assert_allclose(fast, slow, rtol=2e-4, atol=2e-4)


@given(ratings(), sizes, seeds)
def test_gradient_rows_equal_their_twin(own: Ratings, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 1, (own.n_users, k)).astype(np.float32)
    item_means = rng.normal(0, 1, (own.n_items, k)).astype(np.float32)
    targets = own.values - np.float32(3.5)
    fast, slow = np.empty((2, own.n_ratings, k), np.float32)
    fast_errors, slow_errors = np.empty((2, own.n_users))

    device.gradient_rows(own.indptr, own.items, targets, means, item_means, fast, fast_errors)
    plain.gradient_rows(own.indptr, own.items, targets, means, item_means, slow, slow_errors)

    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fast_errors, slow_errors, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 9), sizes, seeds)
def test_solve_items_equals_its_twin(n_items: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = np.hstack([moments_of(rng, n_items, k)[1].astype(np.float64) * 20, rng.normal(0, 9, (n_items, k))])
    precision, target = precision_of(rng, k), rng.normal(0, 1, k)
    fast_means, slow_means = np.empty((2, n_items, k))
    fast_moments, slow_moments = np.empty((2, n_items, total.shape[1] - k))

    server.solve_items(total, 1.3, precision, target, fast_means, fast_moments)
    plain.solve_items(total, 1.3, precision, target, slow_means, slow_moments)

    np.testing.assert_allclose(fast_means, slow_means, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fast_moments, slow_moments, rtol=1e-10, atol=1e-12)


@given(sizes, seeds)
def test_small_solves_equal_their_twins(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, x = precision_of(rng, k), rng.normal(0, 1, k)

    np.testing.assert_allclose(linear_algebra.invert(a), plain.invert(a), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(linear_algebra.multiply(a, x), plain.multiply(a, x), rtol=1e-12, atol=1e-12)


@given(st.integers(0, 5), sizes, seeds)
def test_sums_equal_their_twins(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    means, rows = rng.normal(0, 1, (n, k)).astype(np.float32), rng.normal(0, 1, (n, k))
    new, old = moments_of(rng, n, k), moments_of(rng, n, k)
    total = rng.normal(0, 1, (n, k * (k + 1) // 2 + k))
    sides = [array.astype(np.float64) for array in (*new, *old)]

    np.testing.assert_allclose(linear_algebra.outer(means), plain.outer(means), rtol=1e-6)
    np.testing.assert_array_equal(server.column_sums(rows), plain.column_sums(rows))
    np.testing.assert_allclose(
        server.error_change(total, *sides), plain.error_change(total, *sides), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("total", "row"), [(np.int64, np.int32), (np.float64, np.float32)])
def test_add_rows_equals_its_twin(total: npt.DTypeLike, row: npt.DTypeLike) -> None:
    rng = np.random.default_rng(0)
    items = rng.integers(0, 5, 40).astype(np.int32)
    rows = (rng.normal(0, 1, (40, 3)) * 2**28).astype(row)
    fast, slow = np.zeros((2, 5, 3), total)

    server.add_rows(fast, items, rows)
    plain.add_rows(slow, items, rows)

    np.testing.assert_array_equal(fast, slow)


@given(ratings(), sizes, seeds, st.integers(1, 12))
def test_ranking_equals_its_twin(own: Ratings, k: int, seed: int, n: int) -> None:
    """Quarters are added without rounding, so equal scores are equal in both and ties are tested."""
    rng = np.random.default_rng(seed)
    profiles = (rng.integers(-4, 5, (own.n_users, k)) / 4).astype(np.float32)
    items = (rng.integers(-4, 5, (own.n_items, k)) / 4).astype(np.float32)
    fast, slow = np.empty((2, own.n_users, n), np.int32)
    fast_scores, slow_scores = np.empty((2, own.n_users, n), np.float32)
    columns = np.ascontiguousarray(items.T)

    ranking.rank(profiles, columns, own.indptr, own.items, fast, fast_scores)
    plain.rank(profiles, columns, own.indptr, own.items, slow, slow_scores)

    np.testing.assert_array_equal(fast, slow)
    np.testing.assert_array_equal(fast_scores, slow_scores)
    np.testing.assert_array_equal(
        ranking.predict_pairs(profiles, items, own.users(), own.items),
        plain.predict_pairs(profiles, items, own.users(), own.items),
    )


def test_server_solve_repeats_to_the_bit_on_any_number_of_cores() -> None:
    rng = np.random.default_rng(0)
    k, n_items = 16, 301
    total = np.hstack([moments_of(rng, n_items, k)[1].astype(np.float64) * 20, rng.normal(0, 9, (n_items, k))])
    precision, target = precision_of(rng, k), rng.normal(0, 1, k)
    results = []

    for threads in (1, 2):
        numba.set_num_threads(threads)
        means, moments = np.empty((n_items, k)), np.empty((n_items, total.shape[1] - k))
        server.solve_items(total, 1.3, precision, target, means, moments)
        results.append(means.tobytes() + moments.tobytes())

    assert results[0] == results[1]


@given(st.integers(0, 6), sizes, seeds)
def test_sizes_of_integers_equal_their_twins(n: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-(2**31), 2**31, (n, width)).astype(np.int32)
    scales, columns = rng.random(n), 2**20 * rng.random(width)

    ratios = np.abs(rows.astype(np.float64)) / (np.outer(scales, columns) + 1)
    np.testing.assert_allclose(server.column_squares(rows), (rows.astype(np.float64) ** 2).sum(axis=0))
    np.testing.assert_allclose(server.largest_ratio(rows, scales, columns), ratios.max(initial=0.0))


@given(st.integers(1, 4), sizes, seeds)
def test_moments_are_told_by_their_eigenvalues(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrices = [a @ a.T for a in rng.normal(0, 1, (n, k, k))]
    units = np.array([plain.pack(np.rint(2**20 * matrix)) for matrix in matrices]).astype(np.int32)
    matrices[-1] -= (np.linalg.eigvalsh(matrices[-1])[0] + 0.01) * np.eye(k)
    others = np.array([plain.pack(np.rint(2**20 * matrix)) for matrix in matrices]).astype(np.int32)

    assert all(server.is_moment(row, k) for row in units)
    assert server.is_moment(np.zeros(k * (k + 1) // 2, np.int32), k)
    assert not server.is_moment(others[-1], k)


@given(ratings(), sizes, seeds)
def test_least_error_is_what_a_person_has_whose_side_is_known(own: Ratings, k: int, seed: int) -> None:
    """Of a point x with errors e the error is the sum of e² and zᵀ Cov[w] z, and no other person has a smaller one."""
    rng = np.random.default_rng(seed)
    item_means, item_moments = moments_of(rng, own.n_items, k)
    begin, end = own.indptr[:2]
    items, x = own.items[begin:end], rng.normal(0, 1, k)
    z = np.append(x[:-1], 1.0)
    errors = rng.normal(0, 1, len(items))
    h = (item_means[items].astype(np.float64) @ z + errors)[:, None] * z
    packed = np.tile(plain.pack(np.outer(z, z)), (len(items), 1))
    rows = np.rint(2.0**20 * np.concatenate([packed, h], axis=1)).astype(np.int64)

    found = server.least_error(items, rows, 2.0**-20, item_means, item_moments)

    spread = [plain.unpack(m, k) - np.outer(w, w) for m, w in zip(item_moments[items], item_means[items], strict=True)]
    wanted = sum((errors**2).tolist()) + sum(float(z @ covariance @ z) for covariance in spread)
    assert found == pytest.approx(wanted, rel=2e-3, abs=2e-3)
    assert server.least_error(items, -rows, 2.0**-20, item_means, item_moments) == (np.inf if len(items) else 0.0)
