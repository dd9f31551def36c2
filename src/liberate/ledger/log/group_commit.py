"""Group commit: calls that wait for one another in several threads share one block."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from threading import Lock

from liberate.ledger.interface import AppendResult, Offer

MakeBlock = Callable[[Sequence[Offer]], Sequence[AppendResult]]
"""Makes a block of some offers and returns the outcome of each once it is durable; or raises and leaves nothing."""

_LARGEST_GROUP = 10_000
"""Entries of waiting calls that share a block; a single call may be larger."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call that waits for its block.

    Attributes:
        offers: What is to be appended.
        outcomes: Of each offer, once the block is durable.
        failure: Why there is no block.
    """

    offers: Sequence[Offer]
    outcomes: list[AppendResult] | None = None
    failure: Exception | None = None

    @property
    def is_answered(self) -> bool:
        return self.outcomes is not None or self.failure is not None


class GroupCommit:
    """The queue before a log that makes one block at a time."""

    def __init__(self) -> None:
        self._appending = Lock()
        self._waiting: deque[_Call] = deque()

    def append(self, offers: Sequence[Offer], make_block: MakeBlock) -> list[AppendResult]:
        """Have offers appended, alone or in one block with those of other threads.

        Args:
            offers: What is to be appended.
            make_block: The log's own, the same in every call; never runs in two threads at once. What it raises is
                raised in every thread whose offers it was given.
        """
        call = _Call(offers)
        self._waiting.append(call)
        try:
            while not call.is_answered:
                with self._appending:  # whoever gets here first makes the block for all that wait
                    if not call.is_answered:
                        self._append_waiting(make_block)
        finally:
            with suppress(ValueError):  # is there only when this thread was interrupted
                self._waiting.remove(call)
        if call.failure is not None:
            raise call.failure
        assert call.outcomes is not None, "answered calls without a failure have outcomes"
        return call.outcomes

    def _append_waiting(self, make_block: MakeBlock) -> None:
        """Append waiting calls as one block, the oldest first, and answer them."""
        group = [self._waiting.popleft()]
        n_offers = len(group[0].offers)
        while self._waiting and n_offers + len(self._waiting[0].offers) <= _LARGEST_GROUP:
            group.append(self._waiting.popleft())
            n_offers += len(group[-1].offers)

        try:
            outcomes = iter(make_block([offer for call in group for offer in call.offers]))
        except Exception as error:
            for call in group:
                call.failure = error
        except BaseException:  # an interrupt is this thread's alone: another one makes the block
            self._waiting.extendleft(reversed(group))
            raise
        else:
            for call in group:
                call.outcomes = list(islice(outcomes, len(call.offers)))
