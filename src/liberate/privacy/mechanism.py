"""From what a device computed to what may leave it: clip, integer grid, noise, and a description of what was done.

A mechanism is rebuilt from the integers of a round entry, so a participant sees what it will be charged before it
answers. Values leave as integers v that stand for v * 2**-grid_bits; whatever bounds a person's influence is
checked on those integers, not on the floating-point numbers they came from.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol, TypeVar, assert_never, runtime_checkable

import numpy as np

from liberate.arrays import Float32Array, Float64Array, GridRows, Int64Array, RealRows
from liberate.errors import PrivacyError, UnaccountableEvent

_Floats = TypeVar("_Floats", Float32Array, Float64Array)
_NOT_FINITE = "a statistic holds NaN or infinite numbers"

Mode = Literal["device", "plain", "local"]
Account = Literal["none", "epsilon", "rho"]

NANO = 10**9
"""Privacy is spent in whole billionths."""

LARGEST_SCALE_UNITS = 2**24
LARGEST_CLIP_UNITS = 2**29
LARGEST_GRID_BITS = 64
PLAIN_GRID_BITS = 20
LARGEST_PLAIN_ROW = 2**31 - 1
LARGEST_PLAIN_TAIL = 2**44
"""So that half a million tails add up inside int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """What is promised to each person.

    Attributes:
        mode: Who may see what: `device` (nothing leaves), `plain` (trusted coordinator), `local` (nobody is trusted).
        epsilon: Bound for the whole run under basic composition, 0 < epsilon <= 1e6; `local` needs it, the other
            modes make no use of it.
        delta: Probability at which the tight accounts are read, 0 < delta < 1; `local` itself is pure.
        clip_norm: Largest L1 norm of what one person sends in a round, in the statistic's unit,
            1e-6 <= clip_norm <= 1e6.
    """

    mode: Mode = "plain"
    epsilon: float | None = None
    delta: float = 1e-5
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 0 < self.epsilon <= 1e6:
            raise ValueError(f"epsilon is {self.epsilon}, wanted 0 < epsilon <= 1e6")
        if self.mode == "local" and self.epsilon is None:
            raise ValueError("mode local needs an epsilon for the whole run")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}, wanted 0 < delta < 1")
        if not 1e-6 <= self.clip_norm <= 1e6:
            raise ValueError(f"clip_norm is {self.clip_norm}, wanted 1e-6 <= clip_norm <= 1e6")


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A release without noise: no bound on what it tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteLaplaceRelease:
    """Integers with discrete Laplace noise on each coordinate, under the replace relation (it covers zero-out).

    Attributes:
        sensitivity: Largest L1 distance of what one person may send, in grid units, > 0.
        scale: Scale of the noise, in grid units, > 0.
    """

    sensitivity: int
    scale: int

    @property
    def epsilon(self) -> Fraction:
        """Pure epsilon of one release, exactly."""
        return Fraction(self.sensitivity, self.scale)


Event = Disclosure | DiscreteLaplaceRelease
"""What was done to a person's data once, in all that an accountant needs."""


class Mechanism(Protocol):
    """What happens to a statistic before it leaves a device."""

    @property
    def name(self) -> str:
        """Name in the round entry; with `grid_bits` and `parameters` it rebuilds the mechanism."""
        ...

    @property
    def account(self) -> Account:
        """The account a release is charged to."""
        ...

    @property
    def grid_bits(self) -> int:
        """A released integer v stands for v * 2**-grid_bits."""
        ...

    @property
    def is_dense(self) -> bool:
        """Whether a release has every row of the statistic's table, so that it hides which were rated."""
        ...

    @property
    def spend_nano(self) -> int:
        """What one release costs a person, in billionths of the account's unit, rounded up."""
        ...

    @property
    def parameters(self) -> dict[str, int]:
        """What the round entry prints beside the name."""
        ...

    def release(self, batch: RealRows, n_rows: int, noise_keys: Sequence[bytes], exact: bool) -> GridRows:
        """Give what leaves each device of a batch; a device's part does not depend on the rest of the batch.

        Args:
            batch: What the devices computed.
            n_rows: Rows of the statistic's table.
            noise_keys: One key of 32 bytes per device, fresh for every release; unused without noise.
            exact: Whether noise comes from the exact sampler; the fast one is for simulations only.

        Raises:
            ValueError: The batch holds NaN or infinite numbers, or the keys do not fit it.
            PrivacyError: A number cannot be represented.
        """
        ...

    def event(self) -> Event:
        """Describe one release for the accountants."""
        ...


@runtime_checkable
class SumMechanism(Mechanism, Protocol):
    """A mechanism that protects the sum over participants, each of whom adds a share of its noise."""

    @property
    def honest(self) -> int:
        """Participants whose noise is counted: so many a sum must hold at least."""
        ...

    def clip(self, batch: RealRows) -> GridRows:
        """Give the clipped statistics of a batch without noise: for a simulation that adds noise to the sum."""
        ...

    def add_to_sum(self, rows: Int64Array, tail: Int64Array, n_devices: int, key: bytes, exact: bool) -> None:
        """Add to a sum of `n_devices` clipped statistics, in place, as much noise as their shares have together."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Rounds to the grid, half to even, and protects nothing. Releases are sparse: they show what was rated."""

    grid_bits: int = PLAIN_GRID_BITS

    @property
    def name(self) -> str:
        return "none"

    @property
    def account(self) -> Account:
        return "none"

    @property
    def is_dense(self) -> bool:
        return False

    @property
    def spend_nano(self) -> int:
        return 0

    @property
    def parameters(self) -> dict[str, int]:
        return {}

    def release(self, batch: RealRows, n_rows: int, noise_keys: Sequence[bytes], exact: bool) -> GridRows:
        """Round a batch; a number beyond the grid's range is refused, never wrapped or clamped."""
        return GridRows(
            indptr=batch.indptr,
            indices=batch.indices,
            rows=_round_to_grid(batch.rows, self.grid_bits, LARGEST_PLAIN_ROW).astype(np.int32),
            tails=_round_to_grid(batch.tails, self.grid_bits, LARGEST_PLAIN_TAIL).astype(np.int64),
        )

    def event(self) -> Event:
        return Disclosure()


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplace:
    """The paper's mechanism: clip to an L1 norm, add discrete Laplace noise to every coordinate of every item.

    Any two people's clipped integers differ by at most 2 * clip_units in L1, so one release is
    (2 * clip_units / scale_units)-differentially private under the replace relation, of the upload as a whole:
    rows and tail are clipped together, and a row is sent for every item whether rated or not.

    Sums are clamped to int32, which is post-processing; the ranges below make it a matter of exp(-96) per number.

    Attributes:
        grid_bits: A unit is 2**-grid_bits, 0 <= grid_bits <= 64.
        clip_units: Largest L1 norm in units, 0 < clip_units <= 2**29.
        scale_units: Scale of the noise in units, 0 < scale_units <= 2**24.
    """

    grid_bits: int
    clip_units: int
    scale_units: int

    def __post_init__(self) -> None:
        if not 0 <= self.grid_bits <= LARGEST_GRID_BITS:
            raise ValueError(f"grid_bits is {self.grid_bits}, wanted 0 <= grid_bits <= 64")
        if not 0 < self.clip_units <= LARGEST_CLIP_UNITS:
            raise ValueError(f"clip_units is {self.clip_units}, wanted 0 < clip_units <= 2**29")
        if not 0 < self.scale_units <= LARGEST_SCALE_UNITS:
            raise ValueError(f"scale_units is {self.scale_units}, wanted 0 < scale_units <= 2**24")

    @property
    def name(self) -> str:
        return "laplace"

    @property
    def account(self) -> Account:
        return "epsilon"

    @property
    def is_dense(self) -> bool:
        return True

    @property
    def spend_nano(self) -> int:
        return math.ceil(self.event().epsilon * NANO)

    @property
    def parameters(self) -> dict[str, int]:
        return {"clip_units": self.clip_units, "scale_units": self.scale_units}

    def release(self, batch: RealRows, n_rows: int, noise_keys: Sequence[bytes], exact: bool) -> GridRows:
        """Clip a batch, lay it out for every item and add noise; rows take a device's key, its tail one derived."""
        from liberate.privacy import noise  # numba: only where there is noise

        row_units, tail_units = clip_to_grid(batch, self.clip_units, self.grid_bits)
        n_devices, width = len(batch.tails), batch.rows.shape[1]
        rows = np.zeros((n_devices, n_rows, width), np.int32)
        rows[_owners(batch), batch.indices] = row_units
        tails = tail_units.astype(np.int32)

        add_noise = noise.add_exact if exact else noise.add_fast
        add_noise(rows.reshape(n_devices, n_rows * width), self.scale_units, noise_keys)
        add_noise(tails, self.scale_units, [hmac.digest(key, b"tail", "sha256") for key in noise_keys])
        return GridRows(
            indptr=np.arange(n_devices + 1, dtype=np.int64) * n_rows,
            indices=np.tile(np.arange(n_rows, dtype=np.int32), n_devices),
            rows=rows.reshape(n_devices * n_rows, width),
            tails=tails.astype(np.int64),
        )

    def event(self) -> DiscreteLaplaceRelease:
        return DiscreteLaplaceRelease(sensitivity=2 * self.clip_units, scale=self.scale_units)


def mechanism_from(name: str, grid_bits: int, parameters: Mapping[str, int]) -> Mechanism:
    """Rebuild the mechanism a round entry announces.

    Raises:
        UnaccountableEvent: The name is unknown.
        PrivacyError: Parameters are missing, unknown or out of range.
    """
    match name, sorted(parameters):
        case "none", [] if 0 <= grid_bits <= LARGEST_GRID_BITS:
            return Plain(grid_bits=grid_bits)
        case "laplace", ["clip_units", "scale_units"]:
            try:
                return Laplace(grid_bits=grid_bits, **parameters)
            except ValueError as error:
                raise PrivacyError(f"mechanism laplace: {error}") from error
        case "none" | "laplace", _:
            raise PrivacyError(f"mechanism {name} does not take {dict(parameters)} with grid_bits {grid_bits}")
        case _:
            raise UnaccountableEvent(f"mechanism {name!r} is unknown, wanted none or laplace")


def design(config: PrivacyConfig, *, rounds: int) -> Mechanism:
    """Choose the mechanism of a run, from public numbers only.

    `local`: each round gets the same whole number of billionths of epsilon, so that the rounds together never
    exceed it. The grid is as fine as int32 allows: the noise's scale is at most 2**24 units, so what truncation
    takes from a coordinate (less than a unit) is about 2**-24 of the noise that is added to it, and summed over N
    people sqrt(N / 2) * 2**-24 of the noise of their sum. The clip in force is clip_norm rounded down to the grid.

    Args:
        config: What is promised; its mode is `plain` or `local`.
        rounds: Number of rounds, > 0; fixed before the first in a private mode, any number in `plain`.

    Raises:
        ValueError: The mode is `device`, where nothing is released, or rounds is not positive.
        PrivacyError: Epsilon is too small for so many rounds and so large a clip norm.
    """
    if rounds <= 0:
        raise ValueError(f"rounds is {rounds}, wanted rounds > 0")
    match config.mode:
        case "device":
            raise ValueError("in mode device nothing is released, so there is no mechanism")
        case "plain":
            return Plain()
        case "local":
            assert config.epsilon is not None  # PrivacyConfig refuses it
            return _calibrated_laplace(Fraction(str(config.epsilon)), rounds, Fraction(config.clip_norm))
        case _:
            assert_never(config.mode)


def _calibrated_laplace(epsilon: Fraction, rounds: int, clip_norm: Fraction) -> Laplace:
    """Give the finest grid whose clip and scale stay in range while 2 * clip / scale * rounds <= epsilon."""
    round_nano = math.floor(epsilon * NANO) // rounds
    largest_clip = min(LARGEST_CLIP_UNITS, LARGEST_SCALE_UNITS * round_nano // (2 * NANO))
    if largest_clip > 0:
        grid_bits = _floor_log2(largest_clip / clip_norm)
        clip_units = math.floor(clip_norm * Fraction(2) ** grid_bits)
        if grid_bits >= 0 and clip_units > 0:
            return Laplace(
                grid_bits=grid_bits, clip_units=clip_units, scale_units=-(-2 * clip_units * NANO // round_nano)
            )
    raise PrivacyError(
        f"epsilon {float(epsilon)} over {rounds} rounds is too little for a clip norm of {float(clip_norm)}: "
        "the noise does not fit the integer grid",
        hint="raise epsilon, take fewer rounds or lower the clip norm",
    )


def _floor_log2(x: Fraction) -> int:
    """Give the largest n with 2**n <= x, x > 0, exactly."""
    n = x.numerator.bit_length() - x.denominator.bit_length()
    return n if Fraction(2) ** n <= x else n - 1


def clip_to_grid(batch: RealRows, clip_units: int, grid_bits: int) -> tuple[Int64Array, Int64Array]:
    """Clip each device's rows and tail together to an L1 norm, then truncate toward zero to the integer grid.

    Truncation never enlarges a number, so the integers' L1 norm is at most `clip_units` and sensitivity needs no
    allowance for rounding. That is checked in integers before anything leaves.

    Args:
        batch: What the devices computed.
        clip_units: Largest L1 norm, in grid units, 0 < clip_units <= 2**29.
        grid_bits: A unit is 2**-grid_bits.

    Returns:
        Rows, shape (n_rows, width), and tails, shape (n_devices, n_tail), in grid units.

    Raises:
        ValueError: The batch holds NaN or infinite numbers.
        PrivacyError: The integers' norm exceeds `clip_units`; a fault of this program.
    """
    _check_finite(batch)
    owners = _owners(batch)
    rows = np.ascontiguousarray(batch.rows, dtype=np.float64)
    tails = np.ascontiguousarray(batch.tails, dtype=np.float64)

    # Norms are taken of numbers divided by the device's largest, so that they neither overflow nor vanish.
    largest = np.abs(tails).max(axis=1, initial=0.0)
    np.maximum.at(largest, owners, np.abs(rows).max(axis=1, initial=0.0))
    largest[largest == 0.0] = 1.0
    norms = _l1_norms(rows / largest[owners, None], tails / largest[:, None], owners)
    with np.errstate(over="ignore"):
        is_inside = np.ldexp(norms * largest, grid_bits) <= clip_units
    divisor = np.where(is_inside, 1.0, largest)
    factor = np.where(is_inside, np.ldexp(1.0, grid_bits), clip_units / np.maximum(norms, 1.0))

    row_units = np.trunc(rows / divisor[owners, None] * factor[owners, None]).astype(np.int64)
    tail_units = np.trunc(tails / divisor[:, None] * factor[:, None]).astype(np.int64)
    integer_norms = np.abs(tail_units).sum(axis=1)
    np.add.at(integer_norms, owners, np.abs(row_units).sum(axis=1))
    if (integer_norms > clip_units).any():
        raise PrivacyError(f"a clipped update has L1 norm {integer_norms.max()} units, wanted at most {clip_units}")
    return row_units, tail_units


def _l1_norms(rows: Float64Array, tails: Float64Array, owners: Int64Array) -> Float64Array:
    """Give each device's L1 norm, added up in the order of its own rows: the batch does not matter."""
    row_norms = np.bincount(owners, weights=np.abs(rows).sum(axis=1), minlength=len(tails))
    return np.asarray(row_norms + np.abs(tails).sum(axis=1))


def _owners(batch: RealRows) -> Int64Array:
    """Give the device of each row."""
    return np.repeat(np.arange(len(batch.tails)), np.diff(batch.indptr))


def _check_finite(batch: RealRows) -> None:
    if not (np.isfinite(batch.rows).all() and np.isfinite(batch.tails).all()):
        raise ValueError(_NOT_FINITE)


def _round_to_grid(numbers: _Floats, grid_bits: int, largest: int) -> _Floats:
    """Round to whole units, half to even. Scaling by a power of two is exact in the numbers' own precision.

    Raises:
        ValueError: A number is NaN or infinite.
        PrivacyError: A number is beyond `largest` units.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        units = numbers * numbers.dtype.type(2.0**grid_bits)
        np.rint(units, out=units)
        extreme = max(float(units.max(initial=0)), -float(units.min(initial=0)))
    if extreme <= largest:
        return units
    if not np.isfinite(numbers).all():
        raise ValueError(_NOT_FINITE)
    raise PrivacyError(
        f"a statistic holds {float(np.abs(numbers).max()):g}, "
        f"the grid of {grid_bits} bits reaches {math.ldexp(largest, -grid_bits):g}",
        hint="the model may diverge: lower the learning rate",
    )
