"""The participants' side of secure aggregation: what a device does in each phase of a masked round, once.

A device is bound by what it stores before it answers: one set of keys, one set of neighbours to share with, one set of
shares received, one survivor set. Asked again it sends the same bytes, asked otherwise it refuses. Of each neighbour
it reveals a share of one of the two secrets, and never of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np

from liberate.arrays import UInt32Array
from liberate.crypto.note import Checkpoint
from liberate.crypto.signing import SigningKey
from liberate.federation.participant.refusals import Refused, refused_as, require
from liberate.federation.participant.secagg_checks import check_neighbours, check_survivors
from liberate.federation.store.device_rows import Device, NeighbourKeys, SecAggState
from liberate.federation.store.devices import DeviceStore
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.masked_round import MaskedRound
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    EncryptedShares,
    MaskRequest,
    RevealedShares,
    ShareKeysRequest,
    UnmaskRequest,
    sign_keys,
)
from liberate.privacy import secure_aggregation
from liberate.privacy.secure_aggregation import SHARE_BYTES, MaskSecrets
from liberate.randomness import Randomness


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingClient:
    """What the devices of a host do in masked rounds.

    Attributes:
        store: Where they store how far they are.
        keys: Their signing keys, by slot.
        policy: What their participants agreed to.
        randomness: Source of their secrets.
    """

    store: DeviceStore
    keys: Mapping[int, SigningKey]
    policy: ParticipationPolicy
    randomness: Randomness

    def advertise(self, current: MaskedRound, devices: Sequence[Device], note: str) -> list[AdvertisedKeys]:
        """Return signed keys for a round, drawn and stored at the first request, and the same keys later.

        Args:
            current: The round, whose entry was checked.
            devices: Devices of the cohort.
            note: The checkpoint under which the round was accepted.

        Raises:
            Refused: Keys were advertised for another round of this number.
        """
        round_number = current.record.number
        states = []
        for device in devices:
            state = self.store.secagg_state(device.slot, round_number) or SecAggState(
                round_hash=current.hash,
                secret=self.randomness.secret("masks", round_number, device.enrolled_number),
            )
            require(
                state.round_hash == current.hash,
                "answered",
                f"keys were advertised for another entry of round {round_number}",
            )
            states.append((device.slot, state))

        # Stored before any key leaves: after a crash the device must still be able to do what it advertised.
        self.store.put_secagg_states(round_number, states, note=note)
        return [self._signed_keys(current, device, state) for device, (_, state) in zip(devices, states, strict=True)]

    def share(
        self, device: Device, current: MaskedRound, request: ShareKeysRequest, checkpoint: Checkpoint
    ) -> EncryptedShares:
        """Return shares of a device's secrets, encrypted for neighbours whose keys were checked to be theirs.

        Args:
            device: The device.
            current: The round of the request.
            request: The neighbours.
            checkpoint: The one under which the round was accepted.

        Raises:
            Refused: These are not the neighbours of the round's entry, not their keys, or not those of the first time.
        """
        state = self._state(current, device)
        peers = tuple(
            NeighbourKeys(number=neighbour.number, mask=neighbour.keys.mask, seal=neighbour.keys.seal)
            for neighbour in request.neighbours
        )
        if state.peers:
            require(state.peers == peers, "answered", "secrets were shared with other neighbours before")
            return EncryptedShares(sealed=list(state.sent))

        check_neighbours(current, device.enrolled_number, request, checkpoint)
        sent = _encrypt_shares(current, device.enrolled_number, MaskSecrets.derive(state.secret), peers)
        self._put(current, device, msgspec.structs.replace(state, peers=peers, sent=sent))
        return EncryptedShares(sealed=list(sent))

    def receive(self, device: Device, current: MaskedRound, request: MaskRequest) -> None:
        """Take the shares of neighbours' secrets: with these neighbours the device masks.

        Raises:
            Refused: They are too few, from others than the secrets were shared with, not those of the first time, or
                one cannot be decrypted.
        """
        state = self._state(current, device)
        received = tuple(request.received)
        if state.received:
            require(state.received == received, "answered", "other shares were received before")
            return

        senders = [sender for sender, _ in received]
        needed = current.needed(device.enrolled_number)
        require(
            senders == sorted({peer.number for peer in state.peers}.intersection(senders)),
            "neighbours",
            "shares came from others than the neighbours whose keys were checked",
        )
        require(len(senders) >= needed, "neighbours", f"{len(senders)} neighbours continue, {needed} are needed")
        for sender, sealed in received:
            _decrypt_shares(current, device.enrolled_number, state, sender, sealed)

        self._put(current, device, msgspec.structs.replace(state, received=received))

    def require_ready(self, device: Device, current: MaskedRound) -> None:
        """Check that a device has received what it needs to mask an upload.

        Raises:
            Refused: It has not.
        """
        received = self._state(current, device).received
        require(bool(received), "phase", "a masked upload needs the neighbours' shares first")

    def add(self, device: Device, current: MaskedRound, values: UInt32Array) -> None:
        """Mask an upload in place: with a mask of the device alone, and one shared with each neighbour that continues.

        Args:
            device: A device that is ready.
            current: The round.
            values: Its upload, one-dimensional and contiguous; changed.
        """
        state = self._state(current, device)
        secrets = MaskSecrets.derive(state.secret)
        secure_aggregation.add_mask(values, secrets.own)
        mask_keys = {peer.number: peer.mask for peer in state.peers}
        for sender, _ in state.received:
            key = secure_aggregation.pair_key(secrets.mask, mask_keys[sender], current.hash)
            secure_aggregation.add_pair_mask(values, key, device.enrolled_number, sender)

    def unmask(
        self, devices: Sequence[Device], current: MaskedRound, request: UnmaskRequest, checkpoint: Checkpoint
    ) -> list[RevealedShares | Refused]:
        """Return shares for one survivor set: of a survivor's own mask, and of the shared masks of everybody else.

        Args:
            devices: The devices that are asked.
            current: The round of the request.
            request: The survivor set.
            checkpoint: The newest accepted one, that of the request.

        Returns:
            The answer or the refusal of each device, in their order.

        Raises:
            Refused: The set is not the one that the ledger records.
        """
        survivors = check_survivors(current, request, checkpoint, self.policy)
        digest = sha256(np.array(sorted(survivors), "<u8").tobytes()).digest()
        answers: list[RevealedShares | Refused] = []
        states = []
        for device in devices:
            try:
                state = self._state(current, device)
                answers.append(_reveal_shares(current, device.enrolled_number, state, survivors, digest))
                states.append((device.slot, msgspec.structs.replace(state, survivors=digest)))
            except Refused as refusal:
                answers.append(refusal)

        # Stored before any share leaves: from here on these devices answer for this survivor set only.
        self.store.put_secagg_states(current.record.number, states, note=request.checkpoint)
        return answers

    def _signed_keys(self, current: MaskedRound, device: Device, state: SecAggState) -> AdvertisedKeys:
        secrets = MaskSecrets.derive(state.secret)
        return sign_keys(
            self.keys[device.slot],
            self.policy.origin,
            current.hash,
            device.enrolled_number,
            mask=secure_aggregation.public_key(secrets.mask),
            seal=secure_aggregation.public_key(secrets.seal),
            own=secure_aggregation.key_commitment(secrets.own),
        )

    def _state(self, current: MaskedRound, device: Device) -> SecAggState:
        state = self.store.secagg_state(device.slot, current.record.number)
        if state is None or state.round_hash != current.hash:
            raise Refused("phase", "no keys were advertised for this round")
        return state

    def _put(self, current: MaskedRound, device: Device, state: SecAggState) -> None:
        self.store.put_secagg_states(current.record.number, [(device.slot, state)])


def _encrypt_shares(
    current: MaskedRound, number: int, secrets: MaskSecrets, peers: Sequence[NeighbourKeys]
) -> tuple[bytes, ...]:
    """Return for each peer its share of the mask secret followed by its share of the key of the sender's own mask."""
    needed = current.needed(number)
    mask_shares = secure_aggregation.shamir_split(secrets.mask, needed, len(peers))
    own_shares = secure_aggregation.shamir_split(secrets.own, needed, len(peers))

    with refused_as("keys"):
        # A key that no mask can be agreed on with is refused now, not once the upload depends on it.
        for peer in peers:
            secure_aggregation.pair_key(secrets.mask, peer.mask, current.hash)
        return tuple(
            secure_aggregation.encrypt_share(
                secrets.seal, peer.seal, mask_share + own_share, _context(current, number, peer.number)
            )
            for peer, mask_share, own_share in zip(peers, mask_shares, own_shares, strict=True)
        )


def _decrypt_shares(
    current: MaskedRound, number: int, state: SecAggState, sender: int, sealed: bytes
) -> tuple[bytes, bytes]:
    """Return the shares that a neighbour encrypted: one of its mask secret, and one of its own mask's key."""
    (peer,) = (peer for peer in state.peers if peer.number == sender)
    seal_secret = MaskSecrets.derive(state.secret).seal
    with refused_as("shares"):
        message = secure_aggregation.decrypt_share(seal_secret, peer.seal, sealed, _context(current, sender, number))
    require(len(message) == 2 * SHARE_BYTES, "shares", f"participant {sender} did not encrypt two shares")
    return message[:SHARE_BYTES], message[SHARE_BYTES:]


def _reveal_shares(
    current: MaskedRound, number: int, state: SecAggState, survivors: frozenset[int], digest: bytes
) -> RevealedShares:
    """Return one share of each neighbour, after checking that revealing them for these survivors is safe."""
    require(state.survivors in (None, digest), "survivors", "shares were revealed for another survivor set")
    require(number in survivors, "survivors", f"participant {number} is not among the survivors")
    surviving = sum(sender in survivors for sender, _ in state.received)
    needed = current.needed(number)
    require(surviving >= needed, "survivors", f"{surviving} neighbours survive, {needed} are needed")

    shares = []
    for sender, sealed in state.received:
        of_mask, of_own = _decrypt_shares(current, number, state, sender, sealed)
        shares.append((sender, of_own if sender in survivors else of_mask))
    return RevealedShares(shares=shares)


def _context(current: MaskedRound, sender: int, recipient: int) -> bytes:
    return b"share" + current.hash + sender.to_bytes(8, "big") + recipient.to_bytes(8, "big")
