"""Copies of ratings: how they are made, and how they travel so that only their recipient reads them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np

from liberate.arrays import Digest, Float32Array, Int32Array
from liberate.crypto.encoding import commitment
from liberate.crypto.sealing import open_with, seal_to
from liberate.crypto.signing import SigningKey
from liberate.errors import BadCommitment, DataError, FederationError
from liberate.federation.messages import UNREADABLE
from liberate.federation.rows import Base, Given, Granted, Received
from liberate.ledger.records import Consent, Share, decode_entry, includes
from liberate.model.ratings import Ratings
from liberate.privacy.marks import mark
from liberate.privacy.randomised_response import respond
from liberate.randomness import stream_words

_LARGEST_CATALOGUE = 2**31 - 1
_LARGEST_SCALE = 100
_NANO = 10**9
_PART = b"liberate part of ratings 1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The levels that ratings have: low, low + step, and so on. It is public.

    Attributes:
        low: The lowest.
        step: Between two neighbours, > 0.
        n_levels: How many, 2 <= n_levels <= 100.
    """

    low: float
    step: float
    n_levels: int

    @classmethod
    def of(cls, values: Float32Array, low: float, high: float) -> Scale:
        """Find the widest scale from low to high that has all ratings.

        Raises:
            DataError: There is none of 100 levels or fewer.
        """
        distinct = np.unique(np.append(values, [low, high]).astype(np.float64)) - low
        for n_steps in range(1, _LARGEST_SCALE):
            step = (high - low) / n_steps
            if step > 0 and np.allclose(distinct / step, np.rint(distinct / step), atol=1e-4):
                return cls(low=low, step=step, n_levels=n_steps + 1)
        raise DataError(
            f"ratings from {low:g} to {high:g} are not on a scale of {_LARGEST_SCALE} levels or fewer",
            hint="copies are marked by the levels of ratings: round the ratings to share them",
        )

    def places(self, values: Float32Array) -> Int32Array:
        """Give each rating's level, shape (n,).

        Raises:
            FederationError: A rating is not on the scale.
        """
        exact = (values.astype(np.float64) - self.low) / self.step
        places = np.rint(exact).astype(np.int32)
        is_inside = (places >= 0) & (places < self.n_levels)
        if not (is_inside & (np.abs(exact - places) < 1e-3)).all():
            raise FederationError("a rating is not on the scale that copies have")
        return places

    def values(self, places: Int32Array) -> Float32Array:
        """Give each level's rating, shape (n,)."""
        return (self.low + self.step * places).astype(np.float32)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a consent that only recipients are told; the ledger has a salted commitment to it.

    Attributes:
        purpose: What the copies are for.
        rating_fraction: Part of the own ratings that a copy has, 0 < rating_fraction <= 1.
        items: Items whose ratings it may have, by their index in the catalogue, increasing; None: all.
    """

    purpose: str
    rating_fraction: float
    items: tuple[int, ...] | None = None


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a parcel holds for its recipient.

    Attributes:
        copy: The copy, as `Ratings.user_bytes` writes it.
        salt: Opens the share's commitment to it.
        scope: A `Scope`, as MessagePack.
        scope_salt: Opens the consent's commitment to it.
    """

    copy: bytes
    salt: bytes
    scope: bytes
    scope_salt: bytes


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A copy on its way.

    Attributes:
        consent: Entry of the consent that covers it.
        share: Entry of the share.
        sealed: `Contents`, sealed to the recipient's signing key.
    """

    consent: bytes
    share: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A parcel that is what it should be.

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
    contents: Contents
    scope: Scope

    @property
    def received(self) -> Received:
        """What its recipient keeps of it."""
        return Received(
            giver=self.share.author,
            copy=self.contents.copy,
            salt=self.contents.salt,
            max_shares=self.consent.max_shares,
            epsilon_nano=self.share.epsilon_nano or 0,
        )


def make_base(ratings: bytes, scale: Scale, scope: Scope, *, key: bytes, salt: bytes, epsilon: float | None) -> Base:
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
    return Base(
        ratings=_bytes(own.items, scale.values(places)),
        salt=salt,
        key=key,
        epsilon_nano=None if epsilon is None else round(epsilon * _NANO),
        fraction=scope.rating_fraction,
        items=scope.items,
        scale=(scale.low, scale.step, scale.n_levels),
        source=sha256(ratings).digest(),
    )


def make_copy(base: Base, recipient: int) -> bytes:
    """Make one recipient's copy of a base copy, as `Ratings.user_bytes` writes it."""
    low, step, n_levels = base.scale
    scale = Scale(low=low, step=step, n_levels=n_levels)
    own = Ratings.from_user_bytes([base.ratings], _LARGEST_CATALOGUE)
    places = mark(scale.places(own.values), own.items, n_levels, _derived(base.key, b"mark"), recipient)
    return _bytes(own.items, scale.values(places))


def pack(granted: Granted, given: Given, base: Base, share: Share, recipient_key: bytes) -> Parcel:
    """Make the parcel of a share, sealed to the recipient's public key."""
    contents = Contents(
        copy=make_copy(base, share.recipient), salt=given.salt, scope=granted.scope, scope_salt=granted.salt
    )
    return Parcel(
        consent=granted.entry, share=given.entry, sealed=seal_to(recipient_key, msgspec.msgpack.encode(contents))
    )


def unpack(parcel: Parcel, key: SigningKey, recipient: int, n_items: int) -> Opened:
    """Open a parcel, and check all that can be checked without the ledger.

    That its entries stand on the ledger, signed by the giver, is checked by the rules when the receipt gets there.

    Args:
        parcel: The parcel.
        key: The recipient's signing key.
        recipient: The recipient's number.
        n_items: Size of the catalogue.

    Raises:
        SealBroken: It is sealed to another key.
        BadCommitment: It does not hold what the entries commit to, or no ratings.
        FederationError: The entries are none of a share for the recipient.
    """
    consent, share = decode_entry(parcel.consent), decode_entry(parcel.share)
    terms, record = consent.record, share.record
    if (
        not isinstance(terms, Consent)
        or not isinstance(record, Share)
        or record.recipient != recipient
        or record.consent != consent.leaf_hash
        or record.author != terms.author
        or not includes(terms.recipients, recipient)
    ):
        raise FederationError(f"the entries of the parcel are not those of a share for participant {recipient}")
    try:
        contents = msgspec.msgpack.decode(open_with(key, parcel.sealed), type=Contents)
        scope = msgspec.msgpack.decode(contents.scope, type=Scope)
        copy = Ratings.from_user_bytes([contents.copy], n_items)
    except (*UNREADABLE, ValueError) as error:
        raise BadCommitment(f"the parcel of participant {record.author} cannot be read: {error}") from error
    if not np.isfinite(copy.values).all():
        raise BadCommitment(f"the copy of participant {record.author} has ratings that are no numbers")
    if commitment(contents.salt, contents.copy) != record.copy:
        raise BadCommitment(f"the copy of participant {record.author} does not open the share's commitment")
    if commitment(contents.scope_salt, contents.scope) != terms.terms:
        raise BadCommitment(f"the scope of participant {record.author} does not open the consent's commitment")
    return Opened(record, share.leaf_hash, terms, contents, scope)


def as_ratings(copies: Iterable[bytes], n_items: int) -> Ratings:
    """Give copies as ratings, one user each, in their order."""
    return Ratings.from_user_bytes(list(copies), _LARGEST_CATALOGUE).within(n_items)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"liberate copies 1\0" + purpose, "sha256")


def _bytes(items: Int32Array, values: Float32Array) -> bytes:
    return Ratings(np.array([0, len(items)], np.int64), items, values, _LARGEST_CATALOGUE).user_bytes(0)
