"""The participants' side: check a round, compute, protect, sign, answer once. Nothing else leaves a device.

A `Host` runs the devices of many people in one process: an organisation that holds their ratings, or a simulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from liberate.arrays import FixedPointStatistics, Float32Array
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.merkle import verify_consistency
from liberate.crypto.note import Checkpoint, verify_checkpoint, verify_cosigned_checkpoint
from liberate.crypto.signing import SigningKey, verify_signature
from liberate.data.ratings import Ratings
from liberate.errors import FederationError, LiberateError, NoQuorum, ProofMismatch
from liberate.federation.participant.masking import MaskingClient
from liberate.federation.participant.policy import ParticipationPolicy
from liberate.federation.participant.received_copies import ReceivedCopies
from liberate.federation.store.device_rows import Device, OutboxMessage
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.held_ratings import EMPTY_RATINGS
from liberate.federation.wire.masked_round import MaskedRound, masked_round
from liberate.federation.wire.round_messages import (
    MessageT,
    Refused,
    RoundAnswer,
    RoundInputs,
    RoundRefusal,
    RoundRequest,
    decode_message,
    encode_message,
    encode_upload,
)
from liberate.federation.wire.secagg_messages import (
    MaskRequest,
    ShareKeysRequest,
    UnmaskRequest,
)
from liberate.federation.wire.transport import Reply, Request
from liberate.identifiers import Account, Digest
from liberate.ledger.format.entries import Entry, decode_included, sign, signed_bytes
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Round, Update
from liberate.ledger.format.sharing_records import UsedCopy
from liberate.ledger.lookup import decode_record
from liberate.model.codec import decode_model, model_digest
from liberate.model.model import Model
from liberate.model.profiles import fit_devices
from liberate.model.registry import statistic_of
from liberate.model.statistics import Statistic
from liberate.privacy.mechanism_base import Mechanism, SumMechanism
from liberate.privacy.mechanisms import mechanism_from
from liberate.randomness import Randomness
from liberate.timing import Stopwatch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A round that has passed every check of the host."""

    record: Round
    round_hash: Digest
    note: str
    model: Model
    statistic: Statistic
    mechanism: Mechanism
    masked: MaskedRound | None

    @property
    def is_dense(self) -> bool:
        return self.mechanism.is_dense and self.record.noise_placement == "per_upload"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """A round whose entry, inclusion and terms have passed; the model has not been looked at."""

    entry: Entry
    record: Round
    mechanism: Mechanism
    checkpoint: Checkpoint


class Host:
    """Answers rounds for the devices of one host.

    Args:
        devices: Their store.
        policy: What the people agreed to.
        n_items: Size of the catalogue.
        randomness: Source of noise keys and salts.
        stopwatch: Where fit, noise, agree, mask, hash, sign and store are added up.
    """

    def __init__(
        self,
        devices: DeviceStore,
        policy: ParticipationPolicy,
        n_items: int,
        randomness: Randomness,
        stopwatch: Stopwatch,
    ) -> None:
        self._devices = devices
        self._policy = policy
        self._randomness = randomness
        self._stopwatch = stopwatch
        self._n_items = n_items
        self.reload()

    def reload(self) -> None:
        """Read the devices again, after their people have acted."""
        devices, policy = self._devices, self._policy
        known = devices.devices()
        holdings = [None if device.is_erased else devices.data_of(device.slot) for device in known]
        self._keys = {slot: SigningKey.from_seed(held.signing_seed) for slot, held in enumerate(holdings) if held}
        own = [EMPTY_RATINGS if held is None else held.ratings for held in holdings]
        self._ratings = Ratings.from_user_bytes(own, self._n_items)
        note = devices.checkpoint()
        self._checkpoint = None if note is None else verify_checkpoint(note, policy.log_key)
        self._masks = MaskingClient(devices, self._keys, policy.origin, policy.coordinator_key, self._randomness)
        self._by_number = {d.number: d for d in known if d.number is not None and not d.is_erased}
        self._inputs = ReceivedCopies(devices)

    @property
    def numbers(self) -> list[int]:
        """Ledger numbers of the enrolled devices that were not erased, in the order of their slots."""
        return list(self._by_number)

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests to take part in a round.

        A device answers each phase of a round at most once; a repeated request gets the same bytes again, or one answer
        to all of them.
        """
        by_body: dict[tuple[str, bytes], list[int]] = {}
        for request in dict.fromkeys(requests):
            if request.recipient in self._by_number:
                by_body.setdefault((request.phase, request.body), []).append(request.recipient)
        uploads: dict[bytes, list[int]] = {}
        replies = [
            self._refuse(request.recipient, "unknown", "nobody of that number is here")
            for request in requests
            if request.recipient not in self._by_number
        ]
        for (phase, body), numbers in by_body.items():
            try:
                match phase:
                    case "update":
                        uploads.setdefault(body, []).extend(numbers)
                    case "inputs":
                        self._tell_inputs(body, numbers)
                    case "advertise":
                        with self._stopwatch.measure("agree"):
                            replies += self._advertise(body, numbers)
                    case "share":
                        with self._stopwatch.measure("agree"):
                            replies += self._share(body, numbers)
                    case "mask":
                        with self._stopwatch.measure("agree"):
                            asked = self._receive(body, numbers)
                        uploads.setdefault(asked, []).extend(numbers)
                    case "unmask":
                        replies += self._unmask(body, numbers)
                    case _:
                        raise Refused("phase", f"a round has no phase {phase}")
            except Refused as refusal:
                replies += [self._refuse(number, refusal.reason, refusal.detail) for number in numbers]
        return replies + [
            reply for body, numbers in uploads.items() for reply in self._answer(body, sorted(set(numbers)))
        ]

    def _tell_inputs(self, body: bytes, numbers: list[int]) -> None:
        told = _read(RoundInputs, body)
        for number in numbers:
            self._inputs.tell(self._by_number[number].slot, told.round, told.shares)

    # --- the phases of a masked round beside the upload ---------------------------------------------------------------

    def _advertise(self, body: bytes, numbers: list[int]) -> list[Reply]:
        request = _read(RoundRequest, body)
        checked = self._check_round(request)
        current = _masked(request.entry)
        replies, able = [], []
        for number in numbers:
            device = self._by_number[number]
            try:
                self._check_terms(device, checked.record)
                if number not in current.participants:
                    raise Refused("record", f"participant {number} is not of the cohort")
                able.append((device.slot, number))
            except Refused as refusal:
                replies.append(self._refuse(number, refusal.reason, refusal.detail))
        keys = self._masks.advertise(current, able, request.checkpoint)
        self._checkpoint = checked.checkpoint
        return replies + [Reply(number, encode_message(own)) for (_, number), own in zip(able, keys, strict=True)]

    def _share(self, body: bytes, numbers: list[int]) -> list[Reply]:
        request = _read(ShareKeysRequest, body)
        if self._checkpoint is None:
            raise Refused("phase", "no checkpoint was accepted")
        current, checkpoint = _masked(request.entry), self._checkpoint
        return [
            Reply(
                number,
                encode_message(self._masks.share(self._by_number[number].slot, number, current, request, checkpoint)),
            )
            for number in numbers
        ]

    def _receive(self, body: bytes, numbers: list[int]) -> bytes:
        """Take the shares that come with a request for a masked upload, and give the request."""
        request = _read(MaskRequest, body)
        current = _masked(_read(RoundRequest, request.round).entry)
        for number in numbers:
            self._masks.receive(self._by_number[number].slot, number, current, request)
        return request.round

    def _unmask(self, body: bytes, numbers: list[int]) -> list[Reply]:
        request = _read(UnmaskRequest, body)
        checkpoint = self._check_checkpoint(request)
        who = [(self._by_number[number].slot, number) for number in numbers]
        answers = self._masks.unmask(who, _masked(request.round), request, checkpoint)
        self._checkpoint = checkpoint
        return [
            self._refuse(number, answer.reason, answer.detail)
            if isinstance(answer, Refused)
            else Reply(number, encode_message(answer))
            for number, answer in zip(numbers, answers, strict=True)
        ]

    # --- the upload ---------------------------------------------------------------------------------------------------

    def _answer(self, body: bytes, numbers: list[int]) -> list[Reply]:
        try:
            task = self._check(_read(RoundRequest, body))
        except Refused as refusal:
            return [self._refuse(number, refusal.reason, refusal.detail) for number in numbers]
        replies: list[Reply] = []
        fresh: list[Device] = []
        again: list[tuple[Device, OutboxMessage]] = []
        round_number = task.record.number
        for number in numbers:
            device = self._by_number[number]
            try:
                self._check_terms(device, task.record)
                if task.masked is not None and not self._masks.is_ready(device.slot, task.masked):
                    raise Refused("phase", "nothing is uploaded before the neighbours' shares are here")
                if device.last_round < round_number:
                    fresh.append(device)
                elif (waiting := self._devices.outbox_message(device.slot, round_number)) is not None:
                    again.append((device, waiting))
                else:
                    raise Refused("answered", f"round {round_number} was answered before")
            except Refused as refusal:
                replies.append(self._refuse(number, refusal.reason, refusal.detail))
        return replies + self._answer_fresh(task, fresh) + self._answer_again(task, again)

    def _check(self, request: RoundRequest) -> _Task:
        """Check everything a round promises before anything is computed."""
        checked = self._check_round(request)
        record, mechanism = checked.record, checked.mechanism
        if model_digest(request.model) != record.base_digest:
            raise Refused("model", f"the model's bytes do not match the digest of round {record.number}")
        try:
            model = decode_model(request.model)
        except LiberateError as error:
            raise Refused("model", str(error)) from error
        return _Task(
            record=record,
            round_hash=checked.entry.leaf_hash,
            note=request.checkpoint,
            model=model,
            statistic=self._check_statistic(record, model, mechanism),
            mechanism=mechanism,
            masked=_masked(request.entry) if record.is_masked else None,
        )

    def _check_round(self, request: RoundRequest) -> _Checked:
        """Check a round's entry, its inclusion under an accepted checkpoint, and its terms."""
        checkpoint = self._check_checkpoint(request)
        try:
            entry = decode_included(request.entry, request.position, request.inclusion, checkpoint)
        except LiberateError as error:
            raise Refused("inclusion", str(error)) from error
        record = self._check_record(entry)
        return _Checked(entry=entry, record=record, mechanism=self._check_policy(record), checkpoint=checkpoint)

    def _check_checkpoint(self, request: RoundRequest | UnmaskRequest) -> Checkpoint:
        try:
            checkpoint = verify_cosigned_checkpoint(request.checkpoint, self._policy.log_key, self._policy.witnesses)
        except NoQuorum as error:
            raise Refused("quorum", str(error)) from error
        except LiberateError as error:
            raise Refused("record", str(error)) from error
        known = self._checkpoint
        if known is None:
            return checkpoint
        if checkpoint.size < known.size:
            raise Refused("rollback", f"tree size {checkpoint.size} is below the accepted {known.size}")
        if checkpoint.size == known.size and checkpoint.root != known.root:
            path = self._devices.keep_evidence(request.checkpoint)
            raise Refused("split_view", f"the log has signed two roots for tree size {known.size}: see {path}")
        if request.known_size != known.size != checkpoint.size:
            raise Refused("consistency", f"a consistency proof from tree size {known.size} is wanted")
        try:
            proof = [] if known.size == checkpoint.size else [Digest(step) for step in request.consistency]
            verify_consistency(known.size, checkpoint.size, proof, known.root, checkpoint.root)
        except ProofMismatch as error:
            raise Refused("split_view", str(error)) from error
        return checkpoint

    def _check_record(self, entry: Entry) -> Round:
        record = entry.record
        if not isinstance(record, Round) or record.origin != self._policy.origin:
            raise Refused("record", f"a round of {self._policy.origin} was wanted")
        try:
            verify_signature(self._policy.coordinator_key, signed_bytes(entry.body), entry.signature)
        except LiberateError as error:
            raise Refused("record", str(error)) from error
        return record

    def _check_policy(self, record: Round) -> Mechanism:
        """Build the mechanism the round asks for, and refuse one weaker than agreed."""
        try:
            mechanism = mechanism_from(record.mechanism.name, record.fraction_bits, record.mechanism.parameters)
        except LiberateError as error:
            raise Refused("policy", str(error)) from error
        if mechanism.name != self._policy.mechanism:
            raise Refused("policy", f"mechanism {mechanism.name} is not the agreed {self._policy.mechanism}")
        if (record.account, record.spend_nano) != (mechanism.account, mechanism.spend_nano):
            raise Refused("policy", "the round states another spend than its mechanism has")
        if record.spend_nano > 0 and record.rounds is None:
            raise Refused("policy", "a private run fixes its number of rounds before the first")
        if record.noise_placement == "on_sum" and not self._randomness.is_simulated:
            raise Refused("policy", "noise drawn on the sum is for simulations")
        if record.is_masked and (record.noise_placement, record.shape[2]) != ("per_upload", 0):
            raise Refused("policy", "masks are for uploads without a tail, modulo 2**32")
        if isinstance(mechanism, SumMechanism) and not record.is_masked and not self._randomness.is_simulated:
            raise Refused("policy", f"mechanism {mechanism.name} without masks is for simulations")
        if isinstance(mechanism, SumMechanism) and record.minimum < mechanism.honest:
            raise Refused("policy", f"{record.minimum} people may not hold the noise of {mechanism.honest}")
        if isinstance(mechanism, SumMechanism) and record.is_masked:
            self._check_cohort(mechanism.honest, len(set(numbers_in(record.cohort))))
        return mechanism

    def _check_cohort(self, honest: int, n_participants: int) -> None:
        """Refuse a round that counts on the noise of more of its people than agreed."""
        most = math.ceil(Fraction(str(self._policy.honest_fraction)) * n_participants)
        if honest > most:
            raise Refused(
                "policy", f"the noise of {honest} of {n_participants} people is counted on, of {most} was agreed"
            )

    def _check_statistic(self, record: Round, model: Model, mechanism: Mechanism) -> Statistic:
        """Build the statistic the round names, and refuse a shape it does not have."""
        try:
            statistic = statistic_of(model, noisy=mechanism.account != "none")
        except (ValueError, IndexError) as error:
            raise Refused("record", str(error)) from error
        if record.statistic != statistic.name:
            raise Refused("record", f"statistic {record.statistic} is not the model's {statistic.name}")
        if model.n_items != self._ratings.n_items or record.shape != statistic.shape:
            raise Refused("record", f"shape {record.shape} is not that of statistic {record.statistic}")
        try:
            statistic.compute(model, self._ratings.select(np.empty(0, np.int64)))
        except ValueError as error:  # of nobody's ratings: it says nothing of anybody's
            raise Refused("record", f"nothing follows from the model: {error}") from error
        return statistic

    def _check_terms(self, device: Device, record: Round) -> None:
        """Check that a device takes part, in this run, and can pay what it has not paid yet."""
        if device.is_revoked:
            raise Refused("revoked", "the key was revoked")
        if device.run != record.run:
            raise Refused("not_agreed", f"a round of run {record.run}, the person takes part in run {device.run}")
        if device.last_round < record.number and not self._can_pay(device, record.account, record.spend_nano):
            raise Refused("budget", f"the limit of the {record.account} account is reached")

    @staticmethod
    def _can_pay(device: Device, account: Account, spend_nano: int) -> bool:
        if account == "rho":
            return device.rho_nano + spend_nano <= device.rho_nano_agreed
        return device.epsilon_nano + spend_nano <= device.epsilon_nano_agreed

    def _answer_fresh(self, task: _Task, devices: list[Device]) -> list[Reply]:
        if not devices:
            return []
        number = task.record.number
        secret = self._randomness.secret
        own = [(device, device.enrolled_number) for device in devices]
        noise_keys = [secret("noise", number, person) for _, person in own]
        upload_salts = [secret("upload salt", number, person) for _, person in own]
        profile_salts = [secret("profile salt", number, person) for _, person in own]
        uses = [(device.slot, self._inputs.of(device.slot, number)) for device in devices]
        release, profiles = self._compute(task, uses, noise_keys)
        self._mask(task, own, release)
        replies, outgoing = [], []
        for index, (device, person) in enumerate(own):
            upload = encode_upload(release, index, is_dense=task.is_dense)
            with self._stopwatch.measure("hash"):
                opened = salted_commitment(upload_salts[index], upload)
                profile = salted_commitment(profile_salts[index], profiles[index].astype("<f4").tobytes())
            record = Update(
                origin=self._policy.origin,
                author=person,
                seq=device.last_seq + 1,
                round=number,
                round_hash=task.round_hash,
                commitment=opened,
                profile=profile,
                shares=uses[index][1],
                account=task.record.account,
                spend_nano=task.record.spend_nano,
                participants=(),
            )
            with self._stopwatch.measure("sign"):
                entry = sign(record, self._keys[device.slot])
            outgoing.append(
                OutboxMessage(
                    entry=entry,
                    noise_key=noise_keys[index],
                    upload_salt=upload_salts[index],
                    profile_salt=profile_salts[index],
                )
            )
            answer = RoundAnswer(entry=entry, upload=upload, salt=upload_salts[index])
            replies.append(Reply(person, encode_message(answer)))
        rho_nano = task.record.spend_nano if task.record.account == "rho" else 0
        epsilon_nano = task.record.spend_nano - rho_nano
        with self._stopwatch.measure("store"):
            seqs = [(device.slot, device.last_seq + 1) for device in devices]
            self._devices.put_answers(
                number, seqs, outgoing, epsilon_nano=epsilon_nano, rho_nano=rho_nano, note=task.note
            )
        self._checkpoint = verify_checkpoint(task.note, self._policy.log_key)
        for device, person in own:
            self._by_number[person] = replace(
                device,
                last_seq=device.last_seq + 1,
                last_round=number,
                epsilon_nano=device.epsilon_nano + epsilon_nano,
                rho_nano=device.rho_nano + rho_nano,
            )
        return replies

    def _answer_again(self, task: _Task, waiting: list[tuple[Device, OutboxMessage]]) -> list[Reply]:
        if not waiting:
            return []
        updates = [_update(message.entry) for _, message in waiting]
        uses = [(device.slot, update.shares) for (device, _), update in zip(waiting, updates, strict=True)]
        release, _ = self._compute(task, uses, [sent.noise_key for _, sent in waiting])
        self._mask(task, [(device, device.enrolled_number) for device, _ in waiting], release)
        replies = []
        for index, (device, message) in enumerate(waiting):
            upload = encode_upload(release, index, is_dense=task.is_dense)
            if updates[index].commitment != salted_commitment(message.upload_salt, upload):
                raise FederationError(
                    f"device {device.slot} cannot regenerate its upload to round {task.record.number}",
                    hint="was the model, the code or the machine changed in the middle of a round?",
                )
            answer = RoundAnswer(entry=message.entry, upload=upload, salt=message.upload_salt)
            replies.append(Reply(device.enrolled_number, encode_message(answer)))
        return replies

    def _mask(self, task: _Task, own: Sequence[tuple[Device, int]], release: FixedPointStatistics) -> None:
        """Add each device's masks to its part of a release, in place, if the round is masked."""
        if task.masked is None:
            return
        uploads = release.rows.view(np.uint32).reshape(len(own), -1)
        with self._stopwatch.measure("mask"):
            for (device, number), values in zip(own, uploads, strict=True):
                self._masks.add(device.slot, number, task.masked, values)

    def _compute(
        self, task: _Task, uses: Sequence[tuple[int, tuple[UsedCopy, ...]]], noise_keys: list[bytes]
    ) -> tuple[FixedPointStatistics, Float32Array]:
        own = self._ratings.select(np.array([slot for slot, _ in uses]))
        with self._stopwatch.measure("fit"):
            rows = self._inputs.compute(task.statistic, task.model, own, uses)
            profiles = fit_devices(task.model, own)
        with self._stopwatch.measure("noise"):
            if task.record.noise_placement == "on_sum" and isinstance(task.mechanism, SumMechanism):
                return task.mechanism.clip(rows), profiles
            n_rows, exact = task.record.shape[0], not self._randomness.is_simulated
            return task.mechanism.release(rows, n_rows, noise_keys, exact=exact), profiles

    def _refuse(self, number: int, reason: str, detail: str) -> Reply:
        known = 0 if self._checkpoint is None else self._checkpoint.size
        return Reply(number, encode_message(RoundRefusal(reason=reason, detail=detail, known_size=known)))


def _read(kind: type[MessageT], body: bytes) -> MessageT:
    try:
        return decode_message(body, kind)
    except FederationError as error:
        raise Refused("unreadable", str(error)) from error


def _update(entry: bytes) -> Update:
    """Return the update of an entry in the outbox."""
    return decode_record(entry, Update)


def _masked(entry: bytes) -> MaskedRound:
    try:
        return masked_round(entry)
    except FederationError as error:
        raise Refused("record", str(error)) from error
