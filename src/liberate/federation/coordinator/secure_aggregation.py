"""The coordinator's side of secure aggregation: hand on keys and shares, and undo the masks of a sum.

    advertise -> share -> mask -> survivors (on the ledger) -> unmask

Whoever vanishes in a phase is left out of the next one. What is handed out is kept before it is, so that after a crash
everybody is told the same again: participants answer nothing else. None of it is secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import msgspec

from liberate.arrays import UInt32Array
from liberate.errors import LiberateError
from liberate.federation.coordinator.exchange import AnswerT, CheckpointView, RoundExchange
from liberate.federation.coordinator.unmasking import publish, published_half, take_masks_out
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.wire.masked_round import masked_round
from liberate.federation.wire.round_messages import RoundRefusal, decode_answer, encode_message
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
from liberate.ledger.format.number_sets import Range, to_ranges
from liberate.ledger.rules.participants import MAX_PARTICIPANTS
from liberate.privacy import secure_aggregation

_ANY_SECRET = b"\x40" * secure_aggregation.SECRET_BYTES
_LARGEST_PART = 40_000
"""Bytes of bitmaps and overhead that fit a survivors entry with room to spare."""


class RoundAborted(Exception):
    """Too few participants are left to go on with a masked round.

    Args:
        reason: Why it is aborted, as a code.
        detail: What was found and what was wanted.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What participants were told.

    Attributes:
        round_hash: Leaf hash of the round's entry.
        keys: Who takes part, with which keys.
        sealed: For each who shared its secrets, the sealed shares in the order of its peers; None before.
    """

    round_hash: bytes
    keys: dict[int, AdvertisedKeys]
    sealed: dict[int, list[bytes]] | None = None


class SecureAggregation:
    """Carries a masked round through its phases.

    Args:
        exchange: Asks participants.
        view: What they are shown of the ledger.
        position: Where the round's entry stands.
        chunk: Participants asked at a time, > 0.
        path: Where what they are told is kept.
    """

    def __init__(
        self, exchange: RoundExchange, view: CheckpointView, position: int, *, batch_size: int, path: Path
    ) -> None:
        self._exchange = exchange
        self._view = view
        self._position = position
        self._entry = view.ledger.entry(position)
        self._round = masked_round(self._entry)
        self._batch_size = batch_size
        self._path = path
        self._keys: dict[int, AdvertisedKeys] = {}
        self._sealed: dict[int, list[bytes]] = {}

    # --- keys and shares ----------------------------------------------------------------------------------------------

    def agree(self, known_size: int) -> list[int]:
        """Have keys advertised and secrets shared, or go on after a crash with what was.

        Args:
            known_size: The tree size that most participants know.

        Returns:
            Who is to upload.

        Raises:
            Shortfall: They are fewer than the round needs.
        """
        kept = self._load()
        if kept is None:
            kept = self._save(_Agreement(round_hash=self._round.hash, keys=self._advertise(known_size)))
        elif kept.sealed is None:
            # The ledger may have grown: keys are proven under the checkpoint that was accepted last. Who is asked again
            # has the same keys, signed with the key that the ledger has for it now.
            again = self._advertise(known_size)
            kept = self._save(
                msgspec.structs.replace(
                    kept, keys={number: again.get(number, own) for number, own in kept.keys.items()}
                )
            )
        self._keys = kept.keys
        self._require(len(self._keys), "keys")
        if kept.sealed is None:
            kept = self._save(msgspec.structs.replace(kept, sealed=self._share()))
        self._sealed = kept.sealed or {}
        uploading = [number for number in self._sealed if len(self._senders(number)) >= self._round.needed(number)]
        self._require(len(uploading), "shares")
        return sorted(uploading)

    def _advertise(self, known_size: int) -> dict[int, AdvertisedKeys]:
        request = cache(partial(self._view.round_request, self._position, b""))
        answers = self._ask(
            "advertise",
            sorted(self._round.participants),
            lambda _, known: request(known),
            lambda body: decode_answer(body, AdvertisedKeys),
            known_size,
            self._view.size,
        )
        return {number: keys for number, keys in answers if self._is_sound(number, keys)}

    def _is_sound(self, number: int, keys: AdvertisedKeys) -> bool:
        state = self._view.ledger.state
        try:
            verify_keys(keys, state.principals[number].key, state.origin, self._round.hash, number)
            for key in (keys.mask, keys.seal):
                secure_aggregation.pair_key(_ANY_SECRET, key, b"")
        except LiberateError:
            self._exchange.count("keys")
            return False
        return True

    def _share(self) -> dict[int, list[bytes]]:
        state = self._view.ledger.state
        last = self._view.size - 1
        block = self._view.ledger.entry(last)
        block_proof = list(self._view.ledger.inclusion_proof(last, last + 1))
        able = [number for number in self._keys if len(self._peers(number)) >= self._round.needed(number)]
        neighbours = {
            number: Neighbour(
                number=number,
                keys=keys,
                leaf=state.principals[number].encode(),
                proof=list(state.inclusion_proof(number)),
            )
            for number, keys in self._keys.items()
        }
        answers = self._ask(
            "share",
            able,
            lambda number, _: encode_message(
                ShareKeysRequest(
                    entry=self._entry,
                    block=block,
                    block_proof=block_proof,
                    n_principals=len(state.principals),
                    neighbours=[neighbours[peer] for peer in self._peers(number)],
                )
            ),
            lambda body: decode_answer(body, EncryptedShares),
            self._view.size,
            self._view.size,
        )
        return {number: shares.sealed for number, shares in answers if len(shares.sealed) == len(self._peers(number))}

    def _peers(self, number: int) -> list[int]:
        """Give the neighbours with whom somebody shares secrets, in the order of the shares."""
        return [other for other in self._round.neighbours(number) if other in self._keys]

    def _senders(self, number: int) -> list[int]:
        """Give the neighbours whose shares somebody receives, and with whom it masks."""
        return [other for other in self._round.neighbours(number) if other in self._sealed]

    # --- masked uploads -----------------------------------------------------------------------------------------------

    def mask_request(self, number: int, round_request: bytes) -> bytes:
        """Ask somebody for a masked upload: the shares sealed for it, around the round's request."""
        received = [
            (sender, self._sealed[sender][self._peers(sender).index(number)]) for sender in self._senders(number)
        ]
        return encode_message(MaskRequest(round=round_request, received=received))

    # --- what undoes masks --------------------------------------------------------------------------------------------

    def unmask(
        self, total: UInt32Array, survivors: frozenset[int], view: CheckpointView, known_size: int
    ) -> dict[int, UnmaskingShares]:
        """Get the survivors' shares and take all masks that are left out of a sum.

        Args:
            total: Sum of the survivors' masked uploads modulo 2**32, one-dimensional; changed.
            survivors: Whose uploads it holds, as the ledger names them.
            view: What participants are shown: a checkpoint whose tree holds the survivor set.
            known_size: The tree size that most of them know.

        Returns:
            What was needed for it, by whose masks were undone.

        Raises:
            Shortfall: Too few shares of somebody's secret came back.
        """
        shares = self._collect_shares(survivors, view, known_size)
        secrets: dict[int, bytes] = {}
        used: dict[int, UnmaskingShares] = {}
        for number in sorted(self._sealed):
            chosen: dict[int, bytes] = {}
            if number in survivors or survivors.intersection(self._senders(number)):
                secrets[number], chosen = self._rebuild(number, shares[number], in_sum=number in survivors)
            used[number] = UnmaskingShares(keys=self._keys[number], shares=chosen)
        keys = {number: each.keys for number, each in used.items()}
        take_masks_out(total, self._round, survivors, keys, secrets)
        return used

    def _collect_shares(
        self, survivors: frozenset[int], view: CheckpointView, known_size: int
    ) -> Mapping[int, dict[int, bytes]]:
        """Give shares by owner and index."""
        positions = [p for p in view.ledger.positions(kind="survivors") if p > self._position]

        def body(_: int, known: int) -> bytes:
            return encode_message(
                UnmaskRequest(
                    round=self._entry,
                    entries=[view.ledger.entry(position) for position in positions],
                    positions=positions,
                    inclusion=[list(view.ledger.inclusion_proof(position, view.size)) for position in positions],
                    checkpoint=view.note,
                    known_size=known,
                    consistency=view.consistency(known),
                )
            )

        answers = self._ask(
            "unmask", sorted(survivors), body, lambda data: decode_answer(data, RevealedShares), known_size, view.size
        )
        shares: dict[int, dict[int, bytes]] = {number: {} for number in self._sealed}
        for holder, opened in answers:
            for owner, share in opened.shares:
                peers = self._peers(owner) if owner in self._sealed else []
                if holder in peers and len(share) == secure_aggregation.SHARE_BYTES:
                    shares[owner][peers.index(holder) + 1] = share
        return shares

    def _rebuild(self, number: int, found: Mapping[int, bytes], *, in_sum: bool) -> tuple[bytes, dict[int, bytes]]:
        """Give a secret, and the shares that gave it: others than the first ones if one is false and one to spare."""
        needed = self._round.needed(number)
        if len(found) < needed:
            detail = f"{len(found)} shares of a secret of participant {number}, {needed} were needed"
            raise RoundAborted("too_few_shares", detail)
        for left_out in (None, *found):
            chosen = {index: share for index, share in found.items() if index != left_out}
            chosen = dict(list(chosen.items())[:needed])
            if len(chosen) == needed:
                secret = secure_aggregation.shamir_combine(chosen)
                if publish(secret, in_sum=in_sum) == published_half(self._keys[number], in_sum=in_sum):
                    return secret, chosen
        raise RoundAborted("false_shares", f"the shares of a secret of participant {number} do not fit together")

    # --- what is kept, and exchanged --------------------------------------------------------------------------

    def _ask(
        self,
        phase: str,
        numbers: Sequence[int],
        body: Callable[[int, int], bytes],
        decode: Callable[[bytes], AnswerT | RoundRefusal],
        known_size: int,
        size: int,
    ) -> list[tuple[int, AnswerT]]:
        """Ask in chunks; see `RoundExchange.ask`."""
        answers: list[tuple[int, AnswerT]] = []
        for begin in range(0, len(numbers), self._batch_size):
            answers += self._exchange.ask(
                phase, numbers[begin : begin + self._batch_size], body, decode, known_size, size
            )
        return answers

    def _require(self, count: int, what: str) -> None:
        if count < self._round.record.minimum:
            raise RoundAborted(f"too_few_{what}", f"{count} gave {what}, {self._round.record.minimum} were needed")

    def _load(self) -> _Agreement | None:
        if not self._path.exists():
            return None
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes(), type=_Agreement)
        except msgspec.MsgspecError:
            return None
        return kept if kept.round_hash == self._round.hash else None

    def _save(self, agreement: _Agreement) -> _Agreement:
        write_atomic(self._path, msgspec.msgpack.encode(agreement))
        return agreement


def survivor_parts(participants: Sequence[int]) -> Iterator[tuple[Range, ...]]:
    """Write a survivor set as ranges, in as many parts as entries need; numbers strictly increasing."""
    named = to_ranges(participants)
    if len(participants) <= MAX_PARTICIPANTS and sum(len(part.bitmap) + 64 for part in named) <= _LARGEST_PART:
        yield named
        return
    middle = len(participants) // 2
    yield from survivor_parts(participants[:middle])
    yield from survivor_parts(participants[middle:])
