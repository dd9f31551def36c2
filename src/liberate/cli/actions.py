"""`liberate consent`, `share`, `accept`, `withdraw`, `erase`: what participants decide about their data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from liberate.cli.keys import Participant, note_unpublished
from liberate.cli.output import JsonFlag, fields_of, print_json, print_pairs, print_result
from liberate.cli.run import Folder

Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for a training that uses the ledger.")]
Entry = Annotated[int | None, typer.Option(metavar="ENTRY", help="Position of the consent in the ledger.")]
Recipients = Annotated[
    list[str] | None,
    typer.Option(help="Who may receive copies: participants, or pool for the coordinator; repeatable. Default: pool."),
]
Epsilon = Annotated[
    float | None,
    typer.Option(help="Perturb each rating once with this epsilon; copies reveal no more. Default: exact ratings."),
]
Items = Annotated[
    list[str] | None,
    typer.Option("--item", help="An item whose rating may be copied; repeatable. Default: all items."),
]

_LOOK_EVERY_S = 0.2


def consent(
    folder: Folder,
    participant: Participant,
    to: Recipients = None,
    shares: Annotated[int, typer.Option(min=1, help="How many copies may be handed over.")] = 10,
    blocks: Annotated[int, typer.Option(min=1, help="For how many blocks of the ledger it is valid.")] = 10_000,
    epsilon: Epsilon = None,
    fraction: Annotated[float, typer.Option(min=0, max=1, help="Fraction of the ratings to copy.")] = 1.0,
    items: Items = None,
    purpose: Annotated[str, typer.Option(help="What the copies are for; recipients are told.")] = "",
    wait: Wait = 60,
    as_json: JsonFlag = False,
) -> None:
    """Allow others to receive copies of a participant's ratings, within limits, until it is withdrawn."""
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    outcome = actions.consent(
        load_run(folder),
        participant,
        recipients=to or [actions.POOL_RECIPIENT],
        max_shares=shares,
        blocks=blocks,
        epsilon=epsilon,
        rating_fraction=fraction,
        items=items,
        purpose=purpose,
        wait=_patience(wait),
    )
    _print(outcome, as_json=as_json)


def share(
    folder: Folder,
    participant: Participant,
    to: Annotated[
        str, typer.Option(help="Who receives the copy: a participant, or pool for the coordinator.")
    ] = "pool",
    consent: Entry = None,
    wait: Wait = 60,
    as_json: JsonFlag = False,
) -> None:
    """Hand over a copy of a participant's ratings, under the newest consent that names the recipient."""
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    outcome = actions.share(load_run(folder), participant, recipient=to, consent=consent, wait=_patience(wait))
    _print(outcome, as_json=as_json)


def withdraw(
    folder: Folder,
    participant: Participant,
    consent: Entry = None,
    wait: Wait = 60,
    as_json: JsonFlag = False,
) -> None:
    """Withdraw one consent; without --consent, withdraw from everything, permanently.

    Then there are no further rounds, updates or copies. Models that have already used the data stay as they are.
    """
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    _print(actions.withdraw(load_run(folder), participant, consent=consent, wait=_patience(wait)), as_json=as_json)


def erase(folder: Folder, participant: Participant, wait: Wait = 60, as_json: JsonFlag = False) -> None:
    """Erase a participant permanently: withdraw all consents and destroy all stored data.

    Every recipient of a copy is asked to destroy it. This cannot be undone: the keys are overwritten.
    """
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    _print(actions.erase(load_run(folder), participant, wait=_patience(wait)), as_json=as_json)


def accept(
    folder: Folder,
    participant: Participant,
    limit: Annotated[int | None, typer.Option(min=0, help="How many copies at most; by default any number.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Set how many copies of others' ratings a participant accepts; 0 declines all further copies."""
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    print_result(actions.set_copy_quota(load_run(folder), participant, limit=limit), as_json=as_json)


def _patience(seconds: float) -> Callable[[], bool]:
    """Return what waits for a training: a little each time, so many seconds in all."""
    import time

    end = time.monotonic() + seconds

    def wait() -> bool:
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_EVERY_S)
        return True

    return wait


def _print(outcome: object, *, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
        return
    fields = fields_of(outcome)
    is_queued = fields.pop("under_way")
    print_pairs(fields)
    if is_queued:
        print("queued: this takes effect when the current round ends, and will then appear in the ledger")
        return
    note_unpublished(fields)
