"""How numerical loops are compiled: for devices, for all cores, for one core, and kept on disk where there is room."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import numba

# A thread that waits in a spin takes the core its fellow needs: on a busy machine rounds became ten times slower.
# The OpenMP runtime reads this when the first parallel kernel starts it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])
prange: type[range] = numba.prange
N_PARTS = 16
REASSOCIATE = {"contract", "reassoc", "nsz", "arcp", "afn"}


def device_kernel(function: FunctionT) -> FunctionT:
    """Compile for devices: two or more cores, float32, sums may be reassociated."""
    return _compiled(function, parallel=True, fastmath=REASSOCIATE)


def parallel_kernel(function: FunctionT) -> FunctionT:
    """Compile for all cores, IEEE arithmetic exactly as written."""
    return _compiled(function, parallel=True)


def serial_kernel(function: FunctionT) -> FunctionT:
    """Compile for one core, IEEE arithmetic exactly as written."""
    return _compiled(function)


def _compiled(function: FunctionT, *, parallel: bool = False, fastmath: bool | set[str] = False) -> FunctionT:
    njit = partial(numba.njit, error_model="numpy", parallel=parallel, fastmath=fastmath)
    try:
        return cast(FunctionT, njit(cache=True)(function))
    except RuntimeError:
        # Neither the package's folder nor the user's can be written to: machine code lasts as long as the process.
        return cast(FunctionT, njit()(function))
