"""What the coordinator checks of an answer before it offers it to the ledger: what fails is counted, never recorded.

An upload consists of whole numbers on a grid, so none is NaN or infinite. It is bounded by what ratings can lead to
(`model.upload_bounds`), or by the clipping and the noise of the round's mechanism (`privacy.upload_bounds`). Under
masks every number is as likely as any other: there nothing but the shape can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass

from liberate.arrays import FixedPointStatistics
from liberate.crypto.commitments import SALT_BYTES, salted_commitment
from liberate.errors import BadCommitment, BadUpload, LedgerError, RefusedEntry
from liberate.federation.wire.round_messages import RoundAnswer, decode_upload
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.records import Round, Update
from liberate.ledger.queries.usable_copies import CopyWeights
from liberate.model.model import Model
from liberate.model.upload_bounds import RatingBounds, rating_bounds
from liberate.privacy.mechanism_base import Mechanism
from liberate.privacy.upload_bounds import NoiseBound
from liberate.timing import measure


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadValidator:
    """Lets the answers to one round pass that an honest device could have sent.

    Attributes:
        record: The round.
        is_dense: Whether an upload has every row of the statistic's table.
        limits: The largest upload that ratings can lead to, if nothing is clipped.
        ceiling: The largest upload that clipping and noise can lead to, if something is.
        weights: What the copies weigh that answers use.
    """

    record: Round
    is_dense: bool
    limits: RatingBounds | None
    ceiling: NoiseBound | None
    weights: CopyWeights

    @classmethod
    def of(cls, record: Round, mechanism: Mechanism, base: Model, weights: CopyWeights) -> UploadValidator:
        """Return the validator of a round that starts from a model."""
        n_rows, width, n_tail = record.shape
        noised = record.noise_placement == "per_upload"
        return cls(
            record=record,
            is_dense=mechanism.is_dense and noised,
            limits=rating_bounds(base) if mechanism.account == "none" else None,
            ceiling=None if record.is_masked else mechanism.ceiling(n_rows * width + n_tail, noised=noised),
            weights=weights,
        )

    def check(self, sender: int, answer: RoundAnswer) -> FixedPointStatistics:
        """Return the upload of an answer.

        It opens its commitment and is no larger than ratings, or clipping and noise, allow.

        Raises:
            BadUpload: An honest device would not send this.
        """
        update = self._update(sender, answer)
        if len(answer.salt) != SALT_BYTES:
            raise BadUpload("bad_salt", f"{len(answer.salt)} bytes, {SALT_BYTES} are wanted")

        with measure("hash"):
            opened = salted_commitment(answer.salt, answer.upload)
        if opened != update.commitment:
            raise BadUpload("not_opened", "the upload does not open the update's commitment")

        try:
            upload = decode_upload(answer.upload, shape=self.record.shape, is_dense=self.is_dense)
        except BadCommitment as error:
            raise BadUpload("wrong_shape", error.message) from error

        with measure("check"):
            if self.limits is not None:
                self.limits.check(upload, self.record.fraction_bits, float(1 + self.weights.of(update)))
            if self.ceiling is not None:
                self.ceiling.check(upload)
        return upload

    def _update(self, sender: int, answer: RoundAnswer) -> Update:
        """Return the update that an answer offers to the ledger: the sender's, to this round."""
        try:
            update = decode_record(answer.entry, Update)
        except RefusedEntry as error:
            raise BadUpload(error.reason, error.detail) from error
        except LedgerError as error:
            raise BadUpload("not_own", f"participant {sender} sent no update of its own") from error

        if update.author != sender:
            raise BadUpload("not_own", f"participant {sender} sent no update of its own")
        if update.round != self.record.number:
            raise BadUpload("replayed", f"an update to round {update.round}, this is round {self.record.number}")
        return update
