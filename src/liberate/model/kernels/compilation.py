"""How kernels are compiled: for devices, for the server, for one core."""

from __future__ import annotations

import os
from collections.abc import Callable
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
    return cast(FunctionT, numba.njit(parallel=True, cache=True, error_model="numpy", fastmath=REASSOCIATE)(function))


def server_kernel(function: FunctionT) -> FunctionT:
    """Compile for the server: IEEE arithmetic exactly as written."""
    return cast(FunctionT, numba.njit(parallel=True, cache=True, error_model="numpy")(function))


def serial_kernel(function: FunctionT) -> FunctionT:
    """Compile for one core, IEEE arithmetic exactly as written."""
    return cast(FunctionT, numba.njit(cache=True, error_model="numpy")(function))
