"""The participants' side of secure aggregation: what a device does in each phase of a masked round, once.

A device is bound by what it stores before it answers: one set of keys, one set of people whose keys are advertised, one
graph, one set of those who continue, one survivor set, each the one that the ledger proves to have. Asked again it
sends the same bytes, asked otherwise it refuses. Of each neighbour it reveals a share of one of the two secrets, and
never of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from liberate.arrays import UInt32Array
from liberate.crypto.signing import SigningKey
from liberate.errors import PrivacyError
from liberate.federation.participant.key_agreements import DeviceSecrets, KeyAgreements
from liberate.federation.participant.refusals import Refused, refused_as, require
from liberate.federation.participant.secagg_checks import CheckedCohort, RecordedSets
from liberate.federation.store.device_rows import Device, NeighbourKeys, SecAggState
from liberate.federation.store.devices import DeviceStore
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.masked_round import MaskedRound
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    EncryptedShares,
    RevealedSeed,
    RevealedShares,
    sign_keys,
)
from liberate.ledger.format.records import SetPhase
from liberate.privacy import secure_aggregation, shamir
from liberate.privacy.neighbour_graph import seed_commitment
from liberate.privacy.shamir import SHARE_BYTES
from liberate.randomness import Randomness

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingClient:
    """What the devices of a host do in masked rounds.

    Attributes:
        store: Where they store how far they are.
        keys: Their signing keys, by slot.
        policy: What their participants agreed to.
        randomness: Source of their secrets.
        agreements: What they agreed on with neighbours in the latest round.
    """

    store: DeviceStore
    keys: Mapping[int, SigningKey]
    policy: ParticipationPolicy
    randomness: Randomness
    agreements: KeyAgreements = field(default_factory=KeyAgreements)

    def check_attempts(self, device: Device, current: MaskedRound) -> None:
        """Check that a device may advertise keys for a round: it has, or for not too many of the run.

        Raises:
            Refused: attempts.
        """
        record, most = current.record, self.policy.terms.max_attempts
        if self.store.secagg_state(device.slot, record.number) is None:
            count = self.store.key_phases(device.slot, record.run)
            require(count < most, "attempts", f"keys were advertised in {count} rounds of run {record.run}")

    def advertise(self, current: MaskedRound, devices: Sequence[Device], note: str) -> list[AdvertisedKeys]:
        """Return signed keys for a round, drawn and stored at the first request, and the same keys later.

        Args:
            current: The round, whose entry was checked.
            devices: Devices of the cohort.
            note: The checkpoint under which the round was accepted.

        Raises:
            Refused: Keys were advertised for another round of this number.
        """
        record = current.record
        states: list[SecAggState] = []
        fresh: list[tuple[int, SecAggState]] = []
        for device in devices:
            state = self.store.secagg_state(device.slot, record.number)
            if state is None:
                secret = self.randomness.secret("masks", record.number, device.enrolled_number)
                state = SecAggState(round_hash=current.hash, secret=secret)
                fresh.append((device.slot, state))
            is_same = state.round_hash == current.hash
            require(is_same, "answered", f"keys were advertised for another entry of round {record.number}")
            states.append(state)

        # Stored before any key leaves: after a crash the device must still be able to do what it advertised.
        self.store.begin_secagg(record.number, record.run, fresh, note=note)
        return [self._signed_keys(current, device, state) for device, state in zip(devices, states, strict=True)]

    def choose(
        self, devices: Sequence[Device], current: MaskedRound, recorded: RecordedSets, note: str
    ) -> list[RevealedSeed | Refused]:
        """Return the seeds of devices' neighbours, now that it is settled whom they may choose from.

        Args:
            devices: The devices that are asked.
            current: The round.
            recorded: Its sets.
            note: The checkpoint under which they were accepted.

        Returns:
            The answer or the refusal of each device, in their order.
        """
        advertised = recorded.digest("advertised")

        def step(device: Device, state: SecAggState) -> tuple[SecAggState, RevealedSeed]:
            _require_member(device, recorded, "advertised")
            _require_unchanged(state.advertised, advertised)
            seed = self._secrets(state).secrets.seed
            return msgspec.structs.replace(state, advertised=advertised), RevealedSeed(seed=seed)

        return self._each(devices, current, step, note)

    def share(
        self, devices: Sequence[Device], current: MaskedRound, recorded: RecordedSets, cohort: CheckedCohort, note: str
    ) -> list[EncryptedShares | Refused]:
        """Return shares of devices' secrets, encrypted for the neighbours that each has chosen.

        Args:
            devices: The devices that are asked.
            current: The round.
            recorded: Its sets.
            cohort: Their keys and graph.
            note: The checkpoint under which the sets were accepted.

        Returns:
            The answer or the refusal of each device, in their order.
        """
        graph = recorded.digest("graph")

        def step(device: Device, state: SecAggState) -> tuple[SecAggState, EncryptedShares]:
            number = device.enrolled_number
            _require_member(device, recorded, "graph")
            require(state.advertised == recorded.digest("advertised"), "answered", "a seed was revealed to others")
            _require_unchanged(state.graph, graph)
            if state.graph is None:
                self._require_own(number, state, cohort)
                neighbours = _neighbours(number, cohort)
                sent = self._encrypt_shares(current, number, state, neighbours)
                state = msgspec.structs.replace(state, graph=graph, neighbours=neighbours, sent=sent)
            return state, EncryptedShares(sealed=list(state.sent))

        return self._each(devices, current, step, note)

    def receive(
        self,
        devices: Sequence[Device],
        current: MaskedRound,
        recorded: RecordedSets,
        received: Mapping[int, tuple[tuple[int, bytes], ...]],
        note: str,
    ) -> list[Refused | None]:
        """Take the set of those who continue, and the shares that neighbours dealt.

        With exactly its neighbours in the set a device masks, whether or not it was sent a share by each.

        Args:
            devices: The devices that are asked to mask.
            current: The round.
            recorded: Its sets.
            received: By slot, the sealed shares for a device, each with its dealer.
            note: The checkpoint under which the sets were accepted.

        Returns:
            The refusal of each device, in their order; None where there is none.
        """
        shared = recorded.digest("shared")
        members = recorded.members("shared")

        def step(device: Device, state: SecAggState) -> tuple[SecAggState, None]:
            shares = received[device.slot]
            _require_member(device, recorded, "shared")
            require(state.graph == recorded.digest("graph"), "answered", "secrets were shared in another graph")
            _require_unchanged(state.shared, shared)
            if state.shared is not None:
                require(state.received == shares, "answered", "other shares were received before")
                return state, None

            _require_dealt(state, members, [sender for sender, _ in shares])
            self._require_holders(current, state, members)
            continuing = tuple(neighbour.number for neighbour in state.neighbours if neighbour.number in members)
            return msgspec.structs.replace(state, shared=shared, continuing=continuing, received=shares), None

        return self._each(devices, current, step, note)

    def forget(self, current: MaskedRound) -> None:
        """Destroy what devices store for a round that is closed; in how many rounds they took part is kept."""
        self.store.end_secagg(current.record.number)
        self.agreements.forget()

    def require_ready(self, device: Device, current: MaskedRound) -> None:
        """Check that a device knows with whom to mask an upload.

        Raises:
            Refused: It does not.
        """
        is_ready = self._state(current, device).shared is not None
        require(is_ready, "phase", "a masked upload needs the set of those who shared their secrets first")

    def add(self, device: Device, current: MaskedRound, values: UInt32Array) -> None:
        """Mask an upload in place: with a mask of the device alone, and one shared with each neighbour that continues.

        Args:
            device: A device that is ready.
            current: The round.
            values: Its upload, one-dimensional and contiguous; changed.
        """
        state = self._state(current, device)
        own = self._secrets(state)
        secure_aggregation.add_mask(values, own.secrets.own)
        keys = {neighbour.number: neighbour.mask for neighbour in state.neighbours}
        context = state.mask_context
        for other in state.continuing:
            key = secure_aggregation.pair_key(self.agreements.mask(own, keys[other]), context)
            secure_aggregation.add_pair_mask(values, key, device.enrolled_number, other)

    def unmask(
        self, devices: Sequence[Device], current: MaskedRound, recorded: RecordedSets, note: str
    ) -> list[RevealedShares | Refused]:
        """Return shares for one survivor set: of a survivor's own mask, and of the shared masks of everybody else.

        Args:
            devices: The devices that are asked.
            current: The round.
            recorded: Its sets.
            note: The checkpoint under which they were accepted.

        Returns:
            The answer or the refusal of each device, in their order.
        """
        digest = recorded.digest("survivors")
        survivors = recorded.members("survivors")

        def step(device: Device, state: SecAggState) -> tuple[SecAggState, RevealedShares]:
            _require_member(device, recorded, "survivors")
            require(state.shared == recorded.digest("shared"), "answered", "masks were shared with others")
            _require_unchanged(state.survivors, digest)
            self._require_holders(current, state, survivors)
            shares = self._shares_for(current, device.enrolled_number, state, survivors)
            return msgspec.structs.replace(state, survivors=digest), RevealedShares(shares=shares)

        return self._each(devices, current, step, note)

    def _each(
        self,
        devices: Sequence[Device],
        current: MaskedRound,
        step: Callable[[Device, SecAggState], tuple[SecAggState, AnswerT]],
        note: str,
    ) -> list[AnswerT | Refused]:
        """Take a step for each device, store what binds it, and return the answers: they leave only after that."""
        answers: list[AnswerT | Refused] = []
        states: list[tuple[int, SecAggState]] = []
        for device in devices:
            try:
                before = self._state(current, device)
                after, answer = step(device, before)
            except Refused as refusal:
                answers.append(refusal)
                continue
            answers.append(answer)
            if after is not before:
                states.append((device.slot, after))

        self.store.put_secagg_states(current.record.number, states, note=note)
        return answers

    # --- keys and shares ----------------------------------------------------------------------------------------------

    def _signed_keys(self, current: MaskedRound, device: Device, state: SecAggState) -> AdvertisedKeys:
        own = self._secrets(state)
        return sign_keys(
            self.keys[device.slot],
            self.policy.origin,
            current.hash,
            device.enrolled_number,
            mask=own.mask,
            seal=own.seal,
            own=secure_aggregation.key_commitment(own.secrets.own),
            draw=seed_commitment(own.secrets.seed),
        )

    def _require_own(self, number: int, state: SecAggState, cohort: CheckedCohort) -> None:
        """Check that a device's own keys and draw are among those of the cohort."""
        own, shown = self._secrets(state), cohort.keys[number]
        is_own = (shown.mask, shown.seal, cohort.seeds[number]) == (own.mask, own.seal, own.secrets.seed)
        require(is_own, "keys", "the keys shown for this participant are not its own")

    def _require_holders(self, current: MaskedRound, state: SecAggState, members: frozenset[int]) -> None:
        """Check that enough of those who hold shares of a device's secrets are in a set."""
        count = sum(neighbour.is_holder and neighbour.number in members for neighbour in state.neighbours)
        needed = current.threshold
        require(count >= needed, "neighbours", f"{count} chosen neighbours continue, {needed} are needed")

    def _encrypt_shares(
        self, current: MaskedRound, number: int, state: SecAggState, neighbours: Sequence[NeighbourKeys]
    ) -> tuple[bytes, ...]:
        """Return for each holder its share of the mask secret followed by its share of the key of its self-mask."""
        holders = [neighbour for neighbour in neighbours if neighbour.is_holder]
        needed = current.threshold
        require(len(holders) >= needed, "neighbours", f"{len(holders)} neighbours are chosen, {needed} are needed")
        own = self._secrets(state)
        mask_shares = shamir.split(own.secrets.mask, needed, len(holders))
        own_shares = shamir.split(own.secrets.own, needed, len(holders))

        with refused_as("keys"):
            # A key that no mask can be agreed on with is refused now, not once the upload depends on it.
            for neighbour in neighbours:
                self.agreements.mask(own, neighbour.mask)
            return tuple(
                secure_aggregation.encrypt_share(
                    self._share_key(current, own, holder, number, holder.number), mask_share + own_share
                )
                for holder, mask_share, own_share in zip(holders, mask_shares, own_shares, strict=True)
            )

    def _shares_for(
        self, current: MaskedRound, number: int, state: SecAggState, survivors: frozenset[int]
    ) -> list[tuple[int, bytes]]:
        """Return one share of each neighbour that continued and dealt shares which can be opened."""
        own = self._secrets(state)
        dealers = {neighbour.number: neighbour for neighbour in state.neighbours}
        shares = []
        for sender, sealed in state.received:
            try:
                key = self._share_key(current, own, dealers[sender], sender, number)
                message = secure_aggregation.decrypt_share(key, sealed)
            except PrivacyError:
                continue  # its dealer sealed nonsense; others have shares of the secret
            of_mask, of_own = message[:SHARE_BYTES], message[SHARE_BYTES:]
            shares.append((sender, of_own if sender in survivors else of_mask))
        return shares

    def _share_key(
        self, current: MaskedRound, own: DeviceSecrets, other: NeighbourKeys, sender: int, recipient: int
    ) -> bytes:
        context = b"share" + current.hash + sender.to_bytes(8, "big") + recipient.to_bytes(8, "big")
        return secure_aggregation.pair_key(self.agreements.seal(own, other.seal), context)

    def _secrets(self, state: SecAggState) -> DeviceSecrets:
        return self.agreements.secrets(state.round_hash, state.secret)

    def _state(self, current: MaskedRound, device: Device) -> SecAggState:
        state = self.store.secagg_state(device.slot, current.record.number)
        if state is None or state.round_hash != current.hash:
            raise Refused("phase", "no keys were advertised for this round")
        return state


def _neighbours(number: int, cohort: CheckedCohort) -> tuple[NeighbourKeys, ...]:
    """Return whom a participant chose or was chosen by, by increasing number.

    Raises:
        Refused: More chose it than honest draws ever do.
    """
    with refused_as("neighbours"):
        cohort.graph.verify_in_degree(number)
    holders, dealers = cohort.graph.out_neighbours(number), cohort.graph.in_neighbours(number)
    return tuple(
        NeighbourKeys(
            number=other,
            mask=cohort.keys[other].mask,
            seal=cohort.keys[other].seal,
            is_holder=other in holders,
            is_dealer=other in dealers,
        )
        for other in cohort.graph.neighbours(number)
    )


def _require_member(device: Device, recorded: RecordedSets, phase: SetPhase) -> None:
    is_member = device.enrolled_number in recorded.members(phase)
    require(is_member, "sets", f"participant {device.enrolled_number} is not in the set {phase}")


def _require_dealt(state: SecAggState, members: Set[int], senders: Sequence[int]) -> None:
    """Check that shares come from people who chose this participant and continue, each once, in their order."""
    dealers = {neighbour.number for neighbour in state.neighbours if neighbour.is_dealer} & members
    is_dealt = list(senders) == sorted(dealers.intersection(senders))
    require(is_dealt, "neighbours", "shares came from others than those who chose this participant")


def _require_unchanged(stored: bytes | None, digest: bytes) -> None:
    require(stored in (None, digest), "answered", "another set of this round was answered before")
