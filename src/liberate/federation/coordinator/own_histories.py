"""Showing participants their own histories: each gets the entries about it that it has not proved before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from liberate.federation.coordinator.exchange import CheckpointView, RoundExchange
from liberate.federation.wire.own_history import HistoryAnswer, HistoryRequest
from liberate.federation.wire.round_messages import encode_message
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, principals_of
from liberate.ledger.interface import Ledger


@dataclass(slots=True)
class OwnHistoryProofs:
    """Proves histories to participants, round after round.

    Attributes:
        ledger: The ledger.
    """

    ledger: Ledger
    # How many entries each participant has proved, as far as this process knows.
    _proved: dict[int, int] = field(default_factory=dict)
    # Entries about participants up to a tree size that those in `_proved` have not proved yet.
    _fresh: dict[int, list[bytes]] = field(default_factory=dict)
    _size: int = 0

    def show(self, numbers: Sequence[int], view: CheckpointView, known_size: int, exchange: RoundExchange) -> None:
        """Show participants their histories under the newest checkpoint.

        Whoever refuses takes no part in the round, and says so again when it is asked to.
        """
        self._collect(view.size)
        # Its refusals are counted when the round asks for answers.
        quiet = RoundExchange(exchange.transport, exchange.batch_size)
        request = _Requests(self, view)

        missing = self._ask(numbers, request, known_size, view, quiet)
        behind = [number for number in missing if self._proved.pop(number, 0)]
        self._ask(behind, request, known_size, view, quiet)

    def entries_about(self, number: int) -> tuple[int, list[bytes]]:
        """Return how many entries about a participant it has proved, and the others."""
        if number in self._proved:
            return self._proved[number], self._fresh.get(number, [])
        return 0, [self.ledger.entry(position) for position in self.ledger.positions(about=number)]

    def _ask(
        self, numbers: Sequence[int], request: _Requests, known_size: int, view: CheckpointView, exchange: RoundExchange
    ) -> list[int]:
        """Ask participants; return those who do not accept their history."""
        answers = exchange.ask("history", numbers, request.encode, HistoryAnswer, known_size, view.size)
        for number, _ in answers:
            skipped, entries = self.entries_about(number)
            self._proved[number] = skipped + len(entries)
            self._fresh.pop(number, None)
        return sorted(set(numbers).difference(number for number, _ in answers))

    def _collect(self, size: int) -> None:
        """Take up the entries since the last round, for those who have proved what is before them."""
        if self._proved:
            for _, data in self.ledger.entries(self._size, size):
                for number in principals_of(decode_entry(data).record):
                    if number in self._proved:
                        self._fresh.setdefault(number, []).append(data)
        self._size = size


@dataclass(slots=True)
class _Requests:
    """The requests under one checkpoint: what they have in common is proved once."""

    proofs: OwnHistoryProofs
    view: CheckpointView
    _block: tuple[bytes, list[Digest]] = field(init=False)
    _consistency: dict[int, list[Digest]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ledger, last = self.view.ledger, self.view.size - 1
        self._block = ledger.entry(last), list(ledger.inclusion_proof(last, self.view.size))

    def encode(self, number: int, known_size: int) -> bytes:
        """Return the request to a participant who knows a tree of some size."""
        state = self.view.ledger.state
        if known_size not in self._consistency:
            self._consistency[known_size] = self.view.consistency(known_size)
        skipped, entries = self.proofs.entries_about(number)
        return encode_message(
            HistoryRequest(
                checkpoint=self.view.note,
                known_size=known_size,
                consistency=self._consistency[known_size],
                block=self._block[0],
                block_proof=self._block[1],
                n_principals=len(state.principals),
                proof=list(state.inclusion_proof(number)),
                skipped=skipped,
                entries=entries,
            )
        )
