"""How answers of `liberate trace` are told in words and tables."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import assert_never

from liberate.cli.output import count, print_table, show
from liberate.identifiers import Digest
from liberate.tracing.answers import ModelAnswer, ParticipantAnswer, RecipientAnswer, ShareAnswer
from liberate.tracing.entry_answers import ContributionAnswer, CopyAnswer, EntryAnswer, ErasureAnswer, UseAnswer
from liberate.tracing.influence import InfluenceAnswer
from liberate.tracing.leak.answers import LeakAnswer
from liberate.tracing.parties import Party

TraceAnswer = ParticipantAnswer | ShareAnswer | RecipientAnswer | ModelAnswer | InfluenceAnswer | LeakAnswer

_FEW = 20
"""As many names are listed in a line; JSON has all."""


def print_answer(answer: TraceAnswer) -> None:
    """Print an answer for a person."""
    match answer:
        case ParticipantAnswer():
            _print_participant(answer)
        case ShareAnswer():
            _print_share(answer)
        case RecipientAnswer():
            _print_recipient(answer)
        case ModelAnswer():
            _print_model(answer)
        case InfluenceAnswer():
            _print_influence(answer)
        case LeakAnswer():
            _print_leak(answer)
        case _:
            assert_never(answer)


def _print_participant(answer: ParticipantAnswer) -> None:
    print(f"participant {answer.number} (key {answer.key_id}, user {show(answer.user_id)})")
    _print_proofs(answer.proofs, answer.entry_count, answer.root)
    n_entries = count(len(answer.entries), "entry", "entries")
    print(f"complete: the log proves that no entries about you are missing ({n_entries})")

    registrars = ("registrar " if len(answer.enrolled_by) == 1 else "registrars ") + ", ".join(
        map(str, answer.enrolled_by)
    )
    held = "a host holds your keys" if answer.custody == "host" else "you hold your keys"
    print(f"enrolled by {registrars}; {held}")
    print(f"spent: epsilon {show(answer.epsilon)}, rho {show(answer.rho)}")
    if len(answer.spent) > 1:
        for run in answer.spent:
            print(f"  run {run.run}: epsilon {show(run.epsilon)}, rho {show(run.rho)}")

    print()
    for entry in answer.entries:
        if entry.kind != "update":
            print(f"block {entry.block}: {entry.kind}, entry {entry.position}{_by(entry, answer.number)}")

    print()
    rows = [(u.round, u.position, u.block, u.outcome, u.version, u.descendants) for u in answer.updates]
    print_table(["round", "entry", "block", "outcome", "model", "models built on it"], rows)

    if answer.shares:
        _print_copies("copies handed over", "recipient", [(copy, copy.recipient) for copy in answer.shares])
        _print_uses(answer.uses)
    _print_copies("copies received", "sender", [(copy, copy.sender) for copy in answer.received])
    _print_withdrawal(answer)
    _print_erasures(answer.erasures)


def _print_share(answer: ShareAnswer) -> None:
    (copy,), (recipient,) = answer.shares, answer.recipients
    sender = _name(answer.sender)
    print(f"entry {copy.position}: {sender} gave {_name(recipient)} a copy, {_protection(copy)}")
    print(f"consent: entry {copy.consent}, {_consent_state(copy)}")
    print("not accepted: there is no receipt" if copy.receipt is None else f"accepted: entry {copy.receipt}")
    _print_proofs(answer.proofs, answer.entry_count, answer.root)
    _print_uses(answer.uses)

    print(f"\nshaped models: {_listed([model.version for model in answer.models])}")
    print(f"models built on these: {_listed([model.version for model in answer.descendants])}")
    print(f"other copies of the same base: {_listed([other.position for other in answer.same_base], 'entry ')}")


def _print_recipient(answer: RecipientAnswer) -> None:
    print(f"{_name(answer)} (key {answer.key_id}) received {count(len(answer.shares), 'copy', 'copies')}")
    _print_proofs(answer.proofs, answer.entry_count, answer.root)
    print("complete: the log proves that no copies are missing")
    _print_copies("copies received", "sender", [(copy, copy.sender) for copy in answer.shares])


def _print_model(answer: ModelAnswer) -> None:
    print(f"model {answer.version}, back to the first model that it was built on")
    _print_proofs(answer.proofs, answer.entry_count, answer.root)
    print()
    columns = ["model", "entry", "round", "updates", "participants", "senders of copies", "in the pool"]
    rows = [
        (m.version, m.position, m.round, len(m.updates), len(m.participants), len(m.senders), len(m.pooled))
        for m in answer.models
    ]
    print_table(columns, rows)

    people = answer.participants
    _print_contributors("their updates", [person.number for person in people if person.answers])
    _print_contributors("copies that others used", [person.number for person in people if person.copies])
    _print_contributors("the pool", [person.number for person in people if person.pooled])


def _print_contributors(means: str, numbers: Sequence[int]) -> None:
    print(f"\nby {means}: {count(len(numbers), 'participant')}" + (f", {_listed(numbers)}" if numbers else ""))


def _print_influence(answer: InfluenceAnswer) -> None:
    uploads = count(len(answer.participants), "upload")
    print(f"model {answer.version}, of round {answer.round}: {uploads} of statistic {answer.statistic}")
    bound = "what ratings can give" if answer.bound is None else f"a limit of {show(answer.bound)}"
    print(f"{answer.norm} norm: median {show(answer.median)}; each was checked against {bound}")
    if answer.missing:
        print(f"uploads that are not here: {answer.missing}")

    print("\nby how much each upload raises the others' RMSE, the worst first")
    columns = ["participant", "key", "user", "norm", "of a row", "on their ratings", "on held-out ones"]
    rows = [(p.number, p.key_id, p.user_id, p.size, p.row, p.fit, p.held_out) for p in answer.participants]
    print_table(columns, rows[:_FEW])


def _print_leak(answer: LeakAnswer) -> None:
    bases = count(len(answer.owners), "base copy that was shared", "base copies that were shared")
    print(f"{count(answer.leak.rows, 'row')}, {answer.leak.matched} of them from {bases}")
    _print_proofs(answer.proofs, answer.entry_count, answer.root)

    print()
    columns = ["candidate", "key", "user", "likelihood", "false accusation", "accused", "also held by"]
    rows = [
        (
            _name(candidate),
            candidate.key_id,
            candidate.user_id,
            f"10^{candidate.log10_likelihood:.1f}",
            f"at most {candidate.bound:.2g}",
            candidate.accused,
            candidate.also_held_by,
        )
        for candidate in answer.candidates
    ]
    print_table(columns, rows[:_FEW])

    accused = [_name(candidate) for candidate in answer.candidates if candidate.accused]
    print(f"\naccused: {', '.join(accused) if accused else 'nobody'}")
    print("note: fingerprints cannot tell a recipient from the senders, who can make every copy, nor from a thief")


def _print_proofs(n_proofs: int, entry_count: int, root: Digest) -> None:
    print(f"checked {n_proofs} proofs against {entry_count} entries, root {b64encode(root).decode()}")


def _print_copies(title: str, other: str, copies: Sequence[tuple[CopyAnswer, int]]) -> None:
    """Print copies, each with who is on its other side."""
    if not copies:
        return
    print(f"\n{title}")
    rows = [(c.position, number, _protection(c), c.consent, c.receipt, _consent_state(c)) for c, number in copies]
    print_table(["entry", other, "ratings", "consent", "receipt", "the consent"], rows)


def _print_uses(uses: Sequence[UseAnswer]) -> None:
    """Print uses, those of the same copies by the same recipient in one line."""
    if not uses:
        print("\nno copy was used by anybody")
        return
    print("\nuses of the copies by others")
    groups: dict[tuple[int, str, tuple[int, ...], str], list[UseAnswer]] = {}
    for use in uses:
        groups.setdefault((use.by, use.kind, use.shares, use.outcome), []).append(use)
    rows = [
        (by, kind, shares, _span([use.round for use in alike]), outcome, _span([use.version for use in alike]))
        for (by, kind, shares, outcome), alike in groups.items()
    ]
    print_table(["by", "as", "shares", "rounds", "outcome", "models"], rows)


def _span(numbers: Sequence[int | None]) -> str | None:
    """Write rounds or versions, which increase, in short."""
    known = [number for number in numbers if number is not None]
    if len(known) > 2 and known[-1] - known[0] == len(known) - 1:
        return f"{known[0]} to {known[-1]}"
    return ", ".join(map(str, known)) or None


def _print_withdrawal(answer: ParticipantAnswer) -> None:
    is_partial = any(consent.withdrawn is not None for consent in answer.consents)
    if answer.withdrawal is not None:
        print(f"\nwithdrawn from everything: entry {answer.withdrawal}")
    elif is_partial:
        print("\nconsents were withdrawn")

    for late in answer.used_after_withdrawal:
        print(f"{_later_use(late)} came later and used entry {late.position}, accepted before the withdrawal")
    if not answer.used_after_withdrawal and (is_partial or answer.withdrawal is not None):
        print("no data was used after the withdrawal")


def _later_use(contribution: ContributionAnswer) -> str:
    return f"round {contribution.round}" if contribution.version is None else f"model {contribution.version}"


def _print_erasures(erasures: Sequence[ErasureAnswer]) -> None:
    for erasure in erasures:
        if erasure.destroyed is None:
            print(f"\nerasure requested: entry {erasure.position}")
            continue
        notified, confirmed = erasure.notified or (), erasure.confirmed or ()
        silent = [number for number in notified if number not in confirmed]
        print(f"erased: entry {erasure.position}, destroyed {', '.join(erasure.destroyed) or 'nothing'}")
        print(f"  recipients notified: {_listed(notified)}; no reply from: {_listed(silent)}")
        print(f"  models that contain the data: {_listed(erasure.models or ())}")


def _by(entry: EntryAnswer, number: int) -> str:
    return "" if entry.author == number or entry.kind == "enrol" else f", by {entry.author}"


def _name(party: Party) -> str:
    return f"{party.role} {party.number}"


def _protection(copy: CopyAnswer) -> str:
    return "open" if copy.epsilon is None else f"epsilon {show(copy.epsilon)} each"


def _consent_state(copy: CopyAnswer) -> str:
    if copy.withdrawn is not None:
        return f"withdrawn, entry {copy.withdrawn}"
    return "valid" if copy.is_active else "expired"


def _listed(values: Sequence[int], before: str = "") -> str:
    """List numbers, the first ones where there are many."""
    shown = ", ".join(f"{before}{value}" for value in values[:_FEW]) or "none"
    return shown + (f" and {len(values) - _FEW} more" if len(values) > _FEW else "")
