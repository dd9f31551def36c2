"""What every mechanism must keep."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given

from liberate.arrays import FixedPointStatistics, RealStatistics
from liberate.privacy.accounting import privacy_loss
from liberate.privacy.events import (
    DiscreteGaussianRelease,
    DiscreteLaplaceRelease,
    DistributedGaussianRelease,
    NonPrivateRelease,
)
from liberate.privacy.gaussian import DistributedGaussian, Gaussian
from liberate.privacy.laplace import Laplace
from liberate.privacy.mechanism_base import Mechanism, Plain, SumMechanism
from liberate.privacy.mechanisms import mechanism_from
from tests.strategies import device, real_rows

N_ITEMS = 5
DISTRIBUTED = DistributedGaussian(fraction_bits=12, clip_units=5000, share_units=1_234, honest=7, masked=1)
ALL = [
    Plain(),
    Laplace(fraction_bits=12, clip_units=5000, scale_units=20_011),
    Gaussian(fraction_bits=12, clip_units=5000, sigma_units=20_011),
    DISTRIBUTED,
]
MECHANISMS = pytest.mark.parametrize("mechanism", ALL, ids=lambda m: m.name)


def release(
    mechanism: Mechanism, batch: RealStatistics, keys: list[bytes], exact: bool = False
) -> FixedPointStatistics:
    return mechanism.release(batch, N_ITEMS, keys, exact)


def keys_for(batch: RealStatistics) -> list[bytes]:
    return [sha256(bytes([d])).digest() for d in range(len(batch.tails))]


@MECHANISMS
def test_a_round_entry_rebuilds_it(mechanism: Mechanism) -> None:
    assert mechanism_from(mechanism.name, mechanism.fraction_bits, mechanism.parameters) == mechanism


@MECHANISMS
def test_its_event_can_be_priced_and_its_spend_covers_it(mechanism: Mechanism) -> None:
    spent = privacy_loss([(mechanism.event(), 1)], 1e-5)

    match mechanism.event():
        case NonPrivateRelease():
            assert (mechanism.account, mechanism.spend_nano, spent.epsilon_basic) == ("none", 0, None)
        case DiscreteLaplaceRelease(epsilon=epsilon):
            assert mechanism.account == "epsilon"
            assert 0 <= mechanism.spend_nano - epsilon * 10**9 < 1
            assert spent.epsilon_basic == float(epsilon)
        case DiscreteGaussianRelease(charge=charge) | DistributedGaussianRelease(charge=charge):
            assert mechanism.account == "rho"
            assert 0 <= mechanism.spend_nano - charge * 10**9 < 1
            assert spent.rho == float(charge)


@MECHANISMS
def test_only_the_mechanism_of_sums_is_one(mechanism: Mechanism) -> None:
    assert isinstance(mechanism, SumMechanism) == (mechanism is DISTRIBUTED)


@MECHANISMS
@pytest.mark.parametrize("exact", [True, False])
def test_its_noise_has_the_deviation_it_claims(mechanism: Mechanism, exact: bool) -> None:
    nothing = RealStatistics(
        indptr=np.array([0, 1, 2], np.int64),
        indices=np.zeros(2, np.int32),
        rows=np.zeros((2, 100), np.float32),
        tails=np.zeros((2, 3)),
    )

    found = mechanism.release(nothing, 400, keys_for(nothing), exact)

    assert found.rows.std() * 2.0**-mechanism.fraction_bits == pytest.approx(mechanism.client_noise, rel=0.02)


@MECHANISMS
@pytest.mark.parametrize("exact", [True, False])
@given(batch=real_rows(largest=1000.0))
def test_a_device_gets_the_same_release_in_any_batch(mechanism: Mechanism, exact: bool, batch: RealStatistics) -> None:
    keys = keys_for(batch)

    together = release(mechanism, batch, keys, exact)

    for d, key in enumerate(keys):
        alone = release(mechanism, device(batch, d), [key], exact)
        begin, end = together.indptr[d : d + 2]
        np.testing.assert_array_equal(together.indices[begin:end], alone.indices)
        np.testing.assert_array_equal(together.rows[begin:end], alone.rows)
        np.testing.assert_array_equal(together.tails[d : d + 1], alone.tails)


@MECHANISMS
@given(batch=real_rows(largest=1000.0))
def test_a_release_has_the_announced_shape(mechanism: Mechanism, batch: RealStatistics) -> None:
    found = release(mechanism, batch, keys_for(batch))
    n_devices = len(batch.tails)

    if mechanism.is_dense:
        np.testing.assert_array_equal(found.indptr, N_ITEMS * np.arange(n_devices + 1))
        np.testing.assert_array_equal(found.indices, np.tile(np.arange(N_ITEMS), n_devices))
    else:
        np.testing.assert_array_equal(found.indptr, batch.indptr)
        np.testing.assert_array_equal(found.indices, batch.indices)
    assert found.rows.shape == (len(found.indices), batch.rows.shape[1])
    assert found.tails.shape == batch.tails.shape
    assert (found.indptr.dtype.name, found.indices.dtype.name) == ("int64", "int32")
    assert (found.rows.dtype.name, found.tails.dtype.name) == ("int32", "int64")


@MECHANISMS
@given(batch=real_rows(largest=1000.0))
def test_a_batch_is_not_changed(mechanism: Mechanism, batch: RealStatistics) -> None:
    rows, tails = batch.rows.copy(), batch.tails.copy()

    release(mechanism, batch, keys_for(batch))

    np.testing.assert_array_equal(batch.rows, rows)
    np.testing.assert_array_equal(batch.tails, tails)
