"""Answers about data and models as drawings: who is in which column, and what leads from one to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import assert_never

from liberate.report.flow_layout import MOST, Flow, FlowGraph, Thing, lay_out
from liberate.report.words import count
from liberate.tracing.answers import ModelAnswer, ParticipantAnswer, RecipientAnswer, ShareAnswer
from liberate.tracing.entry_answers import ContributionAnswer, CopyAnswer, ModelEntry, UseAnswer
from liberate.tracing.leak.answers import LeakAnswer
from liberate.tracing.parties import CopyRecipient, Party

DrawnAnswer = ParticipantAnswer | ShareAnswer | RecipientAnswer | ModelAnswer | LeakAnswer

_MANY = 8
"""More models than this that the same updates have shaped become one."""

_FEW = 4
"""Participants whose numbers fit into a box."""

_LANE = "lane"

_Links = list[tuple[str, str]]


def flow_of(answer: DrawnAnswer) -> Flow:
    """Return the drawing of an answer of `liberate trace`."""
    match answer:
        case ParticipantAnswer():
            return lay_out(_participant_graph(answer))
        case ShareAnswer():
            return lay_out(_share_graph(answer))
        case RecipientAnswer():
            return lay_out(_recipient_graph(answer))
        case ModelAnswer():
            return lay_out(_model_graph(answer))
        case LeakAnswer():
            return lay_out(_leak_graph(answer))
        case _:
            assert_never(answer)


def _participant_graph(answer: ParticipantAnswer) -> FlowGraph:
    """Draw where a participant's data went: along a lane to their own device, and by copies to others."""
    person = Thing("person", f"participant {answer.number}", is_marked=True)
    copies, recipients, links = _handed_over(answer.shares, answer.recipients)
    if answer.updates:
        copies.insert(0, Thing(_LANE, ""))
        recipients.insert(0, Thing("device", "own device"))
        links += [("person", _LANE), (_LANE, "device")]

    contributions = _contributions(answer.updates, answer.uses, [recipient.key for recipient in recipients])
    columns = [("participant", [person]), ("copies", copies), ("received by", recipients)]
    columns += _models_and_links(contributions, answer.models, answer.descendants, links)
    return _graph(f"Where the data of participant {answer.number} went", columns, links)


def _share_graph(answer: ShareAnswer) -> FlowGraph:
    """Draw where one copy went."""
    person = Thing("person", f"participant {answer.sender.number}")
    copies, recipients, links = _handed_over(answer.shares, answer.recipients)

    contributions = _contributions((), answer.uses, [recipient.key for recipient in recipients])
    columns = [("participant", [person]), ("copies", copies), ("received by", recipients)]
    columns += _models_and_links(contributions, answer.models, answer.descendants, links)
    return _graph(f"Where the copy of entry {answer.shares[0].position} went", columns, links)


def _handed_over(
    shares: Sequence[CopyAnswer], recipients: Sequence[CopyRecipient]
) -> tuple[list[Thing], list[Thing], _Links]:
    """Return copies, who got them in the order of their first copy, and what joins both to the sender."""
    links = [("person", f"entry {share.position}") for share in shares]
    links += [(f"entry {share.position}", f"party {share.recipient}") for share in shares]
    by_first_copy = sorted(recipients, key=lambda recipient: min(recipient.shares))
    return [_copy(share) for share in shares], [_party(recipient) for recipient in by_first_copy], links


@dataclass(frozen=True, slots=True)
class _Drawn:
    """An update or pool, or several of one source: where the data came from, and the versions that they shaped."""

    thing: Thing
    sources: tuple[str, ...]
    versions: frozenset[int]


def _contributions(
    updates: Sequence[ContributionAnswer], uses: Sequence[UseAnswer], order: Sequence[str]
) -> list[_Drawn]:
    """Return updates and pools in ledger order; of too many, those of one source as one, in the order of sources."""
    entries = {entry.position: entry for entry in (*uses, *updates)}
    sources: dict[int, list[str]] = {position: [] for position in sorted(entries)}
    for update in updates:
        sources[update.position].append("device")
    for use in uses:
        sources[use.position].append(f"party {use.by}")

    groups: dict[tuple[object, ...], list[int]] = {}
    are_many = len(entries) > MOST
    for position in sorted(sources, key=lambda at: order.index(sources[at][0])) if are_many else sources:
        entry = entries[position]
        group = (*sources[position], entry.kind, entry.outcome) if are_many else (position,)
        groups.setdefault(group, []).append(position)

    drawn = []
    for positions in groups.values():
        alike = [entries[position] for position in positions]
        versions = frozenset(entry.version for entry in alike if entry.version is not None)
        drawn.append(_Drawn(_contribution(alike), tuple(sources[positions[0]]), versions))
    return drawn


def _models_and_links(
    contributions: Sequence[_Drawn], models: Sequence[ModelEntry], later: Sequence[ModelEntry], links: _Links
) -> list[tuple[str, list[Thing]]]:
    """Return the columns from the contributions on, and add what leads to them to the links."""
    links += [(source, drawn.thing.key) for drawn in contributions for source in drawn.sources]
    things = []
    for versions, keys in _alike(contributions, [model.version for model in models]):
        thing = Thing(f"model {versions[0]}", _span("model", versions))
        things.append(thing)
        links += [(key, thing.key) for key in keys]

    columns = [("used in", [drawn.thing for drawn in contributions]), ("models", things)]
    if later:
        columns.append(("built on these", [Thing("later", _span("model", [model.version for model in later]))]))
        links.append((things[-1].key, "later"))
    return columns


def _alike(contributions: Sequence[_Drawn], versions: Sequence[int]) -> list[tuple[list[int], tuple[str, ...]]]:
    """Return models with the keys of what shaped them; of too many, those shaped by the same as one."""
    groups: dict[tuple[object, ...], tuple[list[int], tuple[str, ...]]] = {}
    for version in versions:
        keys = tuple(drawn.thing.key for drawn in contributions if version in drawn.versions)
        groups.setdefault(keys if len(versions) > _MANY else (version,), ([], keys))[0].append(version)
    return list(groups.values())


def _model_graph(answer: ModelAnswer) -> FlowGraph:
    """Draw who shaped a model, its parents above it."""
    people = answer.participants
    contributors = {
        "updates": ("own updates", [person.number for person in people if person.answers]),
        "copies": ("copies others used", [person.number for person in people if person.copies]),
        "pooled": ("copies in the pool", [person.number for person in people if person.pooled]),
    }
    sources = [Thing(kind, text, _numbers(numbers)) for kind, (text, numbers) in contributors.items() if numbers]

    used: list[Thing] = []
    models: list[Thing] = []
    links: _Links = []
    for model in reversed(answer.models):
        thing = Thing(
            f"model {model.version}",
            f"model {model.version}",
            f"round {model.round}",
            is_marked=model.version == answer.version,
        )
        models.append(thing)
        counts = {"updates": len(model.participants), "copies": len(model.senders), "pooled": len(model.pooled)}
        for kind, number in counts.items():
            if number:
                key = f"{kind} {model.version}"
                used.append(Thing(key, f"{kind}, round {model.round}", count(number, "participant")))
                links += [(kind, key), (key, thing.key)]

    links += [(before.key, after.key) for before, after in pairwise(models)]
    columns = [("participants", sources), ("used in", used), ("models", models)]
    return _graph(f"Who shaped model {answer.version}", columns, links)


def _recipient_graph(answer: RecipientAnswer) -> FlowGraph:
    """Draw what somebody received from whom."""
    name = f"{answer.role} {answer.number}"
    links = [(f"party {copy.sender}", f"entry {copy.position}") for copy in answer.shares]
    links += [(f"entry {copy.position}", "recipient") for copy in answer.shares]
    columns = [
        ("senders", [_party(sender) for sender in answer.senders]),
        ("copies", [_copy(copy) for copy in answer.shares]),
        ("received by", [Thing("recipient", name, is_marked=True)]),
    ]
    return _graph(f"What {name} received", columns, links)


def _leak_graph(answer: LeakAnswer) -> FlowGraph:
    """Draw whose copies leaked rows may be: everybody who got copies, the accused joined to the leak."""
    candidates = answer.candidates
    links = [(f"owner {sender}", f"party {other.number}") for other in candidates for sender in other.senders]
    links += [(f"party {candidate.number}", "leak") for candidate in candidates if candidate.accused]

    owners = dict.fromkeys(owner.number for owner in answer.owners)
    leak = Thing("leak", f"{answer.leak.rows:,} rows", f"{answer.leak.matched:,} of known copies")
    columns = [
        ("senders", [Thing(f"owner {owner}", f"participant {owner}") for owner in owners]),
        (
            "candidates",
            [
                replace(_party(candidate), note=f"false at most {candidate.bound:.1g}", is_marked=candidate.accused)
                for candidate in candidates
            ],
        ),
        ("leak", [leak]),
    ]
    return _graph("Whose copies leaked", columns, links)


def _graph(title: str, columns: Iterable[tuple[str, Sequence[Thing]]], links: _Links) -> FlowGraph:
    return FlowGraph(title, tuple((head, tuple(things)) for head, things in columns), tuple(links))


def _copy(share: CopyAnswer) -> Thing:
    protection = "open" if share.epsilon is None else f"ε = {share.epsilon:g} each"
    state = "" if share.is_active else ", withdrawn" if share.withdrawn is not None else ", expired"
    key = f"entry {share.position}"
    return Thing(key, f"share {share.position}", protection + state, is_ended=not share.is_active)


def _party(party: Party) -> Thing:
    note = "pool" if party.role == "coordinator" else ""
    return Thing(f"party {party.number}", f"{party.role} {party.number}", note)


def _contribution(alike: Sequence[ContributionAnswer]) -> Thing:
    first = alike[0]
    is_used = first.outcome == "used"
    rounds = _span("round", [entry.round for entry in alike]) + ("" if is_used else f", {first.outcome}")
    text = f"{first.kind} {first.position}" if len(alike) == 1 else f"{len(alike)} {first.kind}s"
    return Thing(f"entry {first.position}", text, rounds, is_ended=not is_used)


def _span(name: str, numbers: Sequence[int]) -> str:
    """Name one thing, or several by the first and the last."""
    return f"{name} {numbers[0]}" if len(numbers) == 1 else f"{name}s {numbers[0]} to {numbers[-1]}"


def _numbers(numbers: Sequence[int]) -> str:
    if len(numbers) > _FEW:
        return count(len(numbers), "participant")
    return f"of {', '.join(map(str, numbers))}"
