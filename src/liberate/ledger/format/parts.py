"""What records are made of: the parts that several kinds have, what every record says, sets of people as ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta, Struct

from liberate.crypto.canonical_json import Bytes32, Natural, Positive, Token
from liberate.crypto.signing import SIGNATURE_BYTES

Origin = Annotated[str, Meta(min_length=1, max_length=255)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
EnrollableRole = Literal["participant", "host", "coordinator", "witness", "auditor"]
PrincipalRole = Literal["registrar", "log"] | EnrollableRole
KeyName = Literal["person", "device"]
"""Which of a participant's two keys is meant; other roles have one, which counts as the person's."""
Custody = Literal["own", "host"]
"""Who holds a principal's keys: the principal alone, or a host that acts in its name."""


class EnrolmentPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which registrars may enrol a role, and how many of them must sign.

    Attributes:
        registrars: Their numbers, increasing.
        threshold: How many must sign, the author of an entry and those who approve it; at most all of them.
    """

    registrars: tuple[Natural, ...]
    threshold: Positive


class Witnesses(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Verifier keys of the witnesses, and how many must have cosigned before a checkpoint is published."""

    keys: tuple[str, ...]
    threshold: Natural


class Terms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a promise rests on: numbers that are agreed to beforehand, and that no round can state otherwise.

    Attributes:
        max_participants: Most participants ever enrolled; those who left, were revoked or were invented count.
        max_colluders: Most of all of them who give what they know to whoever reads a sum; <= max_participants.
        max_dropouts_permille: Most of a round's cohort who may be missing from its sum, in thousandths, <= 1000.
        max_late_dropouts_permille: Of these, most who may vanish after keys were exchanged; <= max_dropouts_permille.
        min_cohort: Fewest participants of a round whose noise protects a sum; <= max_participants.
        min_honest: Fewest whose noise a sum must have that nobody but themselves knows, >= 2.
        max_attempts: Most exchanges of keys that a device takes part in for one run, aborted rounds included.
    """

    max_participants: Positive
    max_colluders: Natural
    max_dropouts_permille: Natural
    max_late_dropouts_permille: Natural
    min_cohort: Positive
    min_honest: Positive
    max_attempts: Positive

    def dropouts(self, cohort: int) -> int:
        """Return how many of a cohort may be missing from its sum."""
        return cohort * self.max_dropouts_permille // 1000

    def late_dropouts(self, cohort: int) -> int:
        """Return how many of a cohort may vanish after keys were exchanged."""
        return cohort * self.max_late_dropouts_permille // 1000

    def fault(self) -> str:
        """Return what is wrong with the numbers, empty if nothing is."""
        if not self.max_late_dropouts_permille <= self.max_dropouts_permille <= 1000:
            return "late dropouts are among the dropouts, and these at most all of a cohort"
        if max(self.max_colluders, self.min_cohort) > self.max_participants:
            return "colluders and the smallest cohort are among the participants"
        return "" if self.min_honest >= 2 else "the noise of one alone hides nothing from that one"


class MechanismSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The privacy mechanism of a round, by name and public integers."""

    name: Token
    parameters: dict[Token, Natural]


class Approval(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signature of one more registrar under what another one records.

    Attributes:
        registrar: Number of the registrar.
        signature: Over the statement of what is recorded, which names neither author nor sequence.
    """

    registrar: Natural
    signature: Signature


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A principal's next key, and its signature over whose it will be, as a proof of possession."""

    public: Bytes32
    possession: Signature


class RecordBase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every record says.

    Attributes:
        v: Version of the format.
        origin: Name of the ledger that the record was made for.
        author: Number of the principal who signs.
        seq: Greater than the author's last accepted one.
    """

    v: Literal[2] = 2
    origin: Origin
    author: Natural
    seq: Positive

    @property
    def kind(self) -> str:
        """The record's kind, as its bytes name it."""
        return str(self.__struct_config__.tag)

    def subjects(self) -> Iterable[int]:
        """Return the principals, beside the author, whose history the record belongs to."""
        return ()
