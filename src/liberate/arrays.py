"""Array and identifier types that cross the borders between packages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealStatistics:
    """What a batch of devices computed: for each, some rows of a statistic's table, and a tail outside it.

    Device d owns rows `indptr[d]:indptr[d + 1]`; their indices are strictly increasing.

    Attributes:
        indptr: Row ranges, shape (n_devices + 1,).
        indices: Where each row stands in the statistic's table: of most statistics the item, shape (n,).
        rows: Numbers per row, shape (n, width).
        tails: Numbers per device outside the table, shape (n_devices, n_tail).
    """

    indptr: Int64Array
    indices: Int32Array
    rows: Float32Array
    tails: Float64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPointStatistics:
    """What leaves a batch of devices: `RealStatistics` after clipping, the integer grid and noise.

    Shapes and ownership as in `RealStatistics`; a value v stands for v * 2**-fraction_bits of its release.
    A dense release has every row of the table.
    """

    indptr: Int64Array
    indices: Int32Array
    rows: Int32Array
    tails: Int64Array
