"""Ceilings let honest releases pass, and leave little room above them."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from liberate.arrays import FixedPointStatistics, RealStatistics
from liberate.errors import BadUpload
from liberate.privacy.gaussian import DistributedGaussian, Gaussian
from liberate.privacy.laplace import Laplace
from liberate.privacy.mechanism_base import Mechanism, Plain
from liberate.privacy.upload_bounds import NoiseBound

N_ROWS, WIDTH, N_TAIL = 40, 5, 1
N_NUMBERS = N_ROWS * WIDTH + N_TAIL
NOISY: list[Mechanism] = [
    Laplace(fraction_bits=12, clip_units=5000, scale_units=3),
    Laplace(fraction_bits=12, clip_units=5000, scale_units=200_011),
    Gaussian(fraction_bits=12, clip_units=5000, sigma_units=20_011),
    DistributedGaussian(fraction_bits=12, clip_units=5000, share_units=1_234, honest=7, masked=0),
]
MECHANISMS = pytest.mark.parametrize("mechanism", NOISY, ids=lambda m: f"{m.name} {m.parameters}")


def ceiling_of(mechanism: Mechanism, *, noised: bool = True) -> NoiseBound:
    found = mechanism.ceiling(N_NUMBERS, noised=noised)
    assert found is not None
    return found


def upload(numbers: np.ndarray) -> FixedPointStatistics:
    """One dense upload of these numbers."""
    return FixedPointStatistics(
        indptr=np.array([0, N_ROWS]),
        indices=np.arange(N_ROWS, dtype=np.int32),
        rows=numbers[:-N_TAIL].reshape(N_ROWS, WIDTH).astype(np.int32),
        tails=numbers[None, -N_TAIL:].astype(np.int64),
    )


def released(mechanism: Mechanism, n_devices: int) -> list[np.ndarray]:
    """What devices send whose statistic is far above the clip."""
    batch = RealStatistics(
        indptr=np.arange(n_devices + 1, dtype=np.int64),
        indices=np.zeros(n_devices, np.int32),
        rows=np.full((n_devices, WIDTH), 1e9, np.float32),
        tails=np.zeros((n_devices, N_TAIL)),
    )
    keys = [sha256(bytes([device])).digest() for device in range(n_devices)]
    sent = mechanism.release(batch, N_ROWS, keys, exact=True)
    rows = sent.rows.reshape(n_devices, -1)
    return [np.append(rows[device], sent.tails[device]) for device in range(n_devices)]


@MECHANISMS
def test_honest_releases_pass_though_twice_as_many_would_not(mechanism: Mechanism) -> None:
    ceiling = ceiling_of(mechanism)

    for numbers in released(mechanism, 30):
        ceiling.check(upload(numbers))
        with pytest.raises(BadUpload, match="oversized"):
            ceiling.check(upload(6 * numbers))


@MECHANISMS
def test_one_large_number_is_refused(mechanism: Mechanism) -> None:
    ceiling = ceiling_of(mechanism)
    for numbers in released(mechanism, 3):
        numbers[17] = ceiling.each + 1
        with pytest.raises(BadUpload, match="oversized"):
            ceiling.check(upload(numbers))


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_a_tail_that_would_overflow_is_refused(number: int) -> None:
    tail = np.zeros(N_NUMBERS, np.int64)
    tail[-1] = number

    with pytest.raises(BadUpload, match="oversized"):
        ceiling_of(NOISY[0]).check(upload(tail))


def test_without_noise_the_clip_is_the_ceiling() -> None:
    ceiling = ceiling_of(NOISY[-1], noised=False)
    numbers = np.zeros(N_NUMBERS, np.int64)
    numbers[:2] = 3000, 4000

    ceiling.check(upload(numbers))
    numbers[2] = 1
    with pytest.raises(BadUpload, match="oversized"):
        ceiling.check(upload(numbers))


def test_what_is_not_clipped_has_no_ceiling() -> None:
    mechanism: Mechanism = Plain()

    assert mechanism.ceiling(N_NUMBERS, noised=True) is None
