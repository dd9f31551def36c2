"""What a device checks before it takes part in a round: the log's checkpoint, the round's entry, its terms, its model.

Nothing is computed of anybody's ratings before all of it has passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from liberate.crypto.merkle import verify_consistency
from liberate.crypto.note import Checkpoint, verify_checkpoint, verify_cosigned_checkpoint
from liberate.crypto.signing import verify_signature
from liberate.data.ratings import Ratings
from liberate.errors import NoQuorum, ProofMismatch
from liberate.federation.participant.noise_checks import check_shared_noise
from liberate.federation.participant.refusals import Refused, refused_as, require
from liberate.federation.participant.secagg_checks import check_masks
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.masked_round import MaskedRound, masked_round
from liberate.federation.wire.own_history import HistoryRequest
from liberate.federation.wire.round_messages import RoundRequest
from liberate.federation.wire.secagg_messages import RoundHistory
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_included, signed_bytes
from liberate.ledger.format.records import Round
from liberate.model.codec import decode_model, model_digest
from liberate.model.model import Model
from liberate.model.private.evaluation import EVALUATION
from liberate.model.registry import statistic_of
from liberate.model.statistics import Statistic
from liberate.privacy.mechanism_base import Mechanism, SumMechanism
from liberate.privacy.mechanisms import mechanism_from


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRound:
    """A round whose entry, inclusion and terms have passed; its model has not been looked at.

    Attributes:
        record: The round.
        hash: Leaf hash of its entry.
        mechanism: What protects uploads.
        checkpoint: The one that includes the entry.
        note: That checkpoint as it was signed.
    """

    record: Round
    hash: Digest
    mechanism: Mechanism
    checkpoint: Checkpoint
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTask:
    """A round that has passed every check, with all that its answers are computed from.

    Attributes:
        accepted: The round.
        model: The model it starts from.
        statistic: What is computed.
        masked: The round as one of secure aggregation; None if uploads are not masked.
    """

    accepted: AcceptedRound
    model: Model
    statistic: Statistic
    masked: MaskedRound | None

    @property
    def record(self) -> Round:
        return self.accepted.record

    @property
    def is_dense(self) -> bool:
        """Whether uploads hold every row of the statistic's table."""
        return self.accepted.mechanism.is_dense and self.record.noise_placement == "per_upload"


class RoundChecker:
    """Checks what a coordinator sends against what the participants of a host agreed to.

    Args:
        store: Where the newest accepted checkpoint is read from, and evidence of a split view is kept.
        policy: What the participants agreed to.
        n_items: Size of the catalogue.
        is_simulated: Whether this is a simulation, in which noise may be drawn on the sum.

    Attributes:
        accepted: The largest checkpoint accepted so far. Set it only once what was answered under it is stored.
    """

    def __init__(self, store: DeviceStore, policy: ParticipationPolicy, n_items: int, *, is_simulated: bool) -> None:
        self._store = store
        self._policy = policy
        self._n_items = n_items
        self._is_simulated = is_simulated
        note = store.checkpoint()
        self.accepted = None if note is None else verify_checkpoint(note, policy.log_key)

    @property
    def known_size(self) -> int:
        """Tree size of the accepted checkpoint, 0 if none was accepted."""
        return 0 if self.accepted is None else self.accepted.size

    def check_round(self, request: RoundRequest) -> AcceptedRound:
        """Return the round of a request, after checking its entry, its inclusion in the log, and its terms.

        Raises:
            Refused: quorum, record, rollback, split_view, consistency, inclusion or policy.
        """
        checkpoint = self.check_checkpoint(request)

        with refused_as("inclusion"):
            entry = decode_included(request.entry, request.position, request.inclusion, checkpoint)
        record = self._check_record(entry)
        self._check_witnesses(record)

        mechanism = self._check_policy(record)
        if record.is_masked:
            check_masks(record, self._policy.terms, len(read_masked_round(request.entry).participants))

        return AcceptedRound(
            record=record,
            hash=entry.leaf_hash,
            mechanism=mechanism,
            checkpoint=checkpoint,
            note=request.checkpoint,
        )

    def check_model(self, accepted: AcceptedRound, request: RoundRequest) -> RoundTask:
        """Return what an accepted round asks devices to compute, after checking its model and statistic.

        Raises:
            Refused: model or record.
        """
        record = accepted.record
        require(
            model_digest(request.model) == record.base_digest,
            "model",
            f"the model's bytes do not match the digest of round {record.number}",
        )
        with refused_as("model"):
            model = decode_model(request.model)

        return RoundTask(
            accepted=accepted,
            model=model,
            statistic=self._check_statistic(accepted, model),
            masked=read_masked_round(request.entry) if record.is_masked else None,
        )

    def check_checkpoint(self, request: RoundRequest | RoundHistory | HistoryRequest) -> Checkpoint:
        """Return the checkpoint of a request: signed, cosigned, and of a log that continues the accepted one.

        Raises:
            Refused: quorum, record, rollback, split_view or consistency.
        """
        with refused_as("record"), refused_as("quorum", NoQuorum):
            checkpoint = verify_cosigned_checkpoint(request.checkpoint, self._policy.log_key, self._policy.witnesses)

        known = self.accepted
        if known is None or checkpoint == known:
            return checkpoint

        if checkpoint.size < known.size:
            raise Refused("rollback", self._rolled_back(checkpoint, known))
        # Two notes of one size prove that the log lies, to anybody: both are kept.
        if checkpoint.size == known.size:
            path = self._store.keep_evidence(request.checkpoint)
            raise Refused("split_view", f"the log has signed two roots for tree size {known.size}: see {path}")

        require(
            request.known_size == known.size,
            "consistency",
            f"a consistency proof from tree size {known.size} is needed",
        )
        with refused_as("split_view", ProofMismatch):
            verify_consistency(known.size, checkpoint.size, request.consistency, known.root, checkpoint.root)
        return checkpoint

    def _rolled_back(self, checkpoint: Checkpoint, known: Checkpoint) -> str:
        """Say what a tree lacks that is smaller than the accepted one."""
        missing = [act for _, act in self._store.acts(checkpoint.size)]
        kinds = "".join(f", without the {act.entry.record.kind} at entry {act.position}" for act in missing[:1])
        return f"tree size {checkpoint.size} is below the accepted {known.size}{kinds}"

    def _check_record(self, entry: Entry) -> Round:
        record = entry.record
        if not isinstance(record, Round) or record.origin != self._policy.origin:
            raise Refused("record", f"the entry is not a round of {self._policy.origin}")
        with refused_as("record"):
            verify_signature(self._policy.coordinator_key, signed_bytes(entry.body), entry.signature)
        return record

    def _check_witnesses(self, record: Round) -> None:
        """Check that a masked round of real people is under a checkpoint that somebody replayed.

        Else the log could name any keys in the state, or several survivor sets, and read a single upload.
        """
        require(
            not record.is_masked or self._is_simulated or self._policy.witnesses.always_replays,
            "quorum",
            "a masked round wants a witness that replays the rules in every quorum",
        )

    def _check_policy(self, record: Round) -> Mechanism:
        """Return the mechanism of a round, after checking that it is the agreed one at its true price."""
        with refused_as("policy"):
            mechanism = mechanism_from(record.mechanism.name, record.fraction_bits, record.mechanism.parameters)

        require(
            mechanism.name == self._policy.mechanism,
            "policy",
            f"mechanism {mechanism.name} is not the agreed {self._policy.mechanism}",
        )
        require(
            record.terms == self._policy.terms_hash,
            "terms",
            "the round is under other terms than were agreed to",
        )
        require(
            (record.account, record.spend_nano) == (mechanism.account, mechanism.spend_nano),
            "policy",
            "the round states another spend than its mechanism has",
        )
        # Otherwise a run could go on until it has spent all that its participants agreed to.
        require(
            record.spend_nano == 0 or record.rounds is not None,
            "policy",
            "a private run fixes its number of rounds before the first",
        )
        self._check_noise(record, mechanism)
        return mechanism

    def _check_noise(self, record: Round, mechanism: Mechanism) -> None:
        """Check who draws the noise, and that the sum cannot be had without enough of it."""
        require(
            record.noise_placement == "per_upload" or self._is_simulated,
            "policy",
            "noise drawn on the sum is for simulations",
        )
        require(
            not record.is_masked or (record.noise_placement, record.shape[2]) == ("per_upload", 0),
            "policy",
            "masks are for uploads without a tail, modulo 2**32",
        )
        if not isinstance(mechanism, SumMechanism):
            return

        require(
            record.is_masked or self._is_simulated,
            "policy",
            f"mechanism {mechanism.name} without masks is for simulations",
        )
        check_shared_noise(self._policy.terms, record, mechanism)

    def _check_statistic(self, accepted: AcceptedRound, model: Model) -> Statistic:
        """Return the statistic that a round names, after checking that it is the model's and has the round's shape."""
        record = accepted.record
        with refused_as("record", (ValueError, IndexError)):
            statistic = statistic_of(model, noisy=accepted.mechanism.account != "none")

        require(
            record.statistic == statistic.name,
            "record",
            f"statistic {record.statistic} is not the model's {statistic.name}",
        )
        require(
            (model.n_items, record.shape) == (self._n_items, statistic.shape),
            "record",
            f"shape {record.shape} is not that of statistic {record.statistic}",
        )
        require(
            statistic.name != EVALUATION or self._policy.evaluation,
            "policy",
            "nobody here agreed to a release of errors on what they hold out",
        )
        # Tried on no ratings: whether a device refuses must say nothing about its participant's.
        with refused_as("record", ValueError):
            statistic.compute(model, Ratings.from_user_bytes([], self._n_items))
        return statistic


def check_terms(device: Device, record: Round) -> None:
    """Check that a device takes part in the round's run under its terms, and can pay for the round if it has not yet.

    Raises:
        Refused: withdrawn, revoked, terms, not_agreed or budget.
    """
    require(not device.has_withdrawn, "withdrawn", "the participant has withdrawn from everything")
    require(not device.is_revoked, "revoked", "a key was revoked")
    require(device.terms_hash == record.terms, "terms", "the participant has not accepted the terms of the round")
    require(
        device.run == record.run,
        "not_agreed",
        f"the round is of run {record.run}, the participant agreed to run {device.run}",
    )

    spent, other, agreed = device.epsilon_nano, device.rho_nano, device.epsilon_nano_agreed
    if record.account == "rho":
        spent, other, agreed = device.rho_nano, device.epsilon_nano, device.rho_nano_agreed
    is_open = record.account == "none"
    require(
        not (is_open and device.has_limit), "budget", "the participant has a limit for life, and an answer no price"
    )
    require(is_open or not other, "budget", f"the participant has spent from another account than {record.account}")
    require(
        device.last_round >= record.number or spent + record.spend_nano <= agreed,
        "budget",
        f"the limit of the {record.account} account is reached",
    )


def read_masked_round(entry: bytes) -> MaskedRound:
    """Return the masked round of an entry, whose signature and inclusion are checked elsewhere.

    Raises:
        Refused: record.
    """
    with refused_as("record"):
        return masked_round(entry)
