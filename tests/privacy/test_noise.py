"""Discrete Laplace and Gaussian noise: the right distribution, the right bits, no floats on the exact path."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from types import ModuleType
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from liberate.arrays import Int32Array
from liberate.privacy import exact_samplers, fast_samplers, noise
from tests.reference import discrete_gaussian as gaussian
from tests.reference import discrete_laplace as laplace

AddNoise = Callable[[Int32Array, int, Sequence[bytes]], None]
LAPLACE = pytest.mark.parametrize("add_noise", [noise.add_exact_laplace, noise.add_fast_laplace])
GAUSSIAN = pytest.mark.parametrize("add_noise", [noise.add_exact_gaussian, noise.add_fast_gaussian])
SAMPLERS = pytest.mark.parametrize(
    "add_noise",
    [noise.add_exact_laplace, noise.add_fast_laplace, noise.add_exact_gaussian, noise.add_fast_gaussian],
)
TWINS = pytest.mark.parametrize(
    ("add_noise", "twin"),
    [
        (noise.add_exact_laplace, laplace.add_exact),
        (noise.add_fast_laplace, laplace.add_fast),
        (noise.add_exact_gaussian, gaussian.add_exact),
        (noise.add_fast_gaussian, gaussian.add_fast),
    ],
)
SCALES = [1, 2, 7, 1000, 123_457, 2**24]


def keys(n: int, name: str = "noise") -> list[bytes]:
    return [sha256(f"{name} {i}".encode()).digest() for i in range(n)]


def sample(add_noise: AddNoise, n_rows: int, size: int, scale: int) -> Int32Array:
    values = np.zeros((n_rows, size), np.int32)
    add_noise(values, scale, keys(n_rows))
    return values


def distribution_below(x: npt.NDArray[np.int64], scale: int) -> npt.NDArray[np.float64]:
    """P(X < x) of the discrete Laplace distribution."""
    normalizer = 1.0 + np.exp(-1.0 / scale)
    return np.asarray(np.where(x > 0, 1.0 - np.exp(-x / scale) / normalizer, np.exp((x - 1.0) / scale) / normalizer))


@LAPLACE
@pytest.mark.parametrize("scale", SCALES)
def test_samples_follow_the_exact_distribution(add_noise: AddNoise, scale: int) -> None:
    values = sample(add_noise, 4, 250_000, scale).ravel()
    quantiles = np.linspace(0.001, 0.999, 60)
    edges = np.unique(np.rint(scale * -np.sign(quantiles - 0.5) * np.log1p(-np.abs(2 * quantiles - 1))).astype(int))

    found = np.histogram(values, bins=[-(2**31), *edges, 2**31])[0]
    expected = len(values) * np.diff(distribution_below(edges, scale), prepend=0.0, append=1.0)

    assert expected.min() > 100
    assert stats.chisquare(found, expected).pvalue > 0.001


@LAPLACE
def test_far_tails_have_the_right_weight(add_noise: AddNoise) -> None:
    values = sample(add_noise, 4, 250_000, 1000).ravel()
    edges = np.array([-9000, -8000, -7000, -6000, 6001, 7001, 8001, 9001])

    found = np.histogram(values, bins=[-(2**31), *edges, 2**31])[0]
    expected = len(values) * np.diff(distribution_below(edges, 1000), prepend=0.0, append=1.0)

    assert stats.chisquare(found, expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("add_noise", "sigma"),
    [(noise.add_exact_gaussian, sigma) for sigma in (1, 2, 3, 7, 40)]
    + [(noise.add_fast_gaussian, sigma) for sigma in (3, 7, 40)],  # rounding is as good as discrete where it is fine
)
def test_gaussian_samples_follow_the_exact_probabilities(add_noise: AddNoise, sigma: int) -> None:
    values = sample(add_noise, 4, 250_000, sigma).ravel()
    x = np.arange(-6 * sigma, 6 * sigma + 1)
    expected = len(values) * gaussian.probabilities(x, sigma)
    likely = expected > 20

    found = np.array([np.count_nonzero(values == number) for number in x[likely]])

    rest = [len(values) - found.sum(), len(values) - expected[likely].sum()]
    assert stats.chisquare([*found, rest[0]], [*expected[likely], rest[1]]).pvalue > 0.001


@GAUSSIAN
@pytest.mark.parametrize("sigma", [1000, 123_457, 2**24, 2**27])
def test_gaussian_samples_follow_the_exact_distribution(add_noise: AddNoise, sigma: int) -> None:
    """At so fine a grid the discrete distribution function is the normal one, half a unit shifted."""
    values = sample(add_noise, 4, 250_000, sigma).ravel()
    edges = np.rint(sigma * stats.norm.ppf(np.linspace(0.001, 0.999, 60))).astype(int)

    found = np.histogram(values, bins=[-(2**31), *edges, 2**31])[0]
    expected = len(values) * np.diff(stats.norm.cdf((edges - 0.5) / sigma), prepend=0.0, append=1.0)

    assert stats.chisquare(found, expected).pvalue > 0.001


@GAUSSIAN
def test_far_gaussian_tails_have_the_right_weight(add_noise: AddNoise) -> None:
    values = sample(add_noise, 4, 250_000, 1000).ravel()
    edges = np.array([-4200, -3900, -3600, -3300, 3301, 3601, 3901, 4201])

    found = np.histogram(values, bins=[-(2**31), *edges, 2**31])[0]
    expected = len(values) * np.diff(stats.norm.cdf((edges - 0.5) / 1000), prepend=0.0, append=1.0)

    assert stats.chisquare(found, expected).pvalue > 0.001


@pytest.mark.parametrize("sigma", [1, 3, 100])
def test_sums_of_fast_noise_have_the_exact_variance(sigma: int) -> None:
    """What a simulation adds up is as noisy as what devices would send: to a thousandth."""
    values = sample(noise.add_fast_gaussian, 8, 1_000_000, sigma).astype(np.float64)
    x = np.arange(-40 * sigma, 40 * sigma + 1)

    variance = float(x**2 @ gaussian.probabilities(x, sigma))

    assert values.var() == pytest.approx(variance, rel=5 / np.sqrt(values.size / 2))
    assert abs(values.mean()) < 5 * sigma / np.sqrt(values.size)


@SAMPLERS
def test_neighbouring_samples_are_independent(add_noise: AddNoise) -> None:
    signs = np.sign(sample(add_noise, 4, 250_000, 2)) + 1

    found = np.bincount((3 * signs[:, 1:] + signs[:, :-1]).ravel(), minlength=9).reshape(3, 3)

    assert stats.chi2_contingency(found).pvalue > 0.001


@TWINS
@pytest.mark.parametrize("scale", [*SCALES, 2**27])
def test_kernel_equals_its_plain_twin(
    add_noise: AddNoise, twin: Callable[[Sequence[int], int, bytes], list[int]], scale: int
) -> None:
    values = np.arange(-600, 600, dtype=np.int32).reshape(3, 400)
    expected = [twin(row.tolist(), scale, key) for row, key in zip(values, keys(3), strict=True)]

    add_noise(values, scale, keys(3))

    assert values.tolist() == expected


@SAMPLERS
def test_batch_and_cores_do_not_matter(add_noise: AddNoise) -> None:
    together = sample(add_noise, 5, 1000, 77)
    apart = np.zeros_like(together)
    threads = numba.get_num_threads()

    numba.set_num_threads(1)
    for i in (3, 0, 4, 2, 1):
        add_noise(apart[i : i + 1], 77, keys(5)[i : i + 1])
    numba.set_num_threads(threads)

    np.testing.assert_array_equal(together, apart)


@SAMPLERS
def test_a_longer_row_begins_with_the_shorter_one(add_noise: AddNoise) -> None:
    np.testing.assert_array_equal(sample(add_noise, 2, 2000, 9)[:, :300], sample(add_noise, 2, 300, 9))


@SAMPLERS
def test_different_keys_give_different_noise(add_noise: AddNoise) -> None:
    noises = sample(add_noise, 5, 200_000, 1000)

    correlations = np.asarray(np.corrcoef(noises))[np.triu_indices(5, 1)]

    assert np.abs(correlations).max() < 4 / np.sqrt(200_000)


@pytest.mark.parametrize("add_noise", [noise.add_exact_laplace, noise.add_exact_gaussian])
@pytest.mark.parametrize("largest_draw", [1, 2, 13])
def test_how_the_keystream_is_cut_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, add_noise: AddNoise, largest_draw: int
) -> None:
    expected = sample(add_noise, 1, 200, 1000)
    monkeypatch.setattr(noise, "_LARGEST_DRAW", largest_draw)

    found = sample(add_noise, 1, 200, 1000)

    np.testing.assert_array_equal(found, expected)


@SAMPLERS
def test_sums_beyond_int32_are_clamped_to_its_ends(add_noise: AddNoise) -> None:
    values = np.tile(np.array([2**31 - 1, -(2**31)], np.int32), (1, 500))
    noises = sample(add_noise, 1, 1000, 10**6)

    add_noise(values, 10**6, keys(1))

    expected = np.clip(np.tile([2**31 - 1, -(2**31)], 500) + noises.astype(np.int64), -(2**31), 2**31 - 1)
    np.testing.assert_array_equal(values, expected)


def floating_point_words(kernel: Any, *signature: numba.types.Type) -> list[str]:
    """Return every floating-point type in the machine-near code of a kernel, compiled afresh, with all it calls."""
    fresh = numba.njit(kernel.py_func)
    fresh.compile(signature)
    (code,) = fresh.inspect_llvm().values()
    return re.findall(r"\b(?:half|bfloat|float|double|fp128|x86_fp80)\b", code)


def test_exact_samplers_have_no_floating_point_operation() -> None:
    """No float, so no output can betray its input by the spacing of floating-point numbers."""
    row, words, integer = numba.int32[::1], numba.uint32[::1], numba.uint64

    assert floating_point_words(exact_samplers.add_noise, row, numba.int64, integer, words, numba.boolean) == []
    assert floating_point_words(exact_samplers.discrete, integer, words, numba.int64, numba.boolean) == []
    assert floating_point_words(exact_samplers.geometric, words, numba.int64) == []
    assert (
        floating_point_words(exact_samplers.is_kept_by_gaussian, integer, numba.int64, integer, words, numba.int64)
        == []
    )
    for toss in (exact_samplers.bernoulli_exp, exact_samplers.bernoulli_exp_half_square):
        assert floating_point_words(toss, integer, integer, words, numba.int64) == []
    assert floating_point_words(exact_samplers.below, integer, words, numba.int64) == []
    table, seeds = numba.int32[:, ::1], numba.uint64[:, ::1]
    assert floating_point_words(fast_samplers.add_laplace, table, numba.int64, seeds) != []


def test_nothing_between_the_keystream_and_an_exact_kernel_makes_a_float() -> None:
    """What surrounds the kernels has integer constants only, never divides and calls no floating-point function."""
    for function in (noise.add_exact_laplace, noise.add_exact_gaussian, noise._add_from_keystreams):
        for node in ast.walk(ast.parse(inspect.getsource(function))):
            assert not isinstance(node, ast.Div)
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
            assert not (isinstance(node, ast.Name) and node.id == "float")
            assert not (isinstance(node, ast.Attribute) and node.attr.startswith(("float", "double", "sqrt", "log")))


@SAMPLERS
@pytest.mark.parametrize(
    ("values", "scale", "names", "message"),
    [
        (np.zeros((1, 2), np.int32), 0, keys(1), "scale 0"),
        (np.zeros((1, 2), np.int32), 2**31, keys(1), "scale 2147483648"),
        (np.zeros((1, 2), np.int64), 1, keys(1), "int32"),
        (np.zeros((2, 4), np.int32)[:, ::2], 1, keys(2), "C-contiguous"),
        (np.zeros((2, 2), np.int32), 1, keys(1), "1 noise keys for 2 rows"),
        (np.zeros((1, 2), np.int32), 1, [bytes(31)], "32 bytes"),
        (np.zeros((1, 2), np.int32), 1, [bytes(32)], "not all zero"),
        (np.zeros((2, 2), np.int32), 1, keys(1) * 2, "used for two rows"),
    ],
)
def test_wrong_arguments_are_refused(
    add_noise: AddNoise, values: Int32Array, scale: int, names: list[bytes], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        add_noise(values, scale, names)


@GAUSSIAN
def test_a_deviation_beyond_int32_is_refused(add_noise: AddNoise) -> None:
    with pytest.raises(ValueError, match="scale 134217729"):
        add_noise(np.zeros((1, 2), np.int32), 2**27 + 1, keys(1))


@pytest.mark.oracles
def test_another_sampler_agrees(oracle: Callable[[str], ModuleType]) -> None:
    """OpenDP's exact samplers and ours cannot be told apart; theirs follow no seed, so rare luck is allowed for."""
    dp = oracle("opendp.prelude")
    dp.enable_features("contrib")
    zeros = [0] * 40_000
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    for sigma in (1, 4, 100):
        theirs = dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=float(sigma))(zeros)
        ours = sample(noise.add_exact_gaussian, 1, len(zeros), sigma)[0]
        assert same_distribution(np.array(theirs), ours) > 1e-6
    for scale in (1, 4, 100):
        theirs = dp.m.make_laplace(domain, dp.l1_distance(T="i64"), scale=float(scale))(zeros)
        ours = sample(noise.add_exact_laplace, 1, len(zeros), scale)[0]
        assert same_distribution(np.array(theirs), ours) > 1e-6


def same_distribution(one: npt.NDArray[np.integer], other: npt.NDArray[np.integer]) -> float:
    """Return the p-value of a chi-square test that two samples of integers have one distribution."""
    edges = np.unique(np.quantile(np.concatenate([one, other]), np.linspace(0.01, 0.99, 40)).astype(int))
    table = [np.histogram(numbers, bins=[-(2**62), *edges, 2**62])[0] for numbers in (one, other)]
    return float(stats.chi2_contingency([[*row] for row in table]).pvalue)
