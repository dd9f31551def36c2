"""Copies of ratings: how they are made, and how they travel so that only their recipient reads them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np

from liberate.arrays import Float32Array, Int32Array
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.sealing import open_with, seal_to
from liberate.crypto.signing import SigningKey
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.errors import BadCommitment, FederationError
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, GivenCopy, ReceivedCopy
from liberate.federation.wire.copies import ConsentScope, CopyPayload, SealedCopy
from liberate.federation.wire.round_messages import UNREADABLE
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import includes
from liberate.ledger.format.sharing_records import Consent, Share
from liberate.privacy.fingerprinting import fingerprint
from liberate.privacy.randomised_response import respond
from liberate.randomness import stream_words
from liberate.units import to_nano

_LARGEST_CATALOGUE = 2**31 - 1

_PART = b"liberate part of ratings 1\0"


@dataclass(frozen=True, slots=True)
class OpenedCopy:
    """A sealed_copy that is what it should be.

    Attributes:
        share: The share.
        hash: Leaf hash of its entry.
        consent: Its consent.
        contents: What it holds.
        scope: What its consent is for.
    """

    share: Share
    hash: Digest
    consent: Consent
    contents: CopyPayload
    scope: ConsentScope

    @property
    def received(self) -> ReceivedCopy:
        """What its recipient keeps of it."""
        return ReceivedCopy(
            sender=self.share.author,
            copy=self.contents.copy,
            salt=self.contents.salt,
            max_shares=self.consent.max_shares,
            epsilon_nano=self.share.epsilon_nano or 0,
        )


def make_base_copy(
    ratings: bytes, scale: RatingScale, scope: ConsentScope, *, key: bytes, salt: bytes, epsilon: float | None
) -> BaseCopy:
    """Make the base copy of which all copies are made: some of the ratings, each perturbed once if there is an epsilon.

    Args:
        ratings: As `Ratings.user_bytes` writes them.
        scale: Their scale.
        scope: Which of them copies may have; which part of them depends on key and item alone.
        key: 32 bytes, of this person and base copy; the choice, the answers and all marks follow from it.
        salt: Opens the commitment to the base copy.
        epsilon: Of one rating, as of `respond`; None: open.
    """
    own = Ratings.from_user_bytes([ratings], _LARGEST_CATALOGUE)
    if scope.items is not None:
        own = own.where(np.isin(own.items, np.array(scope.items, np.int64)))
    if scope.rating_fraction < 1:
        own = own.where(stream_words(_PART + key, own.items) < np.uint64(scope.rating_fraction * 2.0**64))
    places = scale.places(own.values)
    if epsilon is not None:
        places = respond(places, own.items, scale.n_levels, epsilon, _derived(key, b"respond"))
    return BaseCopy(
        ratings=_bytes(own.items, scale.values(places)),
        salt=salt,
        key=key,
        epsilon_nano=to_nano(epsilon),
        fraction=scope.rating_fraction,
        items=scope.items,
        scale=(scale.low, scale.step, scale.n_levels),
        source=sha256(ratings).digest(),
    )


def fingerprinted_copy(base: BaseCopy, recipient: int) -> bytes:
    """Make one recipient's copy of a base copy, as `Ratings.user_bytes` writes it."""
    low, step, n_levels = base.scale
    scale = RatingScale(low=low, step=step, n_levels=n_levels)
    own = Ratings.from_user_bytes([base.ratings], _LARGEST_CATALOGUE)
    places = fingerprint(scale.places(own.values), own.items, n_levels, _derived(base.key, b"mark"), recipient)
    return _bytes(own.items, scale.values(places))


def seal_copy(
    granted: GivenConsent, given: GivenCopy, base: BaseCopy, share: Share, recipient_key: bytes
) -> SealedCopy:
    """Make the sealed_copy of a share, sealed to the recipient's public key."""
    contents = CopyPayload(
        copy=fingerprinted_copy(base, share.recipient), salt=given.salt, scope=granted.scope, scope_salt=granted.salt
    )
    return SealedCopy(
        consent=granted.entry, share=given.entry, sealed=seal_to(recipient_key, msgspec.msgpack.encode(contents))
    )


def open_copy(sealed_copy: SealedCopy, key: SigningKey, recipient: int, n_items: int) -> OpenedCopy:
    """Open a sealed_copy, and check all that can be checked without the ledger.

    That its entries stand on the ledger, signed by the sender, is checked by the rules when the receipt gets there.

    Args:
        sealed_copy: The sealed_copy.
        key: The recipient's signing key.
        recipient: The recipient's number.
        n_items: Size of the catalogue.

    Raises:
        SealBroken: It is sealed to another key.
        BadCommitment: It does not hold what the entries commit to, or no ratings.
        FederationError: The entries are none of a share for the recipient.
    """
    consent, share = decode_entry(sealed_copy.consent), decode_entry(sealed_copy.share)
    terms, record = consent.record, share.record
    if (
        not isinstance(terms, Consent)
        or not isinstance(record, Share)
        or record.recipient != recipient
        or record.consent != consent.leaf_hash
        or record.author != terms.author
        or not includes(terms.recipients, recipient)
    ):
        raise FederationError(f"the entries of the sealed_copy are not those of a share for participant {recipient}")
    try:
        contents = msgspec.msgpack.decode(open_with(key, sealed_copy.sealed), type=CopyPayload)
        scope = msgspec.msgpack.decode(contents.scope, type=ConsentScope)
        copy = Ratings.from_user_bytes([contents.copy], n_items)
    except (*UNREADABLE, ValueError) as error:
        raise BadCommitment(f"the sealed_copy of participant {record.author} cannot be read: {error}") from error
    if not np.isfinite(copy.values).all():
        raise BadCommitment(f"the copy of participant {record.author} has ratings that are no numbers")
    if salted_commitment(contents.salt, contents.copy) != record.copy:
        raise BadCommitment(f"the copy of participant {record.author} does not open the share's commitment")
    if salted_commitment(contents.scope_salt, contents.scope) != terms.terms:
        raise BadCommitment(f"the scope of participant {record.author} does not open the consent's commitment")
    return OpenedCopy(record, share.leaf_hash, terms, contents, scope)


def as_ratings(copies: Iterable[bytes], n_items: int) -> Ratings:
    """Give copies as ratings, one user each, in their order."""
    return Ratings.from_user_bytes(list(copies), _LARGEST_CATALOGUE).within(n_items)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"liberate copies 1\0" + purpose, "sha256")


def _bytes(items: Int32Array, values: Float32Array) -> bytes:
    return Ratings(np.array([0, len(items)], np.int64), items, values, _LARGEST_CATALOGUE).user_bytes(0)
