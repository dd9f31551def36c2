"""Where secrets, noise and time come from: the system, or derivable streams in a simulation.

A simulation derives every key, salt and noise key from `run.seed` and the ledger's root, by name and index,
so results depend on neither order nor number of workers, and a second run on one ledger repeats nothing.
"""

from __future__ import annotations

import hmac
import os
import time
from dataclasses import dataclass
from hashlib import sha256, shake_256
from typing import Protocol

import numpy as np
import numpy.typing as npt

SECRET_BYTES = 32


class Randomness(Protocol):
    """A source of secrets."""

    @property
    def is_simulated(self) -> bool:
        """Whether anybody who knows the seed can derive the secrets."""
        ...

    def secret(self, name: str, *index: int) -> bytes:
        """Return a secret of 32 bytes for a purpose and an index, each 0 <= index < 2**63."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedRandomness:
    """Secrets derived from a seed: the same name and index give the same secret, always.

    Args:
        seed: The run's seed, 0 <= seed < 2**63.
        context: What else the secrets depend on, such as a ledger root; may be empty.

    Source: HMAC-SHA-256 as a pseudo-random function, RFC 2104.
    """

    seed: int
    context: bytes = b""

    @property
    def is_simulated(self) -> bool:
        return True

    def secret(self, name: str, *index: int) -> bytes:
        key = sha256(self.seed.to_bytes(8, "big") + self.context).digest()
        message = name.encode() + b"\0" + b"".join(i.to_bytes(8, "big") for i in index)
        return hmac.digest(key, message, "sha256")


@dataclass(frozen=True, slots=True)
class SystemRandomness:
    """Secrets from the operating system's cryptographic generator; no two are related."""

    @property
    def is_simulated(self) -> bool:
        return False

    def secret(self, name: str, *index: int) -> bytes:
        return os.urandom(SECRET_BYTES)


def generator(secret: bytes) -> np.random.Generator:
    """Return a NumPy generator with a stream fixed by a secret of 32 bytes. For simulations and initial values only."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(secret, "big")))


def stream_words(secret: bytes, places: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """Return the words at some places of a secret's stream: the same at a place, whatever else is asked for.

    Args:
        secret: What the stream depends on; begins with a name of its purpose.
        places: Shape (n,), >= 0.

    Returns:
        Shape (n,), uniform for whoever does not know the secret.

    Source: SHAKE256, FIPS 202.
    """
    n_words = int(places.max(initial=-1)) + 1
    stream = np.frombuffer(shake_256(secret).digest(8 * n_words), "<u8")
    return np.asarray(stream[places], np.uint64)


class Clock(Protocol):
    """Returns the time of a block, in microseconds since 1970-01-01 UTC."""

    def time_us(self, height: int) -> int: ...


@dataclass(frozen=True, slots=True)
class SimulatedClock:
    """One second per block, so that a simulation's ledger repeats to the bit."""

    def time_us(self, height: int) -> int:
        return height * 1_000_000


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The wall clock."""

    def time_us(self, height: int) -> int:
        return time.time_ns() // 1_000


@dataclass(frozen=True, slots=True)
class RandomSource:
    """Where a federation's secrets and time come from: a seed in a simulation, the system outside one.

    Attributes:
        seed: Everything random in a simulation is derived from it, 0 <= seed < 2**63; None: there is no simulation.
    """

    seed: int | None

    @property
    def is_simulated(self) -> bool:
        """Whether anybody who knows the seed can derive keys, salts, noise and time."""
        return self.seed is not None

    @property
    def clock(self) -> Clock:
        """The clock of the ledger's blocks."""
        return SimulatedClock() if self.is_simulated else SystemClock()

    def randomness(self, context: bytes = b"") -> Randomness:
        """Return a source of secrets; in a simulation, another context gives other secrets."""
        return SystemRandomness() if self.seed is None else SimulatedRandomness(self.seed, context)
