"""What was done to a person's data once, in all that an accountant needs: frozen descriptions, integers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

SMALLEST_SIGMA = 3
"""Smallest deviation of one draw of discrete Gaussian noise, in grid units; docs/adr/0081 says what it is good for."""

ROUNDING_VARIANCE = 4
"""What the tight curve takes off the variance of discrete Gaussian noise, in squared grid units."""

LARGEST_COORDINATES = 2**32
"""Most coordinates of one release; what depends on their number is priced for so many."""


@dataclass(frozen=True, slots=True)
class NonPrivateRelease:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteGaussianRelease:
    """Integers with discrete Gaussian noise on each coordinate, under the replace relation (it covers zero-out).

    Attributes:
        sensitivity: Largest L2 distance of what one person may send, in grid units, > 0.
        sigma: Deviation of the noise, in grid units, >= 3.
    """

    sensitivity: int
    sigma: int

    @property
    def variance(self) -> int:
        """Variance of the noise, in squared grid units."""
        return self.sigma**2

    tau: ClassVar[float] = 0.0

    @property
    def rho(self) -> Fraction:
        """Zero-concentrated differential privacy of one release, exactly.

        Source: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy", Theorem 14.
        """
        return Fraction(self.sensitivity**2, 2 * self.variance)

    @property
    def charge(self) -> Fraction:
        """What one release costs a rho account, exactly: rho of the continuous noise that covers this one."""
        return Fraction(self.sensitivity**2, 2 * (self.variance - ROUNDING_VARIANCE))


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedGaussianRelease:
    """A sum of integer vectors in which some participants' shares of discrete Gaussian noise are unknown (zero-out).

    Attributes:
        sensitivity: Largest L2 norm of what one person may send, in grid units, > 0.
        share: Deviation of one participant's noise, in grid units, >= 3.
        honest: Participants whose noise the adversary does not know, > 0; the person is one of them.
    """

    sensitivity: int
    share: int
    honest: int

    @property
    def variance(self) -> int:
        """Variance of the unknown noise in the sum, in squared grid units."""
        return self.honest * self.share**2

    @property
    def tau(self) -> float:
        """How far a coordinate's noise is from one discrete Gaussian.

        The sum of n discrete Gaussians of deviation s has at every integer, up to a factor of exp(+-tau / 2), the
        probability of the discrete Gaussian of their variance. Terms beyond the 64th are replaced by that larger one.
        Source: Kairouz, Liu, Steinke 2021, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
        Secure Aggregation", Theorem 1, equation 3.
        """
        rate, n_terms = -2.0 * (math.pi * self.share) ** 2, self.honest - 1
        few = math.fsum(math.exp(rate * k / (k + 1)) for k in range(1, min(n_terms, 64) + 1))
        return 10.0 * (few + max(n_terms - 64, 0) * math.exp(rate * 64 / 65))

    @property
    def rho(self) -> Fraction:
        """Zero-concentrated differential privacy of one release of at most 2**32 coordinates.

        Source: as of `tau`, equation 4; what it calls epsilon is the root of 2 rho.
        """
        extra = self.tau * math.sqrt(LARGEST_COORDINATES)
        root = self.sensitivity / math.sqrt(self.variance)
        return Fraction(self.sensitivity**2, 2 * self.variance) + Fraction(root * extra + extra**2 / 2)

    @property
    def charge(self) -> Fraction:
        """What one release costs a rho account, exactly: rho of the continuous noise that covers this one."""
        return Fraction(self.sensitivity**2, 2 * (self.variance - ROUNDING_VARIANCE))


GaussianRelease = DiscreteGaussianRelease | DistributedGaussianRelease
Event = NonPrivateRelease | DiscreteLaplaceRelease | GaussianRelease
"""What was done to a person's data once."""
