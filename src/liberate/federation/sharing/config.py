"""Who shares ratings, in a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.units import NANO


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingConfig:
    """Who shares ratings, in a simulation; elsewhere participants decide for themselves, see `consent` and `share`.

    Attributes:
        user_fraction: Part of the run's participants that share, 0 <= user_fraction <= 1.
        rating_fraction: Part of their ratings that each of them shares, 0 < rating_fraction <= 1.
        recipients: Who gets copies: `pool` is the coordinator, who learns from them before the first round; `peers` are
            participants, whose open answers use them (`plain`); private answers use none.
        n_recipients: Peers that each sharing participant gives a copy to, > 0.
        epsilon: At which each shared rating is perturbed, once, before any copy is made, >= 1e-9; unset = copies are
            open.
    """

    user_fraction: Annotated[float, Ge(0), Le(1)] = 0.0
    rating_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    recipients: Literal["pool", "peers"] = "pool"
    n_recipients: Annotated[int, Gt(0)] = 10
    epsilon: Annotated[float, Ge(1e-9), Le(LARGEST_INTEGER // NANO)] | None = None
