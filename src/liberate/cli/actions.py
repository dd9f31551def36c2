"""`liberate consent`, `share`, `accept`, `withdraw`, `erase`: what a participant decides about the own data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from liberate.cli.keys import Participant
from liberate.cli.output import JsonFlag, print_json, print_pairs
from liberate.cli.run import Folder

if TYPE_CHECKING:
    from liberate.runs.request_submission import RequestOutcome

Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for a training that owns the ledger.")]
Entry = Annotated[int | None, typer.Option(metavar="ENTRY", help="Position of the consent on the ledger.")]

_LOOK_EVERY_S = 0.2


def consent(
    folder: Folder,
    participant: Participant,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="Who may get copies: participants, or pool for the coordinator; may be repeated. Without: pool."
        ),
    ] = None,
    shares: Annotated[int, typer.Option(min=1, help="How many copies may be handed over.")] = 10,
    blocks: Annotated[int, typer.Option(min=1, help="For how many blocks of the ledger it lives.")] = 10_000,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Perturb each rating once at this epsilon; the copies reveal no more. Without: open copies."),
    ] = None,
    fraction: Annotated[float, typer.Option(min=0, max=1, help="Part of the ratings that copies have.")] = 1.0,
    item: Annotated[
        list[str] | None,
        typer.Option(help="An item whose rating copies may have; may be repeated. Without: all items."),
    ] = None,
    purpose: Annotated[str, typer.Option(help="What the copies are for; recipients are told.")] = "",
    wait: Wait = 60,
    as_json: JsonFlag = False,
) -> None:
    """Let others have copies of a participant's ratings, within limits, until it is taken back."""
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    found = actions.consent(
        load_run(folder),
        participant,
        recipients=to or [actions.POOL_RECIPIENT],
        max_shares=shares,
        blocks=blocks,
        epsilon=epsilon,
        rating_fraction=fraction,
        items=item,
        purpose=purpose,
        wait=_patience(wait),
    )
    _print(found, as_json=as_json)


def share(
    folder: Folder,
    participant: Participant,
    to: Annotated[str, typer.Option(help="Who gets the copy: a participant, or pool for the coordinator.")] = "pool",
    consent: Entry = None,
    wait: Wait = 60,
    as_json: JsonFlag = False,
) -> None:
    """Hand a copy of a participant's ratings over, under the newest consent that names the recipient."""
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    found = actions.share(load_run(folder), participant, recipient=to, consent=consent, wait=_patience(wait))
    _print(found, as_json=as_json)


def withdraw(
    folder: Folder,
    participant: Participant,
    consent: Entry = None,
    wait: Wait = 60,
    as_json: JsonFlag = False,
) -> None:
    """Take one consent back, or, without --consent, everything for good: no later round, answer or copy.

    Models that have used the data stay as they are.
    """
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    _print(actions.withdraw(load_run(folder), participant, consent=consent, wait=_patience(wait)), as_json=as_json)


def erase(folder: Folder, participant: Participant, wait: Wait = 60, as_json: JsonFlag = False) -> None:
    """Forget a participant for good: withdraw everything, destroy what is stored, ask whoever got copies to do so.

    Nobody can undo it: the keys are overwritten.
    """
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    found = actions.erase(load_run(folder), participant, wait=_patience(wait))
    _print(found, as_json=as_json)


def accept(
    folder: Folder,
    participant: Participant,
    limit: Annotated[int | None, typer.Option(min=0, help="Copies at most; without it, as many as there are.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Set how many copies of others' ratings a participant takes: 0 declines all that come from now on."""
    from liberate.json_edge import to_json
    from liberate.runs import actions
    from liberate.runs.folder import load_run

    found = to_json(actions.set_copy_quota(load_run(folder), participant, limit=limit))
    if as_json:
        print_json(found)
    else:
        print_pairs(found)


def _patience(seconds: float) -> Callable[[], bool]:
    """Give what waits for a training: a little each time, so many seconds in all."""
    import time

    end = time.monotonic() + seconds

    def wait() -> bool:
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_EVERY_S)
        return True

    return wait


def _print(outcome: RequestOutcome, *, as_json: bool) -> None:
    from liberate.json_edge import to_json

    found = to_json(outcome)
    if as_json:
        print_json(found)
        return
    print_pairs({name: value for name, value in found.items() if name != "under_way"})
    if found["under_way"]:
        print("under way: it is carried out when nobody is in the middle of a round; the ledger shows its entry then")
        return
    if found.get("simulated"):
        print("note: this is a simulation, whose keys can be made again from its seed")
    if not found["published"]:
        print("note: too few witnesses have cosigned it; the next command that writes to the ledger asks them again")
