"""The phases of a masked round beside the upload, for all devices of a host: what all are shown is checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from liberate.crypto.note import Checkpoint
from liberate.federation.participant.checks import RoundChecker, check_terms, read_masked_round
from liberate.federation.participant.masking import MaskingClient
from liberate.federation.participant.own_history import OwnHistories
from liberate.federation.participant.refusals import Refused, read_message, require
from liberate.federation.participant.secagg_checks import (
    CheckedCohort,
    RecordedSets,
    check_closed,
    check_cohort,
    check_history,
)
from liberate.federation.store.device_rows import Device
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.masked_round import MaskedRound
from liberate.federation.wire.round_messages import RoundRequest
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    EncryptedShares,
    MaskRequest,
    RevealedSeed,
    RevealedShares,
    RoundHistory,
    ShareKeysRequest,
)


@dataclass(frozen=True, slots=True)
class _ShownSets:
    """A masked round and its sets, as a history under an accepted checkpoint proves them."""

    current: MaskedRound
    recorded: RecordedSets
    checkpoint: Checkpoint


@dataclass(slots=True, kw_only=True)
class MaskedPhases:
    """Answers the phases of masked rounds for the devices of a host.

    Attributes:
        checker: Checks what the coordinator sends, and knows the accepted checkpoint.
        masking: What the devices do.
        histories: What the ledger has proved to say of them.
        policy: What their participants agreed to.
    """

    checker: RoundChecker
    masking: MaskingClient
    histories: OwnHistories
    policy: ParticipationPolicy
    _cohort: tuple[tuple[bytes, bytes, bytes], CheckedCohort] | None = field(default=None, init=False)

    def advertise(self, request: RoundRequest, devices: Sequence[Device]) -> list[AdvertisedKeys | Refused]:
        """Return the keys of each device, or why it refuses, in their order."""
        accepted = self.checker.check_round(request)
        current = read_masked_round(request.entry)

        refusals: dict[int, Refused] = {}
        for device in devices:
            try:
                check_terms(device, accepted.record)
                self.histories.require_proved(device, accepted.record, request.position)
                is_invited = device.enrolled_number in current.participants
                require(is_invited, "record", f"participant {device.enrolled_number} is not of the cohort")
                self.masking.check_attempts(device, current)
            except Refused as refusal:
                refusals[device.slot] = refusal

        able = [device for device in devices if device.slot not in refusals]
        keys = self.masking.advertise(current, able, request.checkpoint)
        self.checker.accepted = accepted.checkpoint
        by_slot = dict(zip((device.slot for device in able), keys, strict=True))
        return [refusals.get(device.slot) or by_slot[device.slot] for device in devices]

    def choose(self, history: RoundHistory, devices: Sequence[Device]) -> list[RevealedSeed | Refused]:
        """Return the seed of each device's neighbours, or why it refuses."""
        shown = self._check(history)
        answers = self.masking.choose(devices, shown.current, shown.recorded, history.checkpoint)
        self.checker.accepted = shown.checkpoint
        return answers

    def share(self, request: ShareKeysRequest, devices: Sequence[Device]) -> list[EncryptedShares | Refused]:
        """Return the sealed shares of each device's secrets, or why it refuses."""
        history, shown = request.history, self._check(request.history)
        cohort = self._check_cohort(shown, request)
        answers = self.masking.share(devices, shown.current, shown.recorded, cohort, history.checkpoint)
        self.checker.accepted = shown.checkpoint
        return answers

    def receive(self, requests: Sequence[tuple[MaskRequest, Device]]) -> dict[int, Refused]:
        """Take the sets and shares that come with requests for masked uploads; return the refusals, by slot."""
        by_history: dict[bytes, list[tuple[MaskRequest, Device]]] = {}
        for request, device in requests:
            by_history.setdefault(request.history, []).append((request, device))

        refusals: dict[int, Refused] = {}
        for body, asked in by_history.items():
            devices = [device for _, device in asked]
            received = {device.slot: tuple(request.received) for request, device in asked}
            try:
                history = read_message(RoundHistory, body)
                shown = self._check(history)
                answers = self.masking.receive(devices, shown.current, shown.recorded, received, history.checkpoint)
            except Refused as refusal:
                refusals |= {device.slot: refusal for device in devices}
                continue

            self.checker.accepted = shown.checkpoint
            outcomes = zip(devices, answers, strict=True)
            refusals |= {device.slot: answer for device, answer in outcomes if isinstance(answer, Refused)}
        return refusals

    def unmask(self, history: RoundHistory, devices: Sequence[Device]) -> list[RevealedShares | Refused]:
        """Return what each device reveals for the survivor set, or why it refuses."""
        shown = self._check(history)
        answers = self.masking.unmask(devices, shown.current, shown.recorded, history.checkpoint)
        self.checker.accepted = shown.checkpoint
        return answers

    def close(self, history: RoundHistory) -> None:
        """Destroy the secrets of a round that the ledger has closed.

        Raises:
            Refused: It has not.
        """
        checkpoint = self.checker.check_checkpoint(history)
        current = _first_round(history)
        check_closed(current, history, checkpoint, self.policy)
        self.masking.forget(current)
        self._cohort = None

    def _check(self, history: RoundHistory) -> _ShownSets:
        checkpoint = self.checker.check_checkpoint(history)
        current = _first_round(history)
        return _ShownSets(current, check_history(current, history, checkpoint, self.policy), checkpoint)

    def _check_cohort(self, shown: _ShownSets, request: ShareKeysRequest) -> CheckedCohort:
        """Check keys and graph of a round once, however many batches of devices are asked."""
        place = (shown.recorded.digest("advertised"), shown.recorded.digest("graph"), request.cohort)
        if self._cohort is None or self._cohort[0] != place:
            self._cohort = (place, check_cohort(shown.current, shown.recorded, request, shown.checkpoint))
        return self._cohort[1]


def _first_round(history: RoundHistory) -> MaskedRound:
    require(bool(history.entries), "sets", "the history is empty")
    return read_masked_round(history.entries[0])
