"""What all mechanisms have in common, and the one without noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from liberate.arrays import FixedPointStatistics, Float32Array, Float64Array, Int64Array, RealStatistics
from liberate.errors import PrivacyError
from liberate.identifiers import Account
from liberate.privacy.events import Event, NonPrivateRelease
from liberate.privacy.grid import check_fraction_bits, check_trimmed, trimmed_parameters
from liberate.privacy.upload_bounds import NoiseBound

_Floats = TypeVar("_Floats", Float32Array, Float64Array)
_NOT_FINITE = "a statistic holds NaN or infinite numbers"

Mode = Literal["device", "plain", "local", "distributed"]

PLAIN_FRACTION_BITS = 20
LARGEST_PLAIN_ROW = 2**31 - 1
LARGEST_PLAIN_TAIL = 2**44
"""So that half a million tails add up inside int64."""


class Mechanism(Protocol):
    """What happens to a statistic before it leaves a device."""

    @property
    def name(self) -> str:
        """Name in the round entry; with `fraction_bits` and `parameters` it rebuilds the mechanism."""

    @property
    def account(self) -> Account:
        """The account a release is charged to."""

    @property
    def fraction_bits(self) -> int:
        """A released integer v means v * 2**-fraction_bits."""

    @property
    def is_dense(self) -> bool:
        """Whether a release has every row of the statistic's table, so that it hides which were rated."""

    @property
    def spend_nano(self) -> int:
        """What one release costs a person, in billionths of the account's unit, rounded up."""

    @property
    def parameters(self) -> dict[str, int]:
        """What the round entry prints beside the name."""

    @property
    def client_noise(self) -> float:
        """Standard deviation of one device's noise on each coordinate, in the statistic's unit."""

    def release(
        self, batch: RealStatistics, n_rows: int, noise_keys: Sequence[bytes], exact: bool
    ) -> FixedPointStatistics:
        """Return what leaves each device of a batch; a device's part does not depend on the rest of the batch.

        Args:
            batch: What the devices computed.
            n_rows: Rows of the statistic's table.
            noise_keys: One key of 32 bytes per device, fresh for every release; unused without noise.
            exact: Whether noise comes from the exact sampler; the fast one is for simulations only.

        Raises:
            ValueError: The keys do not fit the batch; or, without noise, it holds NaN or infinite numbers.
            PrivacyError: Without noise, a number cannot be represented.
        """

    def ceiling(self, n_numbers: int, *, noised: bool) -> NoiseBound | None:
        """Return the most that an upload can be, by clip and noise; None where nothing is clipped.

        Args:
            n_numbers: Numbers in an upload, > 0.
            noised: Whether noise is on the upload, and not only on the sum.
        """

    def event(self) -> Event:
        """Describe one release for the accountants."""


@runtime_checkable
class SumMechanism(Mechanism, Protocol):
    """A mechanism that protects the sum over participants, each of whom adds a share of its noise."""

    @property
    def honest(self) -> int:
        """Participants whose noise is counted: so many a sum must hold at least."""

    def sums_fit(self, n_participants: int, n_coordinates: int) -> bool:
        """Whether sums of so many uploads, of so many numbers each, stay within the modulus 2**32."""

    def clip(self, batch: RealStatistics) -> FixedPointStatistics:
        """Return the clipped statistics of a batch without noise: for a simulation that adds noise to the sum."""

    def add_to_sum(self, rows: Int64Array, tail: Int64Array, n_devices: int, key: bytes, exact: bool) -> None:
        """Add to a sum of `n_devices` clipped statistics, in place, as much noise as their shares have together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Rounds to the grid, half to even, and protects nothing. Releases are sparse: they show what was rated.

    Attributes:
        fraction_bits: A unit is 2**-fraction_bits, 0 <= fraction_bits <= 64.
        trimmed_nano: Part of the uploads that the sum leaves out at either end of each number, in billionths.
    """

    fraction_bits: int = PLAIN_FRACTION_BITS
    trimmed_nano: int = 0

    name: ClassVar[str] = "none"
    account: ClassVar[Account] = "none"
    is_dense: ClassVar[bool] = False
    spend_nano: ClassVar[int] = 0
    client_noise: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_fraction_bits(self.fraction_bits)
        check_trimmed(self.trimmed_nano)

    @property
    def parameters(self) -> dict[str, int]:
        return trimmed_parameters(self.trimmed_nano)

    def release(
        self, batch: RealStatistics, n_rows: int, noise_keys: Sequence[bytes], exact: bool
    ) -> FixedPointStatistics:
        """Round a batch; a number beyond the grid's range is refused, never wrapped or clamped."""
        return FixedPointStatistics(
            indptr=batch.indptr,
            indices=batch.indices,
            rows=_round_to_grid(batch.rows, self.fraction_bits, LARGEST_PLAIN_ROW).astype(np.int32),
            tails=_round_to_grid(batch.tails, self.fraction_bits, LARGEST_PLAIN_TAIL).astype(np.int64),
        )

    def ceiling(self, n_numbers: int, *, noised: bool) -> None:
        return None

    def event(self) -> Event:
        return NonPrivateRelease()


def _round_to_grid(numbers: _Floats, fraction_bits: int, largest: int) -> _Floats:
    """Round to whole units, half to even. Scaling by a power of two is exact in the numbers' own precision.

    Raises:
        ValueError: A number is NaN or infinite.
        PrivacyError: A number is beyond `largest` units.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        units = numbers * numbers.dtype.type(2.0**fraction_bits)
        np.rint(units, out=units)
        extreme = max(float(units.max(initial=0)), -float(units.min(initial=0)))
    if extreme <= largest:
        return units
    if not np.isfinite(numbers).all():
        raise ValueError(_NOT_FINITE)
    raise PrivacyError(
        f"a statistic holds {float(np.abs(numbers).max()):g}, "
        f"the grid of {fraction_bits} bits reaches {math.ldexp(largest, -fraction_bits):g}",
        hint="the model may diverge: lower the learning rate",
    )
