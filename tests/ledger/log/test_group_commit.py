"""Calls that wait for one another share a block, up to a size; each gets its own outcomes or failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread

import pytest

from liberate.errors import RefusedEntry
from liberate.ledger.interface import AppendResult, Offer
from liberate.ledger.log import group_commit
from liberate.ledger.log.group_commit import GroupCommit

Outcomes = dict[str, list[AppendResult] | BaseException]


def offers(*numbers: int) -> list[Offer]:
    return [RefusedEntry(str(number), "") for number in numbers]


def numbers(block: Sequence[Offer]) -> list[int]:
    return [int(offer.reason) for offer in block if isinstance(offer, RefusedEntry)]


def appended_together(
    calls: dict[str, list[Offer]], make_block: Callable[[Sequence[Offer]], Sequence[AppendResult]]
) -> Outcomes:
    """What each call gives or raises when all of them have waited, in this order."""
    queue, outcomes = GroupCommit(), Outcomes()

    def append(name: str) -> None:
        try:
            outcomes[name] = queue.append(calls[name], make_block)
        except BaseException as error:
            outcomes[name] = error

    threads = [Thread(target=append, args=(name,)) for name in calls]
    with queue._appending:
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(queue._waiting) < number:
                pass
    for thread in threads:
        thread.join()
    assert not queue._waiting
    return outcomes


def test_calls_share_a_block_and_get_their_own_outcomes() -> None:
    blocks: list[list[int]] = []

    def make_block(block: Sequence[Offer]) -> list[AppendResult]:
        blocks.append(numbers(block))
        return [*numbers(block)]

    outcomes = appended_together({"a": offers(1, 2), "b": [], "c": offers(3)}, make_block)

    assert blocks == [[1, 2, 3]]
    assert outcomes == {"a": [1, 2], "b": [], "c": [3]}


def test_a_group_is_bounded_but_a_call_is_never_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_LARGEST_GROUP", 3)
    blocks: list[list[int]] = []

    def make_block(block: Sequence[Offer]) -> list[AppendResult]:
        blocks.append(numbers(block))
        return [*numbers(block)]

    appended_together({"a": offers(1, 2), "b": offers(3), "c": offers(4, 5, 6, 7), "d": offers(8)}, make_block)

    assert blocks == [[1, 2, 3], [4, 5, 6, 7], [8]]


def test_a_failure_is_raised_in_every_call_of_the_block() -> None:
    failure = ValueError("no")

    def make_block(_: Sequence[Offer]) -> list[AppendResult]:
        raise failure

    assert appended_together({"a": offers(1), "b": offers(2)}, make_block) == {"a": failure, "b": failure}


def test_an_interrupt_ends_one_call_and_another_thread_makes_the_block_of_the_rest() -> None:
    interrupt, blocks = KeyboardInterrupt(), []

    def make_block(block: Sequence[Offer]) -> list[AppendResult]:
        blocks.append(numbers(block))
        if len(blocks) == 1:
            raise interrupt
        return [*numbers(block)]

    outcomes = appended_together({"a": offers(1), "b": offers(2), "c": offers(3)}, make_block)

    interrupted = [name for name, outcome in outcomes.items() if outcome is interrupt]
    assert len(interrupted) == 1
    assert blocks[0] == [1, 2, 3]
    assert sorted(n for block in blocks[1:] for n in block) == [
        n for name, n in (("a", 1), ("b", 2), ("c", 3)) if name not in interrupted
    ]
    assert {name: outcome for name, outcome in outcomes.items() if name not in interrupted} == {
        name: [n] for name, n in (("a", 1), ("b", 2), ("c", 3)) if name not in interrupted
    }
