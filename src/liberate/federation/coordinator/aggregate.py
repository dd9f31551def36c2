"""The sum of a round's uploads: exact integers, so that an auditor who adds them in any order gets the same digest.

Where the round's mechanism says so (`trimmed_nano`) the sum is trimmed: of each number the smallest and the largest are
left out among those who sent it, and the sum of the others is scaled to all: their trimmed mean times their number.

Source: Yin et al. 2018, "Byzantine-robust distributed learning: towards optimal statistical rates", the coordinate-wise
trimmed mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256

import numpy as np

from liberate.arrays import FixedPointStatistics, Int64Array
from liberate.identifiers import Digest
from liberate.ledger.format.records import Round
from liberate.model.kernels.server import add_rows, trimmed_sums
from liberate.model.solvers import AggregatedStatistics


@dataclass(slots=True)
class UploadAggregate:
    """The sum so far, in grid units; a trimmed sum is complete once it is settled.

    Attributes:
        rows: Sum of the rows, shape (n_rows, width).
        tail: Sum of the tails, shape (n_tail,).
        trimmed_nano: Part left out at either end of each number, in billionths, 0 <= trimmed_nano < 500,000,000.
        n_uploads: Uploads in the sum, >= 0.
        n_copies: Weight of the copies that they used, in people, >= 0.
    """

    rows: Int64Array
    tail: Int64Array
    trimmed_nano: int = 0
    n_uploads: int = 0
    n_copies: Fraction = Fraction(0)
    _waiting: list[FixedPointStatistics] = field(default_factory=list)

    @classmethod
    def of(cls, record: Round) -> UploadAggregate:
        """Return the empty sum of a round."""
        return cls.empty(record.shape, record.mechanism.parameters.get("trimmed_nano", 0))

    @classmethod
    def empty(cls, shape: tuple[int, int, int], trimmed_nano: int = 0) -> UploadAggregate:
        """Return an empty sum; `shape` is (n_rows, width, n_tail) of the round entry."""
        n_rows, width, n_tail = shape
        return cls(np.zeros((n_rows, width), np.int64), np.zeros(n_tail, np.int64), trimmed_nano)

    def add(self, upload: FixedPointStatistics, n_copies: Fraction = Fraction(0)) -> None:
        """Add a batch of one upload that used copies of this weight; a trimmed sum stores it until it is settled."""
        self.n_uploads += 1
        self.n_copies += n_copies
        if self.trimmed_nano:
            self._waiting.append(upload)
            return
        add_rows(self.rows, upload.indices, upload.rows)
        self.tail += upload.tails[0]

    def settle(self) -> None:
        """Complete a trimmed sum, once all uploads are there; any other sum is complete already."""
        if not self._waiting:
            return

        indices = np.concatenate([upload.indices for upload in self._waiting])
        order = np.argsort(indices, kind="stable")
        indptr = np.searchsorted(indices[order], np.arange(len(self.rows) + 1))
        rows = np.concatenate([upload.rows for upload in self._waiting])
        trimmed_sums(order, indptr, rows, self.trimmed_nano, self.rows)

        tails = np.concatenate([upload.tails for upload in self._waiting])
        everybody = np.array([0, len(tails)])
        trimmed_sums(np.arange(len(tails)), everybody, tails, self.trimmed_nano, self.tail[None])
        self._waiting.clear()

    def digest(self) -> Digest:
        """Return what the model entry says of the sum: SHA-256 of rows, then tail, as little-endian 64-bit integers."""
        return Digest(sha256(self.rows.astype("<i8").tobytes() + self.tail.astype("<i8").tobytes()).digest())

    def total(self, fraction_bits: int) -> AggregatedStatistics:
        """Return the sum in the statistic's unit: a value v in grid units is v * 2**-fraction_bits."""
        unit = np.float64(2.0**-fraction_bits)
        return AggregatedStatistics(self.rows * unit, self.tail * unit, self.n_uploads, float(self.n_copies))
