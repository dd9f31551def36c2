"""The participants' side of secure aggregation: what a device does in each phase of a masked round, once.

A device is bound by what it keeps before it answers: one set of keys, one set of neighbours to share with, one set of
shares received, one survivor set. Asked again it gives the same bytes, asked otherwise it refuses. Of each neighbour
it gives away a share of one of the two secrets, and never of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import pairwise

import msgspec
import numpy as np

from liberate.arrays import UInt32Array
from liberate.crypto.merkle import leaf_hash, verify_inclusion
from liberate.crypto.note import Checkpoint
from liberate.crypto.signing import SigningKey, verify_signature
from liberate.errors import LiberateError, PrivacyError
from liberate.federation.store.device_rows import NeighbourKeys, SecAggState
from liberate.federation.store.devices import DeviceStore
from liberate.federation.wire.masked_round import MaskedRound
from liberate.federation.wire.round_messages import Refused
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    EncryptedShares,
    MaskRequest,
    Neighbour,
    RevealedShares,
    ShareKeysRequest,
    UnmaskRequest,
    sign_keys,
    verify_keys,
)
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_included, signed_bytes
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Block, Survivors
from liberate.ledger.lookup import record_of
from liberate.ledger.rules.principal import Principal
from liberate.privacy import secure_aggregation
from liberate.randomness import Randomness

_SHARE = secure_aggregation.SHARE_BYTES


class MaskingClient:
    """What the devices of a host do in masked rounds.

    Args:
        devices: Where they keep how far they are.
        keys: Their signing keys, by slot.
        origin: The ledger they joined.
        coordinator: The coordinator's public key.
        randomness: Source of their secrets.
    """

    def __init__(
        self,
        devices: DeviceStore,
        keys: Mapping[int, SigningKey],
        origin: str,
        coordinator: bytes,
        randomness: Randomness,
    ) -> None:
        self._devices = devices
        self._keys = keys
        self._origin = origin
        self._coordinator = coordinator
        self._randomness = randomness

    def advertise(self, current: MaskedRound, who: Sequence[tuple[int, int]], note: str) -> list[AdvertisedKeys]:
        """Draw keys for a round and sign them; the same keys when asked again.

        Args:
            current: The round, whose entry was checked.
            who: (slot, number) of each device, all of the cohort.
            note: The checkpoint under which the round was accepted.

        Raises:
            Refused: Keys were advertised for another round of this number.
        """
        number_of_round = current.record.number
        states, fresh = [], []
        for slot, number in who:
            state = self._devices.secagg_state(slot, number_of_round)
            if state is None:
                secret = self._randomness.secret("masks", number_of_round, number)
                state = SecAggState(round_hash=current.hash, secret=secret)
                fresh.append((slot, state))
            elif state.round_hash != current.hash:
                raise Refused("answered", f"keys were advertised for another entry of round {number_of_round}")
            states.append(state)
        self._devices.put_secagg_states(number_of_round, fresh, note=note)
        return [self._advertised(current, *device, state) for device, state in zip(who, states, strict=True)]

    def _advertised(self, current: MaskedRound, slot: int, number: int, state: SecAggState) -> AdvertisedKeys:
        own = secure_aggregation.MaskSecrets.derive(state.secret)
        return sign_keys(
            self._keys[slot],
            self._origin,
            current.hash,
            number,
            mask=secure_aggregation.public_key(own.mask),
            seal=secure_aggregation.public_key(own.seal),
            own=secure_aggregation.key_commitment(own.own),
        )

    def share(
        self, slot: int, number: int, current: MaskedRound, request: ShareKeysRequest, checkpoint: Checkpoint
    ) -> EncryptedShares:
        """Share the own secrets with neighbours, having checked that their keys are theirs.

        Args:
            slot, number: The device.
            current: The round of the request.
            request: The neighbours.
            checkpoint: The one under which the round was accepted.

        Raises:
            Refused: Not what this device goes on with.
        """
        state = self._state(current, slot)
        peers = tuple(
            NeighbourKeys(number=each.number, mask=each.keys.mask, seal=each.keys.seal) for each in request.neighbours
        )
        if state.peers:
            if state.peers != peers:
                raise Refused("answered", "secrets were shared with other neighbours before")
            return EncryptedShares(sealed=list(state.sent))
        self._check_neighbours(current, number, request, checkpoint)
        secrets = secure_aggregation.MaskSecrets.derive(state.secret)
        needed = current.needed(number)
        split = [secure_aggregation.shamir_split(secret, needed, len(peers)) for secret in (secrets.mask, secrets.own)]
        try:
            for peer in peers:
                secure_aggregation.pair_key(
                    secrets.mask, peer.mask, current.hash
                )  # refused now if it could not be used later
            sent = tuple(
                secure_aggregation.encrypt_share(
                    secrets.seal,
                    peer.seal,
                    split[0][index] + split[1][index],
                    _context(current, number, peer.number),
                )
                for index, peer in enumerate(peers)
            )
        except PrivacyError as error:
            raise Refused("keys", str(error)) from error
        kept = msgspec.structs.replace(state, peers=peers, sent=sent)
        self._devices.put_secagg_states(current.record.number, [(slot, kept)])
        return EncryptedShares(sealed=list(sent))

    def receive(self, slot: int, number: int, current: MaskedRound, request: MaskRequest) -> None:
        """Take the shares of neighbours' secrets: with these neighbours the device masks.

        Raises:
            Refused: Too few, from others than the secrets were shared with, other ones than before, or one that does
                not open.
        """
        state = self._state(current, slot)
        received = tuple(request.received)
        if state.received:
            if state.received != received:
                raise Refused("answered", "other shares were received before")
            return
        senders = [sender for sender, _ in received]
        if senders != sorted({peer.number for peer in state.peers}.intersection(senders)):
            raise Refused("neighbours", "shares of others than those whose keys were checked")
        if len(senders) < current.needed(number):
            raise Refused("neighbours", f"{len(senders)} neighbours go on, {current.needed(number)} are wanted")
        for sender, sealed in received:
            self._open(current, number, state, sender, sealed)
        kept = msgspec.structs.replace(state, received=received)
        self._devices.put_secagg_states(current.record.number, [(slot, kept)])

    def is_ready(self, slot: int, current: MaskedRound) -> bool:
        """Whether a device has received what it needs to mask an upload."""
        state = self._devices.secagg_state(slot, current.record.number)
        return state is not None and state.round_hash == current.hash and bool(state.received)

    def add(self, slot: int, number: int, current: MaskedRound, values: UInt32Array) -> None:
        """Mask an upload in place: with a mask of one's own, and one shared with each neighbour that goes on.

        Args:
            slot, number: The device, which is ready.
            current: The round.
            values: Its upload, one-dimensional and contiguous; changed.
        """
        state = self._state(current, slot)
        secrets = secure_aggregation.MaskSecrets.derive(state.secret)
        secure_aggregation.add_mask(values, secrets.own)
        by_number = {peer.number: peer for peer in state.peers}
        for sender, _ in state.received:
            key = secure_aggregation.pair_key(secrets.mask, by_number[sender].mask, current.hash)
            secure_aggregation.add_pair_mask(values, key, number, sender)

    def unmask(
        self,
        who: Sequence[tuple[int, int]],
        current: MaskedRound,
        request: UnmaskRequest,
        checkpoint: Checkpoint,
    ) -> list[RevealedShares | Refused]:
        """Give shares away for one survivor set: of who survived that of the own mask, else that of the shared masks.

        Args:
            who: (slot, number) of each device.
            current: The round of the request.
            request: The survivor set.
            checkpoint: The newest one accepted, that of the request.

        Raises:
            Refused: The set is not the one that the ledger records.
        """
        survivors = self._survivors(current, request, checkpoint)
        digest = sha256(np.array(sorted(survivors), "<u8").tobytes()).digest()
        answers: list[RevealedShares | Refused] = []
        kept = []
        for slot, number in who:
            try:
                state = self._check_unmask(current, slot, number, survivors, digest)
                answers.append(self._opened(current, number, state, survivors))
                kept.append((slot, msgspec.structs.replace(state, survivors=digest)))
            except Refused as refusal:
                answers.append(refusal)
        self._devices.put_secagg_states(current.record.number, kept, note=request.checkpoint)
        return answers

    def _check_unmask(
        self, current: MaskedRound, slot: int, number: int, survivors: frozenset[int], digest: bytes
    ) -> SecAggState:
        state = self._state(current, slot)
        if state.survivors not in (None, digest):
            raise Refused("survivors", "shares were given away for another survivor set")
        if number not in survivors:
            raise Refused("survivors", f"participant {number} is not among the survivors")
        staying = sum(sender in survivors for sender, _ in state.received)
        if staying < current.needed(number):
            raise Refused("survivors", f"{staying} neighbours survive, {current.needed(number)} are wanted")
        return state

    def _opened(
        self, current: MaskedRound, number: int, state: SecAggState, survivors: frozenset[int]
    ) -> RevealedShares:
        shares = []
        for sender, sealed in state.received:
            of_mask, of_own = self._open(current, number, state, sender, sealed)
            shares.append((sender, of_own if sender in survivors else of_mask))
        return RevealedShares(shares=shares)

    def _survivors(self, current: MaskedRound, request: UnmaskRequest, checkpoint: Checkpoint) -> frozenset[int]:
        """Check a survivor set: signed, on the ledger, whole, of the cohort, and not below the round's minimum."""
        participants: list[int] = []
        n_parts = len(request.entries)
        if not 0 < n_parts == len(request.positions) == len(request.inclusion):
            raise Refused("survivors", "a survivor set with its proofs was wanted")
        proofs = zip(request.entries, request.positions, request.inclusion, strict=True)
        for part, (data, position, proof) in enumerate(proofs, start=1):
            try:
                entry = decode_included(data, position, proof, checkpoint)
                verify_signature(self._coordinator, signed_bytes(entry.body), entry.signature)
            except LiberateError as error:
                raise Refused("survivors", str(error)) from error
            record = entry.record
            if (
                not isinstance(record, Survivors)
                or (record.origin, record.round_hash) != (self._origin, current.hash)
                or (record.part, record.parts) != (part, n_parts)
            ):
                raise Refused("survivors", f"part {part} of {n_parts} of the round's survivor set was wanted")
            participants += numbers_in(record.participants)
        if any(a >= b for a, b in pairwise(participants)) or not current.participants.issuperset(participants):
            raise Refused("survivors", "survivors must be of the cohort, their numbers increasing")
        if len(participants) < current.record.minimum:
            raise Refused("survivors", f"{len(participants)} survivors, the round promised {current.record.minimum}")
        return frozenset(participants)

    def _check_neighbours(
        self, current: MaskedRound, number: int, request: ShareKeysRequest, checkpoint: Checkpoint
    ) -> None:
        told = [each.number for each in request.neighbours]
        if told != sorted(set(current.neighbours(number)).intersection(told)):
            raise Refused("neighbours", "others than the neighbours that the round's entry gives")
        if len(told) < current.needed(number):
            raise Refused("neighbours", f"{len(told)} neighbours take part, {current.needed(number)} are wanted")
        try:
            entry = decode_included(request.block, checkpoint.size - 1, request.block_proof, checkpoint)
            state_root = record_of(entry, Block).state_root
            for each in request.neighbours:
                self._check_keys(current, each, request.n_principals, state_root)
        except LiberateError as error:
            raise Refused("keys", str(error)) from error

    def _check_keys(self, current: MaskedRound, neighbour: Neighbour, n_principals: int, state_root: Digest) -> None:
        """Check that a neighbour's keys are signed with the key that the ledger has for it."""
        proof = [Digest(step) for step in neighbour.proof]
        verify_inclusion(leaf_hash(neighbour.leaf), neighbour.number, n_principals, proof, state_root)
        principal = Principal.decode(neighbour.leaf)
        if principal.role != "participant" or not principal.is_active:
            raise Refused("keys", f"principal {neighbour.number} is no active participant")
        verify_keys(neighbour.keys, principal.key, self._origin, current.hash, neighbour.number)

    def _state(self, current: MaskedRound, slot: int) -> SecAggState:
        state = self._devices.secagg_state(slot, current.record.number)
        if state is None or state.round_hash != current.hash:
            raise Refused("phase", "no keys were advertised for this round")
        return state

    def _open(
        self, current: MaskedRound, number: int, state: SecAggState, sender: int, sealed: bytes
    ) -> tuple[bytes, bytes]:
        """Open what a neighbour sealed: a share of the secret of its shared masks, and one of its own mask's key."""
        (peer,) = (peer for peer in state.peers if peer.number == sender)
        secret = secure_aggregation.MaskSecrets.derive(state.secret).seal
        try:
            message = secure_aggregation.decrypt_share(secret, peer.seal, sealed, _context(current, sender, number))
        except PrivacyError as error:
            raise Refused("shares", str(error)) from error
        if len(message) != 2 * _SHARE:
            raise Refused("shares", f"participant {sender} sealed no shares")
        return message[:_SHARE], message[_SHARE:]


def _context(current: MaskedRound, sender: int, recipient: int) -> bytes:
    return b"share" + current.hash + sender.to_bytes(8, "big") + recipient.to_bytes(8, "big")
