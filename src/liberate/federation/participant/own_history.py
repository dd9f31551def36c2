"""A device replays the entries about itself, and takes part in no private round of a ledger that contradicts them.

A state root is the log's claim. Each device knows one leaf of it better than anybody: which entries it has signed, what
it has spent, which keys it has had. The log that makes a root up must get every honest participant's leaf right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from liberate.crypto.merkle import leaf_hash, verify_inclusion
from liberate.crypto.note import Checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import LiberateError
from liberate.federation.participant.checks import RoundChecker
from liberate.federation.participant.refusals import Refused, refused_as, require
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.history_tables import ProvedHistory
from liberate.federation.wire.own_history import HistoryAnswer, HistoryRequest
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry, decode_included, record_of
from liberate.ledger.format.records import Block, Round
from liberate.ledger.rules.history import PrincipalHistory
from liberate.ledger.rules.principal import Principal


@dataclass(slots=True)
class OwnHistories:
    """The histories of a host's devices.

    Attributes:
        store: Where what was proved is stored.
        checker: Checks checkpoints, and knows the one that was accepted.
        keys: The devices' signing keys by slot.
        origin: The ledger's name.
    """

    store: DeviceStore
    checker: RoundChecker
    keys: Mapping[int, SigningKey]
    origin: str
    _proved: dict[int, ProvedHistory] = field(init=False)
    _acts: dict[int, list[tuple[int, Digest]]] = field(init=False)
    _person_keys: dict[int, bytes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._proved = self.store.proved_histories()
        self._acts = {}
        for slot, act in self.store.acts():
            self._acts.setdefault(slot, []).append((act.position, leaf_hash(act.data)))

    def prove(self, requests: Sequence[tuple[Device, HistoryRequest]]) -> list[HistoryAnswer | Refused]:
        """Replay what each device is shown, store what was proved, and return the answers in the order of requests."""
        views = _Views(self.checker)
        proved: list[tuple[int, ProvedHistory]] = []
        answers: list[HistoryAnswer | Refused] = []
        for device, request in requests:
            try:
                history, found = self._replay(device, request, views)
            except Refused as refusal:
                answers.append(refusal)
                continue
            proved.append((device.slot, found))
            answers.append(HistoryAnswer(count=history.principal.about_count))

        if views.newest is not None and proved:
            note, checkpoint = views.newest
            self.store.put_proved_histories(proved, note=note)
            self.checker.accepted = checkpoint
            self._proved |= dict(proved)
        return answers

    def require_proved(self, device: Device, record: Round, position: int) -> None:
        """Check that a device has proved its own history under a tree that has a private round.

        A round that spends nothing trusts its coordinator anyway.

        Raises:
            Refused: own_history.
        """
        proved = self._proved.get(device.slot)
        require(
            record.account == "none" or (proved is not None and proved.size > position),
            "own_history",
            "the device was not shown its own history under a checkpoint that has the round",
        )

    def _replay(self, device: Device, request: HistoryRequest, views: _Views) -> tuple[PrincipalHistory, ProvedHistory]:
        """Return a device's history, after checking it against all that the device knows of itself.

        Raises:
            Refused: own_history, history_gap, or why the checkpoint is refused.
        """
        checkpoint, block = views.check(request)
        number, before = device.enrolled_number, self._proved.get(device.slot)
        known = 0 if before is None else Principal.decode(before.leaf).about_count
        require(request.skipped <= known, "history_gap", f"{known} entries were proved, {request.skipped} left out")

        with refused_as("own_history"):
            fresh = [decode_entry(data) for data in request.entries[known - request.skipped :]]
            history = self._history_before(number, before, fresh)
            for entry in fresh:
                history.add(entry)

            leaf = history.principal.encode()
            verify_inclusion(leaf_hash(leaf), number, request.n_principals, request.proof, block.state_root)

        self._check_acts(device, {entry.leaf_hash for entry in fresh}, before, checkpoint)
        self._check_principal(device, history.principal)
        return history, ProvedHistory(size=checkpoint.size, leaf=leaf, consents=tuple(history.consents))

    def _history_before(self, number: int, before: ProvedHistory | None, fresh: Sequence[Entry]) -> PrincipalHistory:
        if before is None:
            require(bool(fresh), "own_history", f"no entry enrols participant {number}")
            return PrincipalHistory.before(fresh[0], self.origin, number)
        return PrincipalHistory(
            origin=self.origin,
            number=number,
            principal=Principal.decode(before.leaf),
            consents=[Digest(consent) for consent in before.consents],
        )

    def _check_acts(
        self, device: Device, fresh: set[Digest], before: ProvedHistory | None, checkpoint: Checkpoint
    ) -> None:
        """Check that the acts which the log has proved to the device are among the entries about it."""
        begin = 0 if before is None else before.size
        for position, act in self._acts.get(device.slot, ()):
            is_due = begin <= position < checkpoint.size
            require(not is_due or act in fresh, "own_history", f"the participant's entry {position} is missing")

    def _check_principal(self, device: Device, principal: Principal) -> None:
        """Check that the ledger says of a participant what the device knows."""
        who = f"participant {device.number}"
        require(principal.role == "participant", "own_history", f"{who} is a {principal.role}")
        require(
            (principal.key, principal.device_key) == self._public_keys(device.slot),
            "own_history",
            f"the keys of {who} are not those of the device",
        )
        require(
            principal.sequence <= device.last_seq,
            "own_history",
            f"{who} has signed sequence {principal.sequence}, the device knows of {device.last_seq}",
        )
        spent = principal.epsilon_nano, principal.rho_nano
        require(
            spent[0] <= device.epsilon_nano and spent[1] <= device.rho_nano,
            "own_history",
            f"{who} has spent {spent}, the device knows of {(device.epsilon_nano, device.rho_nano)}",
        )
        require(principal.can_answer, "own_history", f"{who} is revoked or has withdrawn, and is asked all the same")

    def _public_keys(self, slot: int) -> tuple[bytes, bytes]:
        """Return the public keys of a participant and of the device."""
        if slot not in self._person_keys:
            self._person_keys[slot] = self.store.signing_key(slot, "person").public
        return self._person_keys[slot], self.keys[slot].public


@dataclass(slots=True)
class _Views:
    """The checkpoints that a batch of requests shows, each checked once.

    Attributes:
        checker: Checks them.
        newest: The last one that was accepted, as it was signed and as it is.
    """

    checker: RoundChecker
    newest: tuple[str, Checkpoint] | None = None
    _checked: dict[tuple[str, int, bytes], tuple[Checkpoint, Block]] = field(default_factory=dict)

    def check(self, request: HistoryRequest) -> tuple[Checkpoint, Block]:
        """Return the checkpoint of a request, and the block with the state root.

        Raises:
            Refused: Why the checkpoint is refused; own_history: the block is not its last entry.
        """
        shown = request.checkpoint, request.known_size, request.block
        if shown not in self._checked:
            checkpoint = self.checker.check_checkpoint(request)
            with refused_as("own_history", LiberateError):
                last = decode_included(request.block, checkpoint.size - 1, request.block_proof, checkpoint)
                self._checked[shown] = checkpoint, record_of(last, Block)
            require(
                self.newest is None or self.newest[1] == checkpoint,
                "split_view",
                "two devices of one host are shown two checkpoints",
            )
            self.newest = request.checkpoint, checkpoint
        return self._checked[shown]
