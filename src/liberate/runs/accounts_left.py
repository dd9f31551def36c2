"""What the people of a federation may still spend in further runs."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from liberate.federation.store.devices import DeviceStore
from liberate.identifiers import PricedAccount
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.rules.principal import Principal
from liberate.runs.federation_folder import federation_folder_of
from liberate.units import from_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLeft:
    """What some people have left in an account; a person spends from one account only.

    Attributes:
        account: The account.
        left: What is left, in units of the account; None: they have no limit yet.
        people: How many people have so much left.
    """

    account: str
    left: float | None
    people: int


def accounts_left(ledger: Path) -> tuple[AccountLeft, ...]:
    """Return what is left of each account for how many people, most first: the least of their two limits counts.

    Args:
        ledger: A federation's folder, or that of one of its runs.
    """
    folder = federation_folder_of(ledger)
    with DeviceStore(folder / "devices") as devices, closing(SqliteLedger.open(folder / "ledger")) as log:
        founding, principals = log.state.founding, log.state.principals
        own = {
            device.number: {"epsilon": device.epsilon_nano_limit, "rho": device.rho_nano_limit}
            for device in devices.devices()
            if device.number is not None
        }

    by_genesis = {"epsilon": founding.epsilon_nano_limit, "rho": founding.rho_nano_limit}
    accounts: tuple[PricedAccount, ...] = ("epsilon", "rho")
    counts: Counter[tuple[str, int | None]] = Counter()
    for number, principal in enumerate(principals):
        if principal.role != "participant" or not principal.is_active:
            continue
        for account in accounts:
            limits = [by_genesis[account], own.get(number, {}).get(account)]
            counts[account, _left(principal, account, [limit for limit in limits if limit is not None])] += 1

    ordered = sorted(counts.items(), key=lambda item: (item[0][0], item[0][1] is not None, -(item[0][1] or 0)))
    return tuple(
        AccountLeft(account=account, left=None if left is None else from_nano(left), people=people)
        for (account, left), people in ordered
    )


def _left(principal: Principal, account: PricedAccount, limits: list[int]) -> int | None:
    """Return what a person has left of an account, in 1e-9; None: there is no limit."""
    if not limits:
        return None
    return 0 if principal.spends_otherwise(account) else max(0, min(limits) - principal.spent(account))
