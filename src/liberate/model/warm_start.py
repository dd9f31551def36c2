"""A further run starts from a model, too: the last one with new items added, or a fresh one."""

from __future__ import annotations

import numpy as np

from liberate.model.model import Array, Model
from liberate.model.solvers import FIRST_VERSION


def warm_started(fresh: Model, version: int, last: Model | None) -> tuple[Model, bool]:
    """Return the first model of a further run, and whether it goes on with the last model.

    It does where that is of the same statistic, scale and shape, but for items that were added since: they start as
    they would in a fresh model. What an optimizer remembers is not taken over: it begins anew.

    Args:
        fresh: The first model of a first run with all items.
        version: Version that the federation has reached.
        last: Its last model, whose items are the first ones of `fresh`; None: it may not be used.
    """
    arrays = None if last is None else _grown(fresh, last)
    chosen = dict(fresh.arrays) if arrays is None else arrays
    begin: dict[str, Array] = {FIRST_VERSION: np.array([float(version)])} if version else {}
    first = Model.of(version, fresh.statistic, fresh.low, fresh.high, chosen | begin)
    return first, arrays is not None


def _grown(fresh: Model, last: Model) -> dict[str, Array] | None:
    """Return the last model's arrays at the size of the fresh one's; None where they do not fit."""
    if (last.statistic, last.low, last.high) != (fresh.statistic, fresh.low, fresh.high):
        return None
    arrays: dict[str, Array] = {}
    for name, new in fresh.arrays.items():
        old = last.arrays.get(name)
        if old is None or old.dtype != new.dtype:
            return None
        if old.shape != new.shape:
            if old.shape != (last.n_items, *new.shape[1:]) or len(new) != fresh.n_items:
                return None
            old = np.concatenate([old, new[last.n_items :]])
        arrays[name] = old
    return arrays
