"""Answers to a round: computed, protected, committed to, signed, and stored before they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from liberate.arrays import FixedPointStatistics, Float32Array, RealStatistics
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.signing import SigningKey
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.federation.participant.checks import RoundTask
from liberate.federation.participant.masking import MaskingClient
from liberate.federation.participant.received_copies import ReceivedCopies
from liberate.federation.store.device_rows import AnswerSecrets, Device, OutboxMessage
from liberate.federation.store.devices import DeviceStore
from liberate.federation.wire.round_messages import RoundAnswer, encode_message, encode_upload
from liberate.federation.wire.transport import Reply
from liberate.ledger.format.entries import decode_record, sign
from liberate.ledger.format.records import Round, Update
from liberate.ledger.format.sharing_records import UsedCopy
from liberate.model.private.evaluation import OwnErrors
from liberate.model.profiles import fit_devices
from liberate.privacy.mechanism_base import SumMechanism
from liberate.randomness import Randomness
from liberate.timing import measure


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerInputs:
    """What an answer is computed from beside the round: the same inputs give the same bytes.

    Attributes:
        device: The device, whose ratings are used.
        copies: The received copies that are used, increasing by sender and share.
        secrets: What hides it.
    """

    device: Device
    copies: tuple[UsedCopy, ...]
    secrets: AnswerSecrets


@dataclass(frozen=True, slots=True)
class Charge:
    """What one answer costs its participant from each account, in 1e-9, >= 0."""

    epsilon_nano: int
    rho_nano: int

    @classmethod
    def of(cls, record: Round) -> Charge:
        """Return what an answer to a round costs."""
        return cls(0, record.spend_nano) if record.account == "rho" else cls(record.spend_nano, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAnswer:
    """An answer that is ready to be stored, and sent after that.

    Attributes:
        device: The device as it is once the answer is stored.
        message: What regenerates the answer.
        reply: The answer itself.
    """

    device: Device
    message: OutboxMessage
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAnswers:
    """Makes the answers of a host's devices.

    Attributes:
        store: Where answers are stored before they are sent.
        keys: Signing keys by slot.
        ratings: The participants' ratings, by slot.
        held_out: What they hold out, by slot: used for their own errors alone.
        copies: What they have received from others.
        masking: Masks their uploads.
        randomness: Source of noise keys and salts.
    """

    store: DeviceStore
    keys: Mapping[int, SigningKey]
    ratings: Ratings
    held_out: Ratings
    copies: ReceivedCopies
    masking: MaskingClient
    randomness: Randomness

    def answer_first_time(self, task: RoundTask, devices: Sequence[Device]) -> list[SignedAnswer]:
        """Compute, protect, sign and store the first answer of each device.

        An answer leaves only once the outbox holds what regenerates it. Otherwise a crash could leave the coordinator
        with an upload that its device cannot repeat, and a second, different upload of the same round would reveal more
        than was paid for.
        """
        record, charge = task.record, Charge.of(task.record)
        inputs = [self._draw_inputs(record, device) for device in devices]
        uploads, profiles = self._compute(task, inputs)
        answers = [
            self._sign_answer(task, charge, used, upload, profile)
            for used, upload, profile in zip(inputs, uploads, profiles, strict=True)
        ]

        with measure("store"):
            self.store.put_answers(
                record.number,
                [(answer.device.slot, answer.device.last_seq, answer.message) for answer in answers],
                epsilon_nano=charge.epsilon_nano,
                rho_nano=charge.rho_nano,
                note=task.accepted.note,
            )
        return answers

    def answer_again(self, task: RoundTask, stored: Sequence[tuple[Device, OutboxMessage]]) -> list[Reply]:
        """Return the stored answers of devices that have answered the round before, bit for bit.

        Raises:
            FederationError: An upload comes out otherwise than it was committed to. It is not sent: beside the first it
                would reveal more than was paid for.
        """
        updates = [decode_record(message.entry, Update) for _, message in stored]
        inputs = [
            AnswerInputs(device=device, copies=update.shares, secrets=message)
            for (device, message), update in zip(stored, updates, strict=True)
        ]
        uploads, _ = self._compute(task, inputs)

        replies = []
        for (device, message), update, upload in zip(stored, updates, uploads, strict=True):
            if update.commitment != salted_commitment(message.upload_salt, upload):
                raise FederationError(
                    f"device {device.slot} cannot regenerate its upload to round {task.record.number}",
                    hint="was the model, the code or the machine changed in the middle of a round?",
                )
            replies.append(_reply(device, message, upload))
        return replies

    def _draw_inputs(self, record: Round, device: Device) -> AnswerInputs:
        def secret(name: str) -> bytes:
            return self.randomness.secret(name, record.number, device.enrolled_number)

        # The sender of a copy in a private upload would be in the sum twice, and be charged for once.
        is_open = record.account == "none"
        return AnswerInputs(
            device=device,
            copies=self.copies.usable_in(record.number, device.slot) if is_open else (),
            secrets=AnswerSecrets(
                noise_key=secret("noise"), upload_salt=secret("upload salt"), profile_salt=secret("profile salt")
            ),
        )

    def _compute(self, task: RoundTask, inputs: Sequence[AnswerInputs]) -> tuple[Iterator[bytes], Float32Array]:
        """Return the uploads of devices, one after the other, and their profiles, shape (n_devices, n_factors + 1)."""
        slots = np.array([used.device.slot for used in inputs], np.int64)
        ratings = self.ratings.select(slots)
        with measure("fit"):
            if isinstance(task.statistic, OwnErrors):
                statistics = task.statistic.measure(task.model, ratings, self.held_out.select(slots))
            else:
                statistics = self.copies.compute(
                    task.statistic, task.model, ratings, [(used.device.slot, used.copies) for used in inputs]
                )
            profiles = fit_devices(task.model, ratings)

        with measure("noise"):
            release = self._protect(task, statistics, [used.secrets.noise_key for used in inputs])

        # Masked before they are committed to: only the masked upload may ever be opened to the coordinator.
        if task.masked is not None:
            uploads = release.rows.view(np.uint32).reshape(len(inputs), -1)
            with measure("mask"):
                for used, values in zip(inputs, uploads, strict=True):
                    self.masking.add(used.device, task.masked, values)

        return (encode_upload(release, index, is_dense=task.is_dense) for index in range(len(inputs))), profiles

    def _protect(self, task: RoundTask, statistics: RealStatistics, noise_keys: list[bytes]) -> FixedPointStatistics:
        mechanism = task.accepted.mechanism
        if task.record.noise_placement == "on_sum" and isinstance(mechanism, SumMechanism):
            return mechanism.clip(statistics)
        return mechanism.release(statistics, task.record.shape[0], noise_keys, exact=not self.randomness.is_simulated)

    def _sign_answer(
        self, task: RoundTask, charge: Charge, inputs: AnswerInputs, upload: bytes, profile: Float32Array
    ) -> SignedAnswer:
        """Commit to one upload and profile, and sign the update that the ledger will hold."""
        device, secrets = inputs.device, inputs.secrets
        answered = replace(
            device,
            last_seq=device.last_seq + 1,
            last_round=task.record.number,
            epsilon_nano=device.epsilon_nano + charge.epsilon_nano,
            rho_nano=device.rho_nano + charge.rho_nano,
        )
        with measure("hash"):
            commitment = salted_commitment(secrets.upload_salt, upload)
            profile_commitment = salted_commitment(secrets.profile_salt, profile.astype("<f4").tobytes())

        record = Update(
            origin=task.record.origin,
            author=device.enrolled_number,
            seq=answered.last_seq,
            round=task.record.number,
            round_hash=task.accepted.hash,
            commitment=commitment,
            profile=profile_commitment,
            shares=inputs.copies,
            account=task.record.account,
            spend_nano=task.record.spend_nano,
            participants=(),
        )
        with measure("sign"):
            entry = sign(record, self.keys[device.slot])

        message = OutboxMessage(entry=entry, **msgspec.structs.asdict(secrets))
        return SignedAnswer(device=answered, message=message, reply=_reply(device, message, upload))


def _reply(device: Device, message: OutboxMessage, upload: bytes) -> Reply:
    answer = RoundAnswer(entry=message.entry, upload=upload, salt=message.upload_salt)
    return Reply(device.enrolled_number, encode_message(answer))
