"""The sum of a round's uploads, which the coordinator takes and an auditor takes again: integers, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from liberate.arrays import Digest, GridRows, Int64Array
from liberate.model.kernels import add_rows
from liberate.model.solvers import Total


@dataclass(slots=True)
class Sum:
    """What has been added up so far, in grid units.

    Attributes:
        rows: Sum of the rows, shape (n_rows, width).
        tail: Sum of the tails, shape (n_tail,).
        n_uploads: Uploads in the sum, >= 0.
    """

    rows: Int64Array
    tail: Int64Array
    n_uploads: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> Sum:
        """Give the sum of nothing; `shape` is (n_rows, width, n_tail) of the round entry."""
        n_rows, width, n_tail = shape
        return cls(np.zeros((n_rows, width), np.int64), np.zeros(n_tail, np.int64))

    def add(self, upload: GridRows) -> None:
        """Add a batch of one upload."""
        add_rows(self.rows, upload.indices, upload.rows)
        self.tail += upload.tails[0]
        self.n_uploads += 1

    def digest(self) -> Digest:
        """Give what the model entry says of the sum: SHA-256 over rows, then tail, as little-endian 64-bit integers."""
        return Digest(sha256(self.rows.astype("<i8").tobytes() + self.tail.astype("<i8").tobytes()).digest())

    def total(self, grid_bits: int) -> Total:
        """Give the sum in the statistic's unit; a value v stands for v * 2**-grid_bits."""
        unit = np.float64(2.0**-grid_bits)
        return Total(self.rows * unit, self.tail * unit, self.n_uploads)
