"""The records of sharing and leaving: consents, shares, receipts and pools, requests to be forgotten, disclosures."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from msgspec import Struct

from liberate.crypto.canonical_json import Hash, Natural, Positive, Token
from liberate.ledger.format.number_sets import Range, numbers_in
from liberate.ledger.format.parts import RecordBase


class UsedCopy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share that was used.

    Attributes:
        sender: Whose share.
        share: Leaf hash of its entry.
    """

    sender: Natural
    share: Hash


class ErasureReport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was done for somebody who asked to be forgotten.

    Attributes:
        destroyed: What was destroyed, as codes.
        notified: Who was asked to destroy copies.
        confirmed: Those of them who say that they did.
        models: Versions of the models that used an answer or a share of the person.
    """

    destroyed: tuple[Token, ...]
    notified: tuple[Range, ...]
    confirmed: tuple[Range, ...]
    models: tuple[Range, ...]


class Consent(RecordBase, frozen=True, tag="consent"):
    """A participant lets others have copies of ratings, within limits, until the consent expires or is withdrawn.

    Attributes:
        recipients: Who may receive a copy: participants, or coordinators for the pool of their rounds.
        expiry: Height of the last block that may hold a share under it, or a use of one.
        max_shares: How many shares may be made under it.
        epsilon_nano: What copies may reveal of each rating in all, in 1e-9: the sum over the base copies that shares
            under it are made of; None: without a limit, open ratings too.
        terms: Salted commitment to purpose, items and fraction.
    """

    recipients: tuple[Range, ...]
    expiry: Positive
    max_shares: Positive
    epsilon_nano: Natural | None
    terms: Hash

    def subjects(self) -> Iterable[int]:
        """`recipients`."""
        return numbers_in(self.recipients)


class Withdrawal(RecordBase, frozen=True, tag="withdrawal"):
    """A participant takes a consent back, or everything: then no later round, answer or share is the participant's.

    Order decides: a model may use what was accepted before.

    Attributes:
        consent: Leaf hash of the consent's entry; None: everything, for good.
    """

    consent: Hash | None


class Share(RecordBase, frozen=True, tag="share"):
    """A participant hands somebody a copy of some of their ratings.

    Attributes:
        consent: Leaf hash of the entry of the consent that covers it.
        recipient: Who gets the copy.
        base: Salted commitment to the base copy, of which every recipient's copy is made.
        epsilon_nano: At which ε the base copy's ratings were perturbed, each once and for good, in 1e-9; None: they
            are open.
        copy: Salted commitment to exactly the copy handed over.
    """

    consent: Hash
    recipient: Natural
    base: Hash
    epsilon_nano: Natural | None
    copy: Hash

    def subjects(self) -> Iterable[int]:
        """`recipient`."""
        return (self.recipient,)


class Receipt(RecordBase, frozen=True, tag="receipt"):
    """Whom a share is for has received it and accepts it; nobody uses a share without.

    Attributes:
        sender: Whose share.
        share: Leaf hash of its entry.
        copy: Commitment to exactly what arrived: the share's.
    """

    sender: Natural
    share: Hash
    copy: Hash

    def subjects(self) -> Iterable[int]:
        """`sender`."""
        return (self.sender,)


class PoolRecord(RecordBase, frozen=True, tag="pool"):
    """The coordinator of the open round says whose shares it uses beside the answers.

    They enter the base model of a run's first round, or the model that closes the round.
    All shares of a person that the coordinator has received, and that live, are meant.
    People too many for one record are named by several.

    Attributes:
        round: Number of the round.
        round_hash: Leaf hash of the round's entry.
        participants: Whose shares.
    """

    round: Positive
    round_hash: Hash
    participants: tuple[Range, ...]

    def subjects(self) -> Iterable[int]:
        """`participants`."""
        return numbers_in(self.participants)


class Erasure(RecordBase, frozen=True, tag="erasure"):
    """Somebody who has withdrawn everything asks to be forgotten; later, a coordinator says what was done.

    Attributes:
        number: Who is to be forgotten.
        report: What was done, in a coordinator's record, of which there may be several; None in the request.
    """

    number: Natural
    report: ErasureReport | None

    def subjects(self) -> Iterable[int]:
        """`number`, and those who were notified."""
        return chain((self.number,), numbers_in(self.report.notified) if self.report else ())


class Disclosure(RecordBase, frozen=True, tag="disclosure"):
    """An auditor is going to look up who is behind something, and says so before it is answered.

    Attributes:
        participants: Whose commitments are to be opened.
        reason: Salted commitment to what was found, and why it is looked up.
    """

    participants: tuple[Range, ...]
    reason: Hash

    def subjects(self) -> Iterable[int]:
        """`participants`."""
        return numbers_in(self.participants)
