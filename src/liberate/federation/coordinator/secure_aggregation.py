"""The coordinator's side of secure aggregation: relay keys and shares, and remove the masks from a sum.

    advertise -> share -> mask -> survivors (in the log) -> unmask

Whoever vanishes in a phase is left out of the next one. What participants are told is stored before it leaves, so that
after a crash they are told the same again: they answer nothing else. None of it is secret.

Source: Bell et al. 2020, "Secure single-server aggregation with (poly)logarithmic overhead".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import msgspec

from liberate.arrays import UInt32Array
from liberate.errors import LiberateError
from liberate.federation.coordinator.exchange import CheckpointView, RoundAborted, RoundExchange
from liberate.federation.coordinator.unmasking import is_published, take_masks_out
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.wire.masked_round import masked_round
from liberate.federation.wire.round_messages import encode_message
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    EncryptedShares,
    MaskRequest,
    Neighbour,
    RevealedShares,
    ShareKeysRequest,
    UnmaskRequest,
    verify_keys,
)
from liberate.files import write_atomic
from liberate.privacy import secure_aggregation

_ANY_SECRET = b"\x40" * secure_aggregation.SECRET_BYTES


class _Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What participants were told.

    Attributes:
        round_hash: Leaf hash of the round's entry.
        keys: Who takes part, with which keys.
        sealed: For each participant that shared its secrets, the sealed shares in the order of its peers; None before.
    """

    round_hash: bytes
    keys: dict[int, AdvertisedKeys]
    sealed: dict[int, list[bytes]] | None = None


class SecureAggregation:
    """Carries a masked round through its phases.

    Args:
        exchange: Asks participants.
        view: What they are shown of the ledger.
        position: Position of the round's entry in the ledger.
        path: Where what they are told is stored.
    """

    def __init__(self, exchange: RoundExchange, view: CheckpointView, position: int, path: Path) -> None:
        self._exchange = exchange
        self._view = view
        self._position = position
        self._entry = view.ledger.entry(position)
        self._round = masked_round(self._entry)
        self._path = path
        self._keys: dict[int, AdvertisedKeys] = {}
        self._sealed: dict[int, list[bytes]] = {}

    # --- keys and shares ----------------------------------------------------------------------------------------------

    def agree_on_masks(self, known_size: int) -> list[int]:
        """Have keys advertised and secrets shared, or continue after a crash with what participants were told.

        Args:
            known_size: The tree size that most participants know.

        Returns:
            Who is to upload, increasing.

        Raises:
            RoundAborted: They are fewer than the round needs.
        """
        agreement = self._load()
        if agreement is None or agreement.sealed is None:
            # Asked again after a crash, because the ledger may have grown: keys are proven under the checkpoint that
            # was accepted last. They are the same keys, signed with the key that the ledger has for their owner now.
            keys = self._advertised_keys(known_size)
            if agreement is not None:
                keys = {number: keys.get(number, earlier) for number, earlier in agreement.keys.items()}
            agreement = self._save(_Agreement(round_hash=self._round.hash, keys=keys))
        self._keys = agreement.keys
        self._require(len(self._keys), "keys")

        if agreement.sealed is None:
            agreement = self._save(msgspec.structs.replace(agreement, sealed=self._encrypted_shares()))
        self._sealed = agreement.sealed or {}

        ready = [number for number in self._sealed if len(self._senders(number)) >= self._round.needed(number)]
        self._require(len(ready), "shares")
        return sorted(ready)

    def _advertised_keys(self, known_size: int) -> dict[int, AdvertisedKeys]:
        """Ask the participants of the round for their keys, and return those that are valid."""
        request = cache(partial(self._view.round_request, self._position, b""))
        answers = self._exchange.ask(
            "advertise",
            sorted(self._round.participants),
            lambda _, known: request(known),
            AdvertisedKeys,
            known_size,
            self._view.size,
        )
        return {number: keys for number, keys in answers if self._is_valid(number, keys)}

    def _is_valid(self, number: int, keys: AdvertisedKeys) -> bool:
        """Whether the participant signed its keys for this round, and a neighbour can agree on a secret with them."""
        state = self._view.ledger.state
        try:
            verify_keys(keys, state.principals[number].device_key, state.origin, self._round.hash, number)
            for key in (keys.mask, keys.seal):
                secure_aggregation.pair_key(_ANY_SECRET, key, b"")
        except LiberateError:
            self._exchange.count("keys")
            return False
        return True

    def _encrypted_shares(self) -> dict[int, list[bytes]]:
        """Tell participants their neighbours' keys, and return the shares that they encrypt for these."""
        ledger = self._view.ledger
        state = ledger.state
        last = self._view.size - 1
        block = ledger.entry(last)
        block_proof = list(ledger.inclusion_proof(last, last + 1))
        neighbours = {
            number: Neighbour(
                number=number,
                keys=keys,
                leaf=state.principals[number].encode(),
                proof=list(state.inclusion_proof(number)),
            )
            for number, keys in self._keys.items()
        }

        def request(number: int, _: int) -> bytes:
            return encode_message(
                ShareKeysRequest(
                    entry=self._entry,
                    block=block,
                    block_proof=block_proof,
                    n_principals=len(state.principals),
                    neighbours=[neighbours[peer] for peer in self._peers(number)],
                )
            )

        able = [number for number in self._keys if len(self._peers(number)) >= self._round.needed(number)]
        size = self._view.size
        answers = self._exchange.ask("share", able, request, EncryptedShares, size, size)
        return {number: shares.sealed for number, shares in answers if len(shares.sealed) == len(self._peers(number))}

    def _peers(self, number: int) -> list[int]:
        """Return the neighbours with whom a participant shares secrets, in the order of the shares."""
        return [other for other in self._round.neighbours(number) if other in self._keys]

    def _senders(self, number: int) -> list[int]:
        """Return the neighbours whose shares a participant receives, and with whom it masks."""
        return [other for other in self._round.neighbours(number) if other in self._sealed]

    # --- masked uploads -----------------------------------------------------------------------------------------------

    def mask_request(self, number: int, round_request: bytes) -> bytes:
        """Return the request for a masked upload: the round's request with the shares encrypted for the participant."""
        received = [
            (sender, self._sealed[sender][self._peers(sender).index(number)]) for sender in self._senders(number)
        ]
        return encode_message(MaskRequest(round=round_request, received=received))

    # --- unmasking ----------------------------------------------------------------------------------------------------

    def unmask(
        self, total: UInt32Array, survivors: frozenset[int], view: CheckpointView, known_size: int
    ) -> dict[int, UnmaskingShares]:
        """Have the survivors reveal shares, and remove all masks that are left in a sum.

        Args:
            total: Sum of the survivors' masked uploads modulo 2**32, one-dimensional; changed in place.
            survivors: The participants whose uploads it holds, as the ledger names them.
            view: What participants are shown: a checkpoint whose tree holds the survivor set.
            known_size: The tree size that most of them know.

        Returns:
            What was needed for it, by the participant whose masks were removed.

        Raises:
            RoundAborted: Too few shares of a secret came back, or they do not fit together.
        """
        shares = self._revealed_shares(survivors, view, known_size)

        secrets: dict[int, bytes] = {}
        used: dict[int, UnmaskingShares] = {}
        for number in sorted(self._sealed):
            chosen: dict[int, bytes] = {}
            # Whoever is not in the sum and masked with no survivor has left no mask in it.
            if number in survivors or survivors.intersection(self._senders(number)):
                secrets[number], chosen = self._rebuild(number, shares[number], in_sum=number in survivors)
            used[number] = UnmaskingShares(keys=self._keys[number], shares=chosen)

        keys = {number: self._keys[number] for number in self._sealed}
        take_masks_out(total, self._round, survivors, keys, secrets)
        return used

    def _revealed_shares(
        self, survivors: frozenset[int], view: CheckpointView, known_size: int
    ) -> Mapping[int, dict[int, bytes]]:
        """Ask the survivors for shares, and return these by owner and index."""
        ledger = view.ledger
        positions = [position for position in ledger.positions(kind="survivors") if position > self._position]

        def request(_: int, known: int) -> bytes:
            return encode_message(
                UnmaskRequest(
                    round=self._entry,
                    entries=[ledger.entry(position) for position in positions],
                    positions=positions,
                    inclusion=[list(ledger.inclusion_proof(position, view.size)) for position in positions],
                    checkpoint=view.note,
                    known_size=known,
                    consistency=view.consistency(known),
                )
            )

        answers = self._exchange.ask(
            "unmask",
            sorted(survivors),
            request,
            RevealedShares,
            known_size,
            view.size,
        )

        shares: dict[int, dict[int, bytes]] = {number: {} for number in self._sealed}
        for holder, revealed in answers:
            for owner, share in revealed.shares:
                peers = self._peers(owner) if owner in self._sealed else []
                if holder in peers and len(share) == secure_aggregation.SHARE_BYTES:
                    shares[owner][peers.index(holder) + 1] = share
        return shares

    def _rebuild(self, number: int, shares: Mapping[int, bytes], *, in_sum: bool) -> tuple[bytes, dict[int, bytes]]:
        """Return a secret, and the shares that it was rebuilt from.

        One false share does no harm if there is a share to spare.
        """
        needed = self._round.needed(number)
        if len(shares) < needed:
            detail = f"{len(shares)} shares of a secret of participant {number}, {needed} were needed"
            raise RoundAborted("too_few_shares", detail)

        for left_out in (None, *shares):
            chosen = dict([item for item in shares.items() if item[0] != left_out][:needed])
            if len(chosen) == needed:
                secret = secure_aggregation.shamir_combine(chosen)
                if is_published(secret, self._keys[number], in_sum=in_sum):
                    return secret, chosen
        raise RoundAborted("false_shares", f"the shares of a secret of participant {number} do not fit together")

    # --- what is stored -----------------------------------------------------------------------------------------------

    def _require(self, count: int, what: str) -> None:
        """Abort the round if fewer participants than its minimum have sent something."""
        minimum = self._round.record.minimum
        if count < minimum:
            raise RoundAborted(f"too_few_{what}", f"{count} participants sent {what}, {minimum} were needed")

    def _load(self) -> _Agreement | None:
        """Return what participants were told in this round before a crash."""
        if not self._path.exists():
            return None
        try:
            stored = msgspec.msgpack.decode(self._path.read_bytes(), type=_Agreement)
        except msgspec.MsgspecError:
            return None
        return stored if stored.round_hash == self._round.hash else None

    def _save(self, agreement: _Agreement) -> _Agreement:
        write_atomic(self._path, msgspec.msgpack.encode(agreement))
        return agreement
