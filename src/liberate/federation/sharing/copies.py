"""Copies of ratings: how they are made, and how they are sealed so that only their recipient reads them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np

from liberate.arrays import Float32Array, Int32Array
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.merkle import leaf_hash
from liberate.crypto.sealing import open_with, seal_to
from liberate.crypto.signing import SigningKey
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.errors import BadCommitment, FederationError, LedgerError
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, GivenCopy, ReceivedCopy
from liberate.federation.wire.copies import ConsentScope, CopyPayload, SealedCopy
from liberate.federation.wire.round_messages import UNREADABLE
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.number_sets import includes
from liberate.ledger.format.sharing_records import Consent, Share
from liberate.privacy.fingerprinting import fingerprint
from liberate.privacy.randomised_response import respond
from liberate.randomness import stream_words
from liberate.units import to_nano

_LARGEST_CATALOGUE = 2**31 - 1

_PART = b"liberate part of ratings 1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCopy:
    """A copy that its recipient has opened, and that matches its entries.

    Attributes:
        share: The share.
        hash: Leaf hash of its entry.
        consent: Its consent.
        contents: The copy, with what opens its commitments.
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
    """Return the base copy of which all copies are made: some of the ratings, each perturbed once if ε is given.

    Args:
        ratings: The sender's ratings, in the encoding of `Ratings.user_bytes`.
        scale: Scale of the ratings.
        scope: Which of them copies may have; which part of them depends on key and item alone.
        key: 32 bytes, of this sender and base copy; the choice, the perturbation and all fingerprints follow from it.
        salt: Opens the commitment to the base copy.
        epsilon: Of one rating, as of `respond`; None: open.
    """
    chosen = Ratings.from_user_bytes([ratings], _LARGEST_CATALOGUE)
    if scope.items is not None:
        chosen = chosen.where(np.isin(chosen.items, np.array(scope.items, np.int64)))
    if scope.rating_fraction < 1:
        chosen = chosen.where(stream_words(_PART + key, chosen.items) < np.uint64(scope.rating_fraction * 2.0**64))

    places = scale.places(chosen.values)
    if epsilon is not None:
        places = respond(places, chosen.items, scale.n_levels, epsilon, _derived(key, b"respond"))

    return BaseCopy(
        ratings=_user_bytes(chosen.items, scale.values(places)),
        salt=salt,
        key=key,
        epsilon_nano=to_nano(epsilon),
        fraction=scope.rating_fraction,
        items=scope.items,
        scale=(scale.low, scale.step, scale.n_levels),
        source=sha256(ratings).digest(),
    )


def fingerprinted_copy(base: BaseCopy, recipient: int) -> bytes:
    """Return one recipient's copy of a base copy, in the encoding of `Ratings.user_bytes`."""
    low, step, n_levels = base.scale
    scale = RatingScale(low=low, step=step, n_levels=n_levels)
    ratings = Ratings.from_user_bytes([base.ratings], _LARGEST_CATALOGUE)
    places = scale.places(ratings.values)
    marked = fingerprint(places, ratings.items, n_levels, _derived(base.key, b"mark"), recipient)
    return _user_bytes(ratings.items, scale.values(marked))


def seal_copy(
    consent: GivenConsent, given: GivenCopy, base: BaseCopy, share: Share, recipient_key: bytes
) -> SealedCopy:
    """Return the copy of a share, sealed to the recipient's public key."""
    contents = CopyPayload(
        copy=fingerprinted_copy(base, share.recipient), salt=given.salt, scope=consent.scope, scope_salt=consent.salt
    )
    sealed = seal_to(recipient_key, msgspec.msgpack.encode(contents))
    return SealedCopy(consent=consent.entry, share=given.entry, sealed=sealed)


def open_copy(sealed_copy: SealedCopy, key: SigningKey, recipient: int, n_items: int) -> OpenedCopy:
    """Open a copy, and check all that can be checked without the ledger.

    That its entries are in the log, signed by the sender, is checked by the rules when the receipt gets there.

    Args:
        sealed_copy: The copy.
        key: The recipient's signing key.
        recipient: The recipient's number.
        n_items: Size of the catalogue.

    Raises:
        SealBroken: The copy is sealed to another key.
        BadCommitment: It does not hold what the entries commit to, or no ratings.
        FederationError: The entries are not those of a share for the recipient.
    """
    consent, share = _read_entries(sealed_copy, recipient)
    payload = open_with(key, sealed_copy.sealed)
    try:
        contents = msgspec.msgpack.decode(payload, type=CopyPayload)
        scope = msgspec.msgpack.decode(contents.scope, type=ConsentScope)
        copy = Ratings.from_user_bytes([contents.copy], n_items)
    except (*UNREADABLE, ValueError) as error:
        raise BadCommitment(f"the copy of participant {share.author} cannot be read: {error}") from error

    if not np.isfinite(copy.values).all():
        raise BadCommitment(f"the copy of participant {share.author} has ratings that are no numbers")
    if salted_commitment(contents.salt, contents.copy) != share.copy:
        raise BadCommitment(f"the copy of participant {share.author} does not open the share's commitment")
    if salted_commitment(contents.scope_salt, contents.scope) != consent.terms:
        raise BadCommitment(f"the scope of participant {share.author} does not open the consent's commitment")

    hash = leaf_hash(sealed_copy.share)
    return OpenedCopy(share=share, hash=hash, consent=consent, contents=contents, scope=scope)


def _read_entries(sealed_copy: SealedCopy, recipient: int) -> tuple[Consent, Share]:
    """Return a copy's consent and share after checking that they belong together and name the recipient."""
    wrong = f"the entries of the copy are not those of a share for participant {recipient}"
    try:
        consent = decode_record(sealed_copy.consent, Consent)
        share = decode_record(sealed_copy.share, Share)
    except LedgerError as error:
        raise FederationError(f"{wrong}: {error}") from error

    is_covered = share.author == consent.author and share.consent == leaf_hash(sealed_copy.consent)
    if not is_covered or share.recipient != recipient or not includes(consent.recipients, recipient):
        raise FederationError(wrong)
    return consent, share


def as_ratings(copies: Iterable[bytes], n_items: int) -> Ratings:
    """Return copies as ratings, one user each, in their order; items that the catalogue lacks are left out."""
    return Ratings.from_user_bytes(list(copies), _LARGEST_CATALOGUE).within(n_items)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"liberate copies 1\0" + purpose, "sha256")


def _user_bytes(items: Int32Array, values: Float32Array) -> bytes:
    return Ratings(np.array([0, len(items)], np.int64), items, values, _LARGEST_CATALOGUE).user_bytes(0)
