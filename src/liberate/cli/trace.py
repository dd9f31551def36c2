"""`liberate trace`: where did my data go, who shaped this model, whose copy leaked?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from liberate.cli.output import JsonFlag, count, print_json, print_table, progress_lines, show
from liberate.cli.run import Folder

_FEW = 20
"""As many names are listed in a line; JSON has all."""


def trace(
    folder: Folder,
    participant: Annotated[
        str | None, typer.Option(help="Where this one's data went: participant number, key id, or user:ID.")
    ] = None,
    share: Annotated[int | None, typer.Option(min=0, help="What became of one copy: position of its share.")] = None,
    model: Annotated[int | None, typer.Option(min=1, help="Who shaped this version.")] = None,
    recipient: Annotated[
        str | None, typer.Option(help="What this one got from whom: as --participant, or a coordinator's number.")
    ] = None,
    leak: Annotated[
        Path | None,
        typer.Option(
            help="Whose copy these rows are, a CSV or Parquet file; first an entry says that an auditor looks it up.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    influence: Annotated[
        bool,
        typer.Option(
            "--influence",
            help="With --model: how large each upload was that the run kept, and how the others fare without it.",
        ),
    ] = False,
    svg: Annotated[Path | None, typer.Option(help="Draw the answer into this file as well.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the ledger one question about data and models; every proof is checked before it answers."""
    from liberate.runs.folder import load_run
    from liberate.tracing.answers import trace_model, trace_person, trace_recipient, trace_share

    if [participant, share, model, recipient, leak].count(None) != 4:
        raise typer.BadParameter("one of --participant, --share, --model, --recipient and --leak is wanted")
    if influence and (model is None or svg is not None):
        raise typer.BadParameter("--influence goes with --model, and is not drawn")
    if svg is not None and not svg.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {svg.parent} to draw into")
    run = load_run(folder)
    found: dict[str, Any]
    told: Callable[[dict[str, Any]], None]
    if participant is not None:
        found, told = trace_person(run, participant), _tell_person
    elif share is not None:
        found, told = trace_share(run, share), _tell_share
    elif model is not None and influence:
        from liberate.tracing.influence import trace_influence

        with progress_lines() as progress:
            found, told = trace_influence(run, model, progress), _tell_influence
    elif model is not None:
        with progress_lines() as progress:
            found, told = trace_model(run, model, progress), _tell_model
    elif recipient is not None:
        found, told = trace_recipient(run, recipient), _tell_recipient
    else:
        from liberate.tracing.leak.lookup import trace_leak

        found, told = trace_leak(run, leak or Path(), announce=_announce), _tell_leak
    if svg is not None:
        from liberate.report import draw

        draw(found, svg)
    if as_json:
        print_json(found)
        return
    told(found)
    if svg is not None:
        print(f"\ndrawn into {svg}")


def _announce(position: int, n_participants: int) -> None:
    participants = count(n_participants, "participant")
    print(f"note: entry {position} says that an auditor looks up copies of {participants}", file=sys.stderr)


def _tell_person(found: dict[str, Any]) -> None:
    print(f"participant {found['number']} (key {found['key_id']}, user {show(found['user_id'])})")
    _tell_proofs(found)
    print(f"complete: these {len(found['entries'])} entries are all that name you, under the log's state root")
    print(f"spent: epsilon {show(found['epsilon'])}, rho {show(found['rho'])}")
    if len(found["spent"]) > 1:
        for run in found["spent"]:
            print(f"  run {run['run']}: epsilon {show(run['epsilon'])}, rho {show(run['rho'])}")
    print()
    for entry in found["entries"]:
        if entry["kind"] != "update":
            print(f"block {entry['block']}: {entry['kind']}, entry {entry['position']}{_by(entry, found['number'])}")
    print()
    columns = ("round", "position", "block", "outcome", "version", "descendants")
    rows = [[update[column] for column in columns] for update in found["updates"]]
    print_table(["round", "entry", "block", "outcome", "model", "models built on it"], rows)
    if found["shares"]:
        _tell_copies(found["shares"], "copies handed over", "recipient")
        _tell_uses(found["uses"])
    _tell_copies(found["received"], "copies received", "sender")
    _tell_withdrawal(found)
    _tell_erasures(found["erasures"])


def _tell_share(found: dict[str, Any]) -> None:
    (share,), (recipient,) = found["shares"], found["recipients"]
    print(f"entry {share['position']}: {_name(found['sender'])} gave {_name(recipient)} a copy, {_protection(share)}")
    print(f"consent: entry {share['consent']}, {_standing(share)}")
    receipt = share["receipt"]
    print("not accepted: there is no receipt" if receipt is None else f"accepted: entry {receipt}")
    _tell_proofs(found)
    _tell_uses(found["uses"])
    versions = [model["version"] for model in found["models"]]
    print(f"\nshaped models: {_listed(versions)}")
    print(f"models built on these: {_listed([model['version'] for model in found['descendants']])}")
    print(f"other copies of the same base: {_listed([each['position'] for each in found['same_base']], 'entry ')}")


def _tell_model(found: dict[str, Any]) -> None:
    print(f"model {found['version']}, back to the first model of its line")
    _tell_proofs(found)
    print()
    columns = ["model", "entry", "round", "answers", "participants", "senders of copies", "in the pool"]
    rows = [
        [
            step["version"],
            step["position"],
            step["round"],
            *(len(step[name]) for name in ("updates", "participants", "senders", "pooled")),
        ]
        for step in found["models"]
    ]
    print_table(columns, rows)
    for name, words in (("answers", "own answers"), ("copies", "copies that others used"), ("pooled", "the pool")):
        participants = [person["number"] for person in found["participants"] if person[name]]
        print(
            f"\nby {words}: {count(len(participants), 'participant')}"
            + (f", {_listed(participants)}" if participants else "")
        )


def _tell_influence(found: dict[str, Any]) -> None:
    participants = found["participants"]
    print(
        f"model {found['version']}, of round {found['round']}: "
        f"{len(participants)} uploads of statistic {found['statistic']}"
    )
    bound = "what ratings can give" if found["bound"] is None else f"{show(found['bound'])} at most"
    print(f"{found['norm']} norm: median {show(found['median'])}; each was held against {bound}")
    if found["missing"]:
        print(f"uploads that are not here: {found['missing']}")
    print("\nthe others' RMSE is larger by so much because of the upload, the worst first")
    columns = ["participant", "key", "user", "norm", "of a row", "on their ratings", "on held-out ones"]
    rows = [
        [each[key] for key in ("number", "key_id", "user_id", "size", "row", "fit", "held_out")]
        for each in participants
    ]
    print_table(columns, rows[:_FEW])


def _tell_recipient(found: dict[str, Any]) -> None:
    print(f"{_name(found)} (key {found['key_id']}) received {count(len(found['shares']), 'copy', 'copies')}")
    _tell_proofs(found)
    print("complete: under the log's state root there are no others")
    _tell_copies(found["shares"], "copies received", "sender")


def _tell_leak(found: dict[str, Any]) -> None:
    leak = found["leak"]
    bases = count(len(found["owners"]), "base copy that was shared", "base copies that were shared")
    print(f"{leak['rows']} rows, {leak['matched']} of them from {bases}")
    _tell_proofs(found)
    print()
    columns = ["candidate", "key", "user", "likelihood", "false accusation", "accused", "also held by"]
    rows = [
        [
            _name(each),
            each["key_id"],
            each["user_id"],
            f"10^{each['log10_likelihood']:.1f}",
            f"at most {each['bound']:.2g}",
            each["accused"],
            each["also_held_by"],
        ]
        for each in found["candidates"]
    ]
    print_table(columns, rows[:_FEW])
    accused = [_name(each) for each in found["candidates"] if each["accused"]]
    print(f"\naccused: {', '.join(accused) if accused else 'nobody'}")
    print("marks cannot tell a recipient from the senders, who can make every copy; nor from who took it there")


def _tell_proofs(found: dict[str, Any]) -> None:
    print(f"checked {found['proofs']} proofs against {found['entry_count']} entries, root {found['root']}")


def _tell_copies(copies: Sequence[dict[str, Any]], title: str, whom: str) -> None:
    if not copies:
        return
    print(f"\n{title}")
    rows = [
        [each["position"], each[whom], _protection(each), each["consent"], each["receipt"], _standing(each)]
        for each in copies
    ]
    print_table(["entry", whom, "ratings", "consent", "receipt", "the consent"], rows)


def _tell_uses(uses: Sequence[dict[str, Any]]) -> None:
    if not uses:
        print("\nno copy was used by anybody")
        return
    print("\nuses of the copies by others")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for each in uses:
        groups.setdefault((each["by"], each["kind"], *each["shares"], each["outcome"]), []).append(each)
    rows = [
        [
            each[0]["by"],
            each[0]["kind"],
            each[0]["shares"],
            _span(each, "round"),
            each[0]["outcome"],
            _span(each, "version"),
        ]
        for each in groups.values()
    ]
    print_table(["by", "as", "shares", "rounds", "outcome", "models"], rows)


def _span(uses: Sequence[dict[str, Any]], name: str) -> str | None:
    """Write rounds or versions, which increase, in short."""
    found = [each[name] for each in uses if each[name] is not None]
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"{found[0]} to {found[-1]}"
    return ", ".join(map(str, found)) or None


def _tell_withdrawal(found: dict[str, Any]) -> None:
    is_over = any(consent["withdrawn"] is not None for consent in found["consents"])
    if found["withdrawal"] is not None:
        print(f"\nwithdrawn from everything: entry {found['withdrawal']}")
    elif is_over:
        print("\nconsents were withdrawn")
    for each in found["used_after_withdrawal"]:
        what = f"round {each['round']}" if each["version"] is None else f"model {each['version']}"
        print(f"{what} came after that and used entry {each['position']}, which was accepted before")
    if not found["used_after_withdrawal"] and (is_over or found["withdrawal"] is not None):
        print("nothing was used after that")


def _tell_erasures(erasures: Sequence[dict[str, Any]]) -> None:
    for each in erasures:
        if each["destroyed"] is None:
            print(f"\nasked to be forgotten: entry {each['position']}")
            continue
        silent = [number for number in each["notified"] if number not in each["confirmed"]]
        print(f"forgotten: entry {each['position']}, destroyed {', '.join(each['destroyed']) or 'nothing'}")
        print(f"  recipients told: {_listed(each['notified'])}; silent: {_listed(silent)}")
        print(f"  models that contain the data: {_listed(each['models'])}")


def _by(entry: dict[str, Any], person: int) -> str:
    return "" if entry["author"] == person or entry["kind"] == "enrol" else f", by {entry['author']}"


def _name(party: dict[str, Any]) -> str:
    return f"{party['role']} {party['number']}"


def _protection(share: dict[str, Any]) -> str:
    return "open" if share["epsilon"] is None else f"epsilon {show(share['epsilon'])} each"


def _standing(share: dict[str, Any]) -> str:
    if share["withdrawn"] is not None:
        return f"withdrawn, entry {share['withdrawn']}"
    return "holds" if share["is_active"] else "expired"


def _listed(values: Sequence[int], before: str = "") -> str:
    """List numbers, the first ones where there are many."""
    shown = ", ".join(f"{before}{value}" for value in values[:_FEW]) or "none"
    return shown + (f" and {len(values) - _FEW} more" if len(values) > _FEW else "")
