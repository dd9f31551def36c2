"""The history of one principal, replayed from the entries that name it and no others.

What the rules remember of a principal follows from these entries alone, so whoever has them can compute its state leaf:
a reader who wants a history to be complete, and a device that wants its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from liberate.crypto.note import parse_verifier_key
from liberate.crypto.signing import verify_signature
from liberate.errors import ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, involves, signed_bytes
from liberate.ledger.format.records import Enrol, Genesis, KeyRecord, Record, Update
from liberate.ledger.format.sharing_records import Consent, Erasure, Withdrawal
from liberate.ledger.rules.principal import Principal, enrolled_principal, key_name_of
from liberate.ledger.rules.sharing_state import consents_digest


@dataclass(slots=True, kw_only=True)
class PrincipalHistory:
    """A principal as far as its entries were replayed.

    Attributes:
        origin: Name of the ledger.
        number: The principal's number.
        principal: What the rules remember of it.
        consents: Leaf hashes of its consents that were not withdrawn, in ledger order.
    """

    origin: str
    number: int
    principal: Principal
    consents: list[Digest]

    @classmethod
    def before(cls, first: Entry, origin: str, number: int) -> PrincipalHistory:
        """Return the empty history of the principal that an entry enrols; the entry itself is to be added.

        Raises:
            ProofMismatch: It does not enrol the principal.
        """
        return cls(origin=origin, number=number, principal=_enrolled(first.record, number), consents=[])

    def add(self, entry: Entry) -> None:
        """Add the next entry that names the principal, after checking its signature if the principal is its author.

        Raises:
            ProofMismatch: It does not name the principal, or repeats a sequence number of the principal's.
            InvalidRecord: It names the principal as its author, who did not sign it.
        """
        record, principal = entry.record, self.principal
        if record.origin != self.origin or not involves(record, self.number):
            raise ProofMismatch(
                f"an entry of {record.origin!r} does not name principal {self.number} of {self.origin!r}"
            )
        if record.author == self.number:
            if record.seq <= principal.sequence:
                raise ProofMismatch(f"sequence {record.seq} of principal {self.number} comes twice, or too late")
            signer = principal.key_named(key_name_of(record, principal.role))
            verify_signature(signer, signed_bytes(entry.body), entry.signature)
            principal.sequence = record.seq

        self._apply(entry)
        principal.count(entry.leaf_hash)
        principal.consents = consents_digest(self.consents)

    def _apply(self, entry: Entry) -> None:
        """Change the principal, and its active consents, as an entry that names it does."""
        number, principal = self.number, self.principal
        match entry.record:
            case KeyRecord(number=owner, which=which, key=None) if owner == number:
                principal.revoke_key(which)
            case KeyRecord(number=owner, which=which, key=following) if owner == number and following is not None:
                principal.replace_key(which, following.public)
            case Update() as update if number in update.answers_for():
                principal.spend(update.account, update.spend_nano)
            case Consent(author=sender) if sender == number:
                self.consents.append(entry.leaf_hash)
            case Withdrawal(author=sender, consent=None) if sender == number:
                self.consents.clear()
                principal.has_withdrawn = True
            case Withdrawal(author=sender, consent=consent) if sender == number and consent in self.consents:
                self.consents.remove(consent)
            case Erasure(number=owner, report=None) if owner == number:
                principal.is_to_be_forgotten = True
            case _:
                pass


def _enrolled(record: Record, number: int) -> Principal:
    match record:
        case Enrol(number=enrolled) as enrol if enrolled == number:
            return enrolled_principal(enrol)
        case Genesis(registrars=keys) if number < len(keys):
            return Principal(key=keys[number], role="registrar")
        case Genesis(registrars=keys, log_vkey=vkey) if number == len(keys):
            return Principal(key=parse_verifier_key(vkey).public, role="log")
        case _:
            raise ProofMismatch(f"the first entry does not enrol principal {number}")
