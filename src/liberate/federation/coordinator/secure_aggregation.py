"""The coordinator's side of secure aggregation: relay keys, seeds and shares, and remove the masks from a sum.

    advertise -> [advertised] -> choose -> [graph] -> share -> [shared] -> mask -> [survivors] -> unmask

In brackets are sets of people on the ledger: whoever vanishes in a phase is left out of the next one, the same for
everybody. What participants send is stored before it is recorded, so that after a crash the sets on the ledger are
still known by their keys and seeds. None of it is secret.

Source: Bell et al. 2020, "Secure single-server aggregation with (poly)logarithmic overhead".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec

from liberate.arrays import UInt32Array
from liberate.errors import LiberateError, PrivacyError
from liberate.federation.coordinator.exchange import CheckpointView, RoundAborted, RoundExchange
from liberate.federation.coordinator.round_sets import HistoryProver, known_to, record_set, state_leaves
from liberate.federation.coordinator.unmasking import is_published, take_masks_out
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.wire.masked_round import mask_context, masked_round, set_digests
from liberate.federation.wire.round_messages import RoundRefusal, encode_message
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    CohortKeys,
    EncryptedShares,
    MaskRequest,
    RevealedSeed,
    RevealedShares,
    ShareKeysRequest,
    keys_root,
    seeds_root,
    verify_keys,
)
from liberate.files import write_atomic
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.records import ZERO, Block, SetPhase
from liberate.ledger.rules.principal import Principal
from liberate.ledger.rules.round_state import OpenRound
from liberate.privacy import secure_aggregation, shamir
from liberate.privacy.neighbour_graph import draw_graph, seed_commitment

_ANY_KEY = secure_aggregation.private_key(b"\x40" * secure_aggregation.SECRET_BYTES)

StepT = TypeVar("StepT")
AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)


class _Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What participants have sent so far.

    Attributes:
        round_hash: Leaf hash of the round's entry.
        state: Leaves of the state tree as the round was opened.
        keys: Who advertised which keys.
        seeds: Who revealed which seed.
        sealed: For each participant that shared its secrets, the sealed shares in the order of those it chose.
    """

    round_hash: bytes
    state: list[bytes]
    keys: dict[int, AdvertisedKeys] = {}
    seeds: dict[int, bytes] = {}
    sealed: dict[int, list[bytes]] = {}


class SecureAggregation:
    """Carries a masked round through its phases.

    Args:
        exchange: Asks participants.
        writer: Records the sets of the round.
        publish: Returns what participants are shown of the ledger as it is now.
        position: Position of the round's entry in the ledger.
        path: Where what participants have sent is stored.
        known_size: The tree size that most participants know.
    """

    def __init__(
        self,
        exchange: RoundExchange,
        writer: EntryWriter,
        publish: Callable[[], CheckpointView],
        position: int,
        path: Path,
        known_size: int,
    ) -> None:
        self._exchange = exchange
        self._writer = writer
        self._publish = publish
        self._position = position
        self._path = path
        self._known_size = known_size

        ledger = writer.ledger
        self._round = masked_round(ledger.entry(position))
        self._block_position = next(
            at for at, data in ledger.entries(position + 1) if isinstance(decode_entry(data).record, Block)
        )
        self._prover = HistoryProver.of(ledger, writer.number, position)
        self._agreement = self._load()
        self._received: dict[int, list[tuple[int, bytes]]] = {}
        self._show()

    @property
    def known_size(self) -> int:
        """The tree size that most participants know by now."""
        return self._known_size

    @property
    def view(self) -> CheckpointView:
        """What participants are shown of the ledger."""
        return self._view

    # --- keys, neighbours and shares ----------------------------------------------------------------------------------

    def agree_on_masks(self) -> list[int]:
        """Have keys advertised, neighbours chosen and secrets shared, or go on with that after a crash.

        Returns:
            Who is to upload, increasing.

        Raises:
            RoundAborted: They are fewer than the round needs, or what they sent was lost.
        """
        keys = self._step("advertised", self._agreement.keys, sorted(self._round.participants), self._advertised_keys)
        self._save(keys=keys)
        self._pin("advertised", keys, keys_root(keys))

        seeds = self._step("graph", self._agreement.seeds, sorted(keys), self._revealed_seeds)
        self._save(seeds=seeds)
        self._pin("graph", seeds, seeds_root(seeds))

        self._graph = draw_graph(seeds, self._digests["advertised"], sorted(keys), self._round.degree)
        sealed = self._step("shared", self._agreement.sealed, sorted(seeds), self._encrypted_shares)
        self._save(sealed=sealed)
        self._pin("shared", sealed, ZERO)
        self._received = self._deliveries()
        return sorted(sealed)

    def _step(
        self,
        phase: SetPhase,
        stored: dict[int, StepT],
        numbers: Sequence[int],
        collect: Callable[[Sequence[int]], dict[int, StepT]],
    ) -> dict[int, StepT]:
        """Return what participants send in a phase; what was stored before a crash, or recorded, is binding."""
        recorded = self._open_round().sets.whole(phase)
        if recorded is None:
            return stored or collect(numbers)
        if not recorded <= stored.keys():
            stored = collect(sorted(recorded))
        return {number: sent for number, sent in stored.items() if number in recorded}

    def _pin(self, phase: SetPhase, sent: Mapping[int, object], root: Digest) -> None:
        """Record who has taken a phase, unless it is recorded, and show participants the ledger with it.

        Raises:
            RoundAborted: They are too few, or what the ledger has is not what they sent.
        """
        sets = self._open_round().sets
        recorded = sets.whole(phase)
        if recorded is not None:
            if recorded != sent.keys() or sets.root(phase) != root:
                raise RoundAborted("set_lost", f"what the recorded set {phase} consists of was lost")
            return

        if len(sent) < sets.least:
            raise RoundAborted(f"too_few_{phase}", f"{len(sent)} participants in {phase}, {sets.least} were needed")
        record_set(self._writer, self._open_round(), phase, sorted(sent), root)
        self._show()

    def _advertised_keys(self, numbers: Sequence[int]) -> dict[int, AdvertisedKeys]:
        """Ask participants for their keys, and return those that are valid."""
        view = self._view

        @cache
        def request(known_size: int) -> bytes:
            return view.round_request(self._position, b"", known_size)

        answers = self._ask("advertise", numbers, request, AdvertisedKeys)
        return {number: keys for number, keys in answers if self._is_valid(number, keys)}

    def _is_valid(self, number: int, keys: AdvertisedKeys) -> bool:
        """Whether the participant signed its keys for this round, and a neighbour can agree on a secret with them."""
        try:
            owner = Principal.decode(self._agreement.state[number])
            verify_keys(keys, owner.device_key, self._writer.ledger.origin, self._round.hash, number)
            for key in (keys.mask, keys.seal):
                secure_aggregation.agree(_ANY_KEY, key)
        except LiberateError:
            self._exchange.count("keys")
            return False
        return True

    def _revealed_seeds(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Show participants who advertised, and return the seeds of their neighbours."""
        keys = self._agreement.keys
        answers = self._ask("choose", numbers, self._history_request, RevealedSeed)
        seeds = {number: answer.seed for number, answer in answers}
        valid = {number: seed for number, seed in seeds.items() if seed_commitment(seed) == keys[number].draw}
        for _ in range(len(seeds) - len(valid)):
            self._exchange.count("seed")
        return valid

    def _encrypted_shares(self, numbers: Sequence[int]) -> dict[int, list[bytes]]:
        """Show participants all keys and seeds, and return the shares that they encrypt for those they chose."""
        ledger, view, at = self._writer.ledger, self._view, self._block_position
        cohort = encode_message(
            CohortKeys(
                keys=sorted(self._agreement.keys.items()),
                seeds=sorted(self._agreement.seeds.items()),
                block=ledger.entry(at),
                block_position=at,
                state=self._agreement.state,
            )
        )
        block_proof = list(ledger.inclusion_proof(at, view.size))

        @cache
        def request(known_size: int) -> bytes:
            history = known_to(self._history, view, known_size)
            return encode_message(ShareKeysRequest(history=history, cohort=cohort, block_proof=block_proof))

        answers = self._ask("share", numbers, request, EncryptedShares)
        return {
            number: shares.sealed
            for number, shares in answers
            if len(shares.sealed) == len(self._graph.out_neighbours(number))
        }

    def _deliveries(self) -> dict[int, list[tuple[int, bytes]]]:
        """Return for each participant that continues the shares that others encrypted for it, by increasing number."""
        sealed = self._agreement.sealed
        received: dict[int, list[tuple[int, bytes]]] = {number: [] for number in sealed}
        for dealer in sorted(sealed):
            for holder, share in zip(self._graph.out_neighbours(dealer), sealed[dealer], strict=True):
                if holder in received:
                    received[holder].append((dealer, share))
        return received

    # --- masked uploads -----------------------------------------------------------------------------------------------

    def mask_request(self, number: int, round_request: bytes, known_size: int) -> bytes:
        """Return the request for a masked upload: the round's request with the shares encrypted for the participant."""
        return encode_message(
            MaskRequest(round=round_request, history=self._history_request(known_size), received=self._received[number])
        )

    # --- unmasking ----------------------------------------------------------------------------------------------------

    def unmask(self, total: UInt32Array, survivors: frozenset[int], known_size: int) -> dict[int, UnmaskingShares]:
        """Have the survivors reveal shares, and remove all masks that are left in a sum.

        Args:
            total: Sum of the survivors' masked uploads modulo 2**32, one-dimensional; changed in place.
            survivors: The participants whose uploads it holds, as the ledger names them.
            known_size: The tree size that most of them know by now.

        Returns:
            What was needed for it and for the graph, by participant.

        Raises:
            RoundAborted: Too few shares of a secret came back, or they do not fit together.
        """
        self._known_size = known_size
        self._show()
        shares = self._revealed_shares(survivors)

        agreement, continuing = self._agreement, self._agreement.sealed.keys()
        neighbours = {number: continuing & set(self._graph.neighbours(number)) for number in continuing}
        secrets: dict[int, bytes] = {}
        used: dict[int, UnmaskingShares] = {}
        for number, keys in sorted(agreement.keys.items()):
            chosen: dict[int, bytes] = {}
            # Whoever is not in the sum and masked with no survivor has left no mask in it.
            if number in survivors or survivors & neighbours.get(number, frozenset()):
                secrets[number], chosen = self._rebuild(number, shares[number], in_sum=number in survivors)
            used[number] = UnmaskingShares(keys=keys, seed=agreement.seeds.get(number), shares=chosen)

        take_masks_out(total, mask_context(self._round, self._digests), survivors, neighbours, agreement.keys, secrets)
        return used

    def _revealed_shares(self, survivors: frozenset[int]) -> Mapping[int, dict[int, bytes]]:
        """Ask the survivors for shares, and return these by owner and index."""
        indices = {
            owner: {holder: index for index, holder in enumerate(self._graph.out_neighbours(owner), start=1)}
            for owner in self._agreement.sealed
        }
        shares: dict[int, dict[int, bytes]] = {owner: {} for owner in indices}
        for holder, revealed in self._ask("unmask", sorted(survivors), self._history_request, RevealedShares):
            for owner, share in revealed.shares:
                index = indices.get(owner, {}).get(holder)
                if index is not None and len(share) == shamir.SHARE_BYTES:
                    shares[owner][index] = share
        return shares

    def _rebuild(self, number: int, shares: Mapping[int, bytes], *, in_sum: bool) -> tuple[bytes, dict[int, bytes]]:
        """Return a secret, and the shares that it was rebuilt from.

        One false share does no harm if there is a share to spare.
        """
        needed = self._round.threshold
        if len(shares) < needed:
            detail = f"{len(shares)} shares of a secret of participant {number}, {needed} were needed"
            raise RoundAborted("too_few_shares", detail)

        for left_out in (None, *sorted(shares)):
            chosen = dict([item for item in sorted(shares.items()) if item[0] != left_out][:needed])
            if len(chosen) < needed:
                continue
            with suppress(PrivacyError):
                secret = shamir.combine(chosen)
                if is_published(secret, self._agreement.keys[number], in_sum=in_sum):
                    return secret, chosen
        raise RoundAborted("false_shares", f"the shares of a secret of participant {number} do not fit together")

    def close(self) -> None:
        """Show participants that the round is closed, so that they destroy their secrets of it."""
        self._show()
        # Nobody answers but who refuses: devices that know another tree are shown that it goes on to this one.
        self._exchange.ask(
            "close",
            sorted(self._round.participants),
            lambda _, known_size: self._history_request(known_size),
            RoundRefusal,
            self._known_size,
            self._view.size,
        )

    # --- what participants are shown, and what is stored --------------------------------------------------------------

    def _show(self) -> None:
        """Show participants the ledger as it is now."""
        self._view = self._publish()
        self._history = self._prover.prove(self._view)
        self._digests = set_digests(map(decode_entry, self._history.entries), self._round)
        self._histories: dict[int, bytes] = {}

    def _history_request(self, known_size: int) -> bytes:
        """Return what the coordinator has recorded in the round, for participants who know a tree of a size."""
        if known_size not in self._histories:
            self._histories[known_size] = encode_message(known_to(self._history, self._view, known_size))
        return self._histories[known_size]

    def _ask(
        self, phase: str, numbers: Sequence[int], request: Callable[[int], bytes], kind: type[AnswerT]
    ) -> list[tuple[int, AnswerT]]:
        """Ask participants, who all know the tree that they are shown afterwards."""
        size = self._view.size
        answers = self._exchange.ask(phase, numbers, lambda _, known: request(known), kind, self._known_size, size)
        self._known_size = size
        return answers

    def _open_round(self) -> OpenRound:
        current = self._writer.ledger.state.open_round
        assert current is not None  # this round is open
        return current

    def _load(self) -> _Agreement:
        """Return what participants have sent in this round before a crash."""
        with suppress(OSError, msgspec.MsgspecError):
            stored = msgspec.msgpack.decode(self._path.read_bytes(), type=_Agreement)
            if stored.round_hash == self._round.hash:
                return stored
        state = state_leaves(self._writer.ledger, self._block_position + 1)
        return _Agreement(round_hash=self._round.hash, state=state)

    def _save(self, **sent: object) -> None:
        """Store what participants have sent in a phase, before it is recorded."""
        self._agreement = msgspec.structs.replace(self._agreement, **sent)
        write_atomic(self._path, msgspec.msgpack.encode(self._agreement))
