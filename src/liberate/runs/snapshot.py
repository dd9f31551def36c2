"""What participants have done in a federation before a run: what they have spent, whether they can take part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liberate.crypto.canonical_json import LARGEST_INTEGER
from liberate.data.dataset import Dataset
from liberate.data.ratings import Ratings
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import held_ratings
from liberate.federation.terms import is_no_weaker
from liberate.identifiers import PricedAccount
from liberate.ledger.format.parts import Terms
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.privacy.gaussian_tradeoff import rho_nano_limit
from liberate.runs.run_data import erased_users
from liberate.runs.terms import founding_terms
from liberate.settings import Settings
from liberate.units import NANO

ACCOUNTS: tuple[PricedAccount, ...] = ("epsilon", "rho")


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSnapshot:
    """What participants have done in a federation before a run.

    Attributes:
        number: Of the run.
        limits: Most that a participant may spend from each account in all runs by the genesis, in 1e-9.
        own_limits: The same by each user's device, shape (n_users,); None: it has no limit yet.
        has_limit: Whether the genesis has a limit.
        spent: What each user of the data set has spent from each account, shape (n_users,).
        is_active: Whether a user can take part: has a valid key and has not withdrawn, shape (n_users,).
        erased: Users of the data set who were erased.
        has_copies: Whether the coordinator has received copies for its pool that it may use.
        stored: The ratings on the device of each user of the data set.
        terms: What promises rest on.
        accepted: What each user of the data set has accepted of it last; None: nothing yet, shape (n_users,).
        newcomers: Users of the data set who are not enrolled, >= 0.
        enrolled: Participants ever enrolled, >= 0.
    """

    number: int = 1
    limits: Mapping[PricedAccount, int]
    own_limits: Mapping[PricedAccount, Sequence[int | None]]
    has_limit: bool
    spent: Mapping[PricedAccount, Sequence[int]]
    is_active: Sequence[bool]
    erased: Sequence[int] = ()
    has_copies: bool = False
    stored: Ratings
    terms: Terms
    accepted: Sequence[Terms | None]
    newcomers: int
    enrolled: int = 0

    def accepts(self, user: int, terms: Terms) -> bool:
        """Whether a user's device accepts terms without asking its owner, who may have accepted them before."""
        accepted = self.accepted[user]
        return accepted is None or accepted == terms or is_no_weaker(terms, accepted)

    def is_limited(self, user: int) -> bool:
        """Whether a user has a limit for life, by the ledger or by their own device."""
        return self.has_limit or self.own_limits["epsilon"][user] is not None

    def limit(self, account: PricedAccount, user: int) -> int:
        """Return the most that a user may spend from an account in all runs, in 1e-9: the least of both limits.

        It is zero where they have a limit and have spent from the other account: both accounts together are worth more
        than either says.
        """
        others = (self.spent[name][user] for name in ACCOUNTS if name != account)
        if self.is_limited(user) and any(others):
            return 0
        own = self.own_limits[account][user]
        return self.limits[account] if own is None else min(own, self.limits[account])

    def left(self, account: PricedAccount, user: int) -> int:
        """Return what a user may still spend from an account, in 1e-9, >= 0."""
        return max(0, self.limit(account, user) - self.spent[account][user])


def limits(settings: Settings) -> dict[PricedAccount, int | None]:
    """Return what the genesis of a new ledger lets a participant spend from each account, in 1e-9; None: no limit.

    Unless settings say otherwise it is what the first run promises.
    """
    epsilon, delta = settings.ledger.epsilon_limit, settings.privacy.delta
    if epsilon is None and settings.privacy.mode in ("local", "distributed"):
        epsilon = settings.privacy.epsilon
    if epsilon is None:
        return {"epsilon": None, "rho": None}
    return {"epsilon": math.ceil(epsilon * NANO), "rho": rho_nano_limit(epsilon, delta)}


def new_snapshot(settings: Settings, train: Ratings) -> FederationSnapshot:
    """Return the snapshot of a federation that is yet to be set up: nobody has done anything."""
    most = limits(settings)
    return FederationSnapshot(
        limits={name: LARGEST_INTEGER if limit is None else limit for name, limit in most.items()},
        own_limits={name: [None] * train.n_users for name in ACCOUNTS},
        has_limit=most["epsilon"] is not None,
        spent={name: [0] * train.n_users for name in ACCOUNTS},
        is_active=[True] * train.n_users,
        stored=train.where(np.zeros(train.n_ratings, np.bool_)),
        terms=founding_terms(settings, train.n_users),
        accepted=[None] * train.n_users,
        newcomers=train.n_users,
    )


def read_snapshot(federation: Path, dataset: Dataset) -> FederationSnapshot:
    """Read what participants have spent: by the ledger or, where an answer never got there, by their device."""
    with (
        DeviceStore(federation / "devices") as devices,
        closing(SqliteLedger.open(federation / "ledger")) as ledger,
    ):
        state = ledger.state
        by_id = {device.user_id: device for device in devices.devices()}
        known = [by_id.get(name) for name in dataset.user_ids]
        principals = [
            None if device is None or device.number is None else state.principals[device.number] for device in known
        ]
        accounts = [[owner for owner in owners if owner] for owners in zip(known, principals, strict=True)]
        accepted = {slot: chosen.terms for slot, chosen in devices.accepted_terms().items()}
        received = (share.record.recipient for _, share in state.usable_shares())

        return FederationSnapshot(
            number=1 if state.run is None else state.run.number + 1,
            limits={name: state.limit(name) for name in ACCOUNTS},
            own_limits={
                "epsilon": [None if device is None else device.epsilon_nano_limit for device in known],
                "rho": [None if device is None else device.rho_nano_limit for device in known],
            },
            has_limit=state.founding.has_limit,
            spent={
                "epsilon": [max((owner.epsilon_nano for owner in owners), default=0) for owners in accounts],
                "rho": [max((owner.rho_nano for owner in owners), default=0) for owners in accounts],
            },
            is_active=[principal is None or principal.can_answer for principal in principals],
            erased=erased_users(devices, dataset),
            has_copies=any(state.principals[recipient].role == "coordinator" for recipient in received),
            stored=held_ratings(devices, dataset.user_ids, len(dataset.item_ids)),
            terms=state.terms,
            accepted=[None if device is None else accepted.get(device.slot) for device in known],
            newcomers=principals.count(None),
            enrolled=state.participant_count,
        )
