"""What can go wrong in a correct program.

    LiberateError
    ├── DataError              a file of ratings cannot be used, with file, line and reason
    ├── SettingsError          a setting is unknown, of the wrong type or out of range
    ├── SealBroken             sealed bytes that do not open
    ├── LedgerError
    │   ├── InvalidRecord      bytes that are no canonical record, or a signature that does not verify
    │   ├── RefusedEntry       a well-formed entry that the rules refuse, with a reason code
    │   ├── InvalidBlock       a stored block that does not follow from its entries
    │   ├── ProofMismatch      a proof that does not lead to the expected root
    │   ├── NoQuorum           too few witnesses have cosigned a checkpoint
    │   │   └── RejectedCheckpoint  and one of them says that it contradicts what it knows
    │   ├── RolledBack         a ledger that lacks what it has published
    │   └── LedgerLocked       the ledger is in use by another process
    ├── PrivacyError
    │   ├── BudgetExceeded     a release would cost more than is left
    │   └── UnaccountableEvent an event that no accountant here can price
    └── FederationError
        ├── StaleModel         model bytes that do not match the round entry
        ├── BadCommitment      an upload that does not open its commitment
        ├── BadUpload          an answer that no honest device gives, with a reason code
        ├── CopyDeclined       a copy that its recipient does not want
        └── InsufficientCohort fewer participants answered than the round needs

A caller's own mistake is a `ValueError` or `TypeError`, never one of these.
"""

from __future__ import annotations


class LiberateError(Exception):
    """An operation failed; the message says what was found and what was wanted.

    Args:
        message: One line: what was found, what was wanted.
        hint: What to try next, one line, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(LiberateError):
    """A file of ratings cannot be used.

    Args:
        reason: What is wrong, and what was wanted.
        path: The file, or empty when the reason is about no file.
        line: Line (text) or row (Parquet) number, counted from 1, or None when the whole file is meant.
        hint: What to try next.
    """

    def __init__(self, reason: str, *, path: str = "", line: int | None = None, hint: str = "") -> None:
        place = path if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {reason}" if place else reason, hint=hint)
        self.reason = reason
        self.path = path
        self.line = line


class SettingsError(LiberateError):
    """A setting is unknown, of the wrong type or out of range."""


class SealBroken(LiberateError):
    """Sealed bytes do not open: another key or context, or they were changed."""


class LedgerError(LiberateError):
    """Something is wrong with a ledger or with what was offered to it."""


class InvalidRecord(LedgerError):
    """Bytes that are no canonical record, or a signature that does not verify."""


class RefusedEntry(LedgerError):
    """A well-formed entry that the rules refuse.

    Args:
        reason: The reason code, a lower-case identifier such as `stale_sequence`.
        detail: What was found and what was wanted.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidBlock(LedgerError):
    """A stored block that does not follow from its entries."""


class ProofMismatch(LedgerError):
    """A proof that does not lead to the expected root."""


class NoQuorum(LedgerError):
    """Too few witnesses have cosigned a checkpoint."""


class RejectedCheckpoint(NoQuorum):
    """A witness says that a checkpoint does not continue what it has cosigned, or that entries break the rules."""


class RolledBack(LedgerError):
    """A ledger that lacks entries it has published, or holds others in their place.

    Args:
        message: What was found and what was wanted.
        size: Entries that the ledger has.
        published: Entries under the checkpoint that was published.
        hint: What to try next.
    """

    def __init__(self, message: str, *, size: int, published: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.size = size
        self.published = published


class LedgerLocked(LedgerError):
    """The ledger is in use by another process."""


class PrivacyError(LiberateError):
    """A privacy promise could not be kept."""


class BudgetExceeded(PrivacyError):
    """A release would cost more than is left."""


class UnaccountableEvent(PrivacyError):
    """An event that no accountant here can price."""


class FederationError(LiberateError):
    """A round could not be carried out as agreed."""


class StaleModel(FederationError):
    """Model bytes that do not match the round entry."""


class BadCommitment(FederationError):
    """An upload that does not open its commitment."""


class BadUpload(FederationError):
    """An answer that no honest device gives.

    Args:
        reason: The reason code, a lower-case identifier such as `oversized`.
        detail: What was found and what was wanted.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CopyDeclined(FederationError):
    """A copy that its recipient does not want."""


class InsufficientCohort(FederationError):
    """Fewer participants answered than the round needs."""
