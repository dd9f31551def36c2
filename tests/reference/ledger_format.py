"""A second reader of ledger format 2 and of its published files, written from docs/reference alone.

Slow and plain; shares no code with the package. Checks stand in the order of the format's pages and raise their reason
codes.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LARGEST = 2**53 - 1
PHASES = ["advertised", "graph", "shared", "survivors"]
ROLES = ["registrar", "log", "participant", "host", "coordinator", "witness", "auditor"]
ADMITTED = {"participant", "host", "coordinator", "witness", "auditor"}


class Refused(Exception):
    """An entry does not follow; holds the reason code."""


def check(holds: bool, code: str) -> None:
    if not holds:
        raise Refused(code)


# --- Ed25519: which keys and signatures count ------------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def decode_point(data: bytes) -> Point | None:
    """Return the point of a canonical encoding (RFC 8032, 5.1.3), or None."""
    y, sign = int.from_bytes(data, "little") & (2**255 - 1), data[31] >> 7
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


def add_points(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def multiply(scalar: int, point: Point) -> Point:
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add_points(result, point)
        point, scalar = add_points(point, point), scalar >> 1
    return result


@cache
def is_usable_key(key: bytes) -> bool:
    point = decode_point(key)
    return point is not None and point != (0, 1) and multiply(ORDER, point) == (0, 1)


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    r = decode_point(signature[:32])
    if r is not None and multiply(8, r) == (0, 1):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def pae(kind: str, body: bytes) -> bytes:
    return b"DSSEv1 %d %s %d " % (len(kind), kind.encode(), len(body)) + body


# --- records ---------------------------------------------------------------------------------------------------------


def integer(least: int) -> Any:
    return lambda value: type(value) is int and least <= value <= LARGEST


natural, positive = integer(0), integer(1)


def byte_string(least: int, most: int) -> Any:
    def is_one(value: object) -> bool:
        if not isinstance(value, str):
            return False
        try:
            data = base64.b64decode(value, validate=True)
        except ValueError:
            return False
        return base64.b64encode(data).decode() == value and least <= len(data) <= most

    return is_one


hash_ = byte_string(32, 32)


def token(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_./-]{0,63}", value) is not None


def one_of(*values: object) -> Any:
    return lambda value: any(type(value) is type(v) and value == v for v in values)


def list_of(item: Any, length: int | None = None) -> Any:
    return lambda value: isinstance(value, list) and all(map(item, value)) and length in (None, len(value))


def table_of(name: Any, item: Any) -> Any:
    return lambda value: isinstance(value, dict) and all(map(name, value)) and all(map(item, value.values()))


def members(**types: Any) -> Any:
    return lambda value: (
        isinstance(value, dict) and value.keys() == types.keys() and all(types[n](value[n]) for n in types)
    )


def or_null(item: Any) -> Any:
    return lambda value: value is None or item(value)


def string(value: object) -> bool:
    return isinstance(value, str)


def boolean(value: object) -> bool:
    return isinstance(value, bool)


participants = list_of(members(first=natural, bitmap=byte_string(1, 32768)))
account = one_of("none", "epsilon", "rho")
approvals = list_of(members(registrar=natural, signature=byte_string(64, 64)))
terms = members(
    max_participants=positive,
    max_colluders=natural,
    max_dropouts_permille=natural,
    max_late_dropouts_permille=natural,
    min_cohort=positive,
    min_honest=positive,
    max_attempts=positive,
)
KINDS = {
    "genesis": {
        "registrars": list_of(hash_),
        "enrolment_policy": table_of(one_of(*ADMITTED), members(registrars=list_of(natural), threshold=positive)),
        "log_vkey": string,
        "simulated": boolean,
        "unit": one_of("user"),
        "relation": one_of("zero-out"),
        "epsilon_nano_limit": or_null(natural),
        "rho_nano_limit": or_null(natural),
        "terms": terms,
        "witnesses": members(keys=list_of(string), threshold=natural),
    },
    "terms": {"terms": terms},
    "enrol": {
        "number": natural,
        "key": hash_,
        "device_key": or_null(hash_),
        "custody": one_of("own", "host"),
        "role": one_of(*ADMITTED),
        "approvals": approvals,
    },
    "key": {
        "number": natural,
        "which": one_of("person", "device"),
        "key": or_null(members(public=hash_, possession=byte_string(64, 64))),
        "approvals": approvals,
    },
    "dataset": {"commitment": hash_},
    "consent": {
        "recipients": participants,
        "expiry": positive,
        "max_shares": positive,
        "epsilon_nano": or_null(natural),
        "terms": hash_,
    },
    "withdrawal": {"consent": or_null(hash_)},
    "share": {
        "consent": hash_,
        "recipient": natural,
        "base": hash_,
        "epsilon_nano": or_null(natural),
        "copy": hash_,
    },
    "receipt": {"sender": natural, "share": hash_, "copy": hash_},
    "round": {
        "number": positive,
        "run": natural,
        "rounds": or_null(positive),
        "base_version": natural,
        "base_digest": hash_,
        "terms": hash_,
        "cohort": participants,
        "statistic": token,
        "shape": list_of(natural, 3),
        "mechanism": members(name=token, parameters=table_of(token, natural)),
        "noise_placement": one_of("per_upload", "on_sum"),
        "fraction_bits": natural,
        "account": account,
        "spend_nano": natural,
        "minimum": positive,
        "deadline": positive,
    },
    "update": {
        "round": positive,
        "round_hash": hash_,
        "commitment": hash_,
        "profile": hash_,
        "shares": list_of(members(sender=natural, share=hash_)),
        "account": account,
        "spend_nano": natural,
        "participants": participants,
    },
    "pool": {"round": positive, "round_hash": hash_, "participants": participants},
    "round_set": {
        "round": positive,
        "round_hash": hash_,
        "phase": one_of(*PHASES),
        "part": positive,
        "parts": positive,
        "participants": participants,
        "root": hash_,
    },
    "model": {
        "round": positive,
        "version": positive,
        "parent": hash_,
        "digest": hash_,
        "updates_root": hash_,
        "unused": list_of(natural),
        "sum_digest": hash_,
        "solver": token,
        "parameters": table_of(token, natural),
    },
    "aborted": {"round": positive, "reason": token},
    "erasure": {
        "number": natural,
        "report": or_null(
            members(destroyed=list_of(token), notified=participants, confirmed=participants, models=participants)
        ),
    },
    "disclosure": {"participants": participants, "reason": hash_},
    "block": {"parent": hash_, "count": positive, "state_root": hash_, "time_us": natural},
}
SIGNERS = {
    "terms": {"coordinator"},
    "enrol": {"registrar"},
    "key": set(ROLES) - {"log"},
    "dataset": {"participant"},
    "consent": {"participant"},
    "withdrawal": {"participant"},
    "share": {"participant"},
    "receipt": {"participant", "coordinator"},
    "round": {"coordinator"},
    "update": {"participant", "host"},
    "pool": {"coordinator"},
    "round_set": {"coordinator"},
    "model": {"coordinator"},
    "aborted": {"coordinator"},
    "erasure": {"participant", "coordinator"},
    "disclosure": {"auditor"},
    "block": {"log"},
}


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member twice")
    return dict(pairs)


def canonical(record: object) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(entry: bytes) -> dict[str, Any]:
    check(len(entry) <= 65_535, "too_large")
    try:
        record = json.loads(entry[64:], object_pairs_hook=unique)
        kind, version = record["kind"], record["v"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused("malformed") from error
    check(not isinstance(kind, str) or kind in KINDS, "unknown_kind")
    check(type(version) is not int or version == 2, "unknown_version")
    common = {
        "v": one_of(2),
        "kind": string,
        "origin": lambda value: isinstance(value, str) and 1 <= len(value) <= 255,
        "author": natural,
        "seq": positive,
    }
    check(isinstance(kind, str) and members(**common, **KINDS[kind])(record), "malformed")
    try:
        check(canonical(record) == entry[64:], "malformed")
    except UnicodeEncodeError as error:
        raise Refused("malformed") from error
    return dict(record)


def raw(text: str) -> bytes:
    return base64.b64decode(text)


def parse_vkey(text: str, kind: int) -> tuple[str, bytes]:
    """Name and key of a C2SP verifier key: name + "+" + hex key id + "+" + base64(type byte, key)."""
    try:
        name, key_id, encoded = text.split("+", 2)
        data = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise Refused("bad_key") from error
    wanted = sha256(name.encode() + b"\n" + data).digest()[:4].hex()
    check(name != "" and not re.search(r"[\s+]", name) and key_id == wanted, "bad_key")
    check(len(data) == 33 and data[0] == kind and is_usable_key(data[1:]), "bad_key")
    return name, data[1:]


# --- trees -----------------------------------------------------------------------------------------------------------


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + tree_root(leaves[:split]) + tree_root(leaves[split:])).digest()


def are_sound(numbers: dict[str, int]) -> bool:
    dropouts, most = numbers["max_dropouts_permille"], numbers["max_participants"]
    return (
        numbers["max_late_dropouts_permille"] <= dropouts <= 1000
        and numbers["max_colluders"] <= most
        and numbers["min_cohort"] <= most
        and numbers["min_honest"] >= 2
    )


# --- rules -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Principal:
    """What the state tree says of somebody."""

    key: bytes
    role: str
    device_key: bytes = bytes(32)
    host_custody: bool = False
    revoked: bool = False
    device_revoked: bool = False
    withdrawn: bool = False
    forgotten: bool = False
    consents: tuple[bytes, ...] = ()
    seq: int = 0
    epsilon: int = 0
    rho: int = 0
    count: int = 0
    chain: bytes = bytes(32)

    def leaf(self) -> bytes:
        words = (self.seq, self.epsilon, self.rho)
        status = self.revoked + 2 * self.withdrawn + 4 * self.forgotten + 8 * self.device_revoked
        return (
            self.key
            + self.device_key
            + bytes([ROLES.index(self.role), status + 16 * self.host_custody])
            + b"".join(word.to_bytes(8, "big") for word in words)
            + (tree_root(list(self.consents)) if self.consents else bytes(32))
            + self.count.to_bytes(8, "big")
            + self.chain
        )

    def signs_with(self, kind: str) -> bytes:
        """The key for a kind: a participant's device signs by itself what says what it holds and computes."""
        return self.device_key if self.role == "participant" and kind in ("dataset", "update") else self.key


def enrolled(record: dict[str, Any]) -> Principal:
    """The leaf of somebody new, before any entry is counted."""
    device_key = bytes(32) if record["device_key"] is None else raw(record["device_key"])
    return Principal(raw(record["key"]), record["role"], device_key, record["custody"] == "host")


def with_key(leaf: Principal, record: dict[str, Any]) -> Principal:
    """A leaf after a change of one of its keys."""
    public = None if record["key"] is None else raw(record["key"]["public"])
    if record["which"] == "device":
        return replace(leaf, device_key=public or leaf.device_key, device_revoked=public is None)
    return replace(leaf, key=public or leaf.key, revoked=public is None)


@dataclass
class Open:
    """A round that is not closed."""

    record: dict[str, Any]
    hash: bytes
    enrolled: int
    cohort: set[int]
    updates: list[tuple[int, bytes, list[int]]] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    pool: set[int] = field(default_factory=set)
    late: int = 0
    sets: dict[str, list[int]] = field(default_factory=dict)
    named: tuple[int, int] = (0, 0)
    root: bytes = bytes(32)

    def is_masked(self) -> bool:
        return bool(self.record["mechanism"]["parameters"].get("masked") == 1)

    def is_partial(self) -> bool:
        return self.named[0] < self.named[1]

    def is_whole(self, phase: str) -> bool:
        return phase in self.sets and not (self.is_partial() and phase == list(self.sets)[-1])

    def least(self) -> int:
        advertised = len(self.sets["advertised"]) if self.is_whole("advertised") else 0
        return max(int(self.record["minimum"]), advertised - self.late)


@dataclass
class Ledger:
    """Everything the rules know."""

    genesis: dict[str, Any] | None = None
    size: int = 0
    height: int = 0
    block_hash: bytes = bytes(32)
    block_size: int = 0
    time_us: int = 0
    principals: list[Principal] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    open: Open | None = None
    run: tuple[int, int | None, int] | None = None
    round: int = 0
    model: tuple[int, bytes | None] = (0, None)
    consents: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    shares: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    receipts: set[bytes] = field(default_factory=set)
    terms: dict[str, int] = field(default_factory=dict)
    terms_hash: bytes = bytes(32)

    def state_root(self) -> bytes:
        return tree_root([leaf_hash(principal.leaf()) for principal in self.principals])

    def apply(self, entry: bytes) -> None:
        record = decode(entry)
        if self.genesis is None:
            check(record["kind"] == "genesis", "no_genesis")
            self.begin(entry, record)
            subjects = list(range(len(self.principals)))
        else:
            check(record["kind"] != "genesis", "second_genesis")
            self.check_author(entry, record)
            subjects = getattr(self, f"take_{record['kind']}")(record, leaf_hash(entry))
        self.size += 1
        if record["kind"] == "block":
            return
        self.change(record["author"], seq=record["seq"])
        for number in {record["author"], *subjects}:
            principal = self.principals[number]
            chain = sha256(principal.chain + leaf_hash(entry)).digest()
            self.change(number, count=principal.count + 1, chain=chain)

    def change(self, number: int, **values: Any) -> None:
        self.principals[number] = replace(self.principals[number], **values)

    def check_author(self, entry: bytes, record: dict[str, Any]) -> None:
        assert self.genesis
        check(record["origin"] == self.genesis["origin"], "wrong_origin")
        check(record["author"] < len(self.principals), "unknown_author")
        author = self.principals[record["author"]]
        check(author.role in SIGNERS[record["kind"]], "wrong_role")
        check(not author.revoked, "revoked_author")
        by_device = author.signs_with(record["kind"]) != author.key
        check(not (by_device and author.device_revoked), "revoked_device")
        check(not author.withdrawn or record["kind"] in ("key", "erasure"), "withdrawn")
        last = self.height if author.role == "log" else author.seq
        check(record["seq"] > last, "stale_sequence")
        check(record["seq"] - last <= 1_048_576, "sequence_too_far")
        message = pae("application/vnd.liberate.record+json", entry[64:])
        check(is_signed(author.signs_with(record["kind"]), message, entry[:64]), "bad_signature")

    def begin(self, entry: bytes, genesis: dict[str, Any]) -> None:
        check(genesis["author"] == 0 and genesis["seq"] == 1, "bad_genesis")
        name, log_key = parse_vkey(genesis["log_vkey"], 1)
        check(name == genesis["origin"], "bad_genesis")
        registrars = [raw(key) for key in genesis["registrars"]]
        keys = [*registrars, log_key]
        check(registrars != [] and len(set(keys)) == len(keys), "bad_genesis")
        check(all(map(is_usable_key, keys)), "bad_key")
        for policy in genesis["enrolment_policy"].values():
            numbers = policy["registrars"]
            check(all(number < len(registrars) for number in numbers), "bad_genesis")
            check(all(a < b for a, b in pairwise(numbers)) and policy["threshold"] <= len(numbers), "bad_genesis")
        check(are_sound(genesis["terms"]), "bad_genesis")
        witnesses = genesis["witnesses"]
        for vkey in witnesses["keys"]:
            parse_vkey(vkey, 4)
        check(len(set(witnesses["keys"])) == len(witnesses["keys"]) >= witnesses["threshold"], "bad_genesis")
        self.witness_keys = {parse_vkey(vkey, 4)[1] for vkey in witnesses["keys"]}
        check(not self.witness_keys & set(keys), "bad_genesis")
        message = pae("application/vnd.liberate.record+json", entry[64:])
        check(is_signed(registrars[0], message, entry[:64]), "bad_signature")
        self.genesis, self.keys = genesis, set(keys)
        self.terms, self.terms_hash = genesis["terms"], leaf_hash(entry)
        self.principals = [*(Principal(key, "registrar") for key in registrars), Principal(log_key, "log")]

    def check_registrar(self, author: int, role: str) -> None:
        assert self.genesis
        check(author in self.genesis["enrolment_policy"].get(role, {"registrars": []})["registrars"], "not_registrar")

    def check_approvals(self, record: dict[str, Any], role: str, statement: dict[str, Any]) -> None:
        assert self.genesis
        policy = self.genesis["enrolment_policy"][role]
        others = [approval["registrar"] for approval in record["approvals"]]
        check(all(a < b for a, b in pairwise(others)) and record["author"] not in others, "wrong_approvals")
        for number in others:
            check(number in policy["registrars"], "not_registrar")
            check(not self.principals[number].revoked, "revoked_registrar")
        check(1 + len(others) >= policy["threshold"], "too_few_approvals")
        body = canonical({**statement, "kind": record["kind"], "origin": record["origin"], "number": record["number"]})
        message = pae("application/vnd.liberate.approval+json", body)
        for approval in record["approvals"]:
            key = self.principals[approval["registrar"]].key
            check(is_signed(key, message, raw(approval["signature"])), "bad_approval")

    def check_key(self, key: bytes) -> None:
        check(is_usable_key(key), "bad_key")
        check(key not in self.keys and key not in self.witness_keys, "key_used")

    def take_enrol(self, record: dict[str, Any], _: bytes) -> list[int]:
        self.check_registrar(record["author"], record["role"])
        check(record["number"] == len(self.principals), "wrong_number")
        if record["role"] == "participant":
            check(self.enrolled_participants() < self.terms["max_participants"], "enrolment_full")
        is_participant = record["role"] == "participant"
        check((record["device_key"] is not None) == is_participant, "wrong_device_key")
        check(record["device_key"] != record["key"], "wrong_device_key")
        check(is_participant or record["custody"] == "own", "wrong_custody")
        keys = [raw(record[name]) for name in ("key", "device_key") if record[name] is not None]
        for key in keys:
            self.check_key(key)
        names = ("key", "device_key", "custody", "role")
        self.check_approvals(record, record["role"], {name: record[name] for name in names})
        self.principals.append(enrolled(record))
        self.keys.update(keys)
        return [record["number"]]

    def enrolled_participants(self) -> int:
        return sum(principal.role == "participant" for principal in self.principals)

    def take_terms(self, record: dict[str, Any], hash: bytes) -> list[int]:
        check(self.open is None, "round_open")
        check(are_sound(record["terms"]), "bad_terms")
        check(record["terms"]["max_participants"] >= self.enrolled_participants(), "bad_terms")
        self.terms, self.terms_hash = record["terms"], hash
        return []

    def take_key(self, record: dict[str, Any], _: bytes) -> list[int]:
        number, new = record["number"], record["key"]
        check(number < len(self.principals), "unknown_principal")
        principal = self.principals[number]
        is_device, which = record["which"] == "device", record["which"]
        check(not is_device or principal.role == "participant", "wrong_device_key")
        if record["author"] != number:
            self.check_registrar(record["author"], principal.role)
            before = base64.b64encode(principal.device_key if is_device else principal.key).decode()
            public = None if new is None else new["public"]
            self.check_approvals(record, principal.role, {"which": which, "before": before, "public": public})
        else:
            check(record["approvals"] == [], "wrong_approvals")
        if new is None:
            check(not (principal.device_revoked if is_device else principal.revoked), "already_revoked")
        else:
            self.check_key(raw(new["public"]))
            body = canonical({"number": number, "origin": record["origin"], "which": which})
            message = pae("application/vnd.liberate.possession+json", body)
            check(is_signed(raw(new["public"]), message, raw(new["possession"])), "not_possessed")
            self.keys.add(raw(new["public"]))
        self.principals[number] = with_key(principal, record)
        return [number]

    def take_dataset(self, record: dict[str, Any], _: bytes) -> list[int]:
        return []

    def may_receive(self, number: int) -> bool:
        if number >= len(self.principals):
            return False
        principal = self.principals[number]
        return principal.role in ("participant", "coordinator") and not principal.revoked and not principal.withdrawn

    def lives(self, share: bytes, sender: int) -> bool:
        """Whether a share is the sender's and may be used in the next block."""
        if share not in self.shares or self.shares[share]["author"] != sender:
            return False
        consent = raw(self.shares[share]["consent"])
        giving = self.principals[sender]
        return consent in giving.consents and self.height < self.consents[consent]["expiry"] and not giving.revoked

    def take_consent(self, record: dict[str, Any], hash: bytes) -> list[int]:
        check(record["expiry"] > self.height, "too_late")
        recipients = self.participants(record["recipients"], "wrong_recipient")
        check(recipients != [] and record["author"] not in recipients, "wrong_recipient")
        check(all(map(self.may_receive, recipients)), "wrong_recipient")
        self.consents[hash] = record
        self.change(record["author"], consents=(*self.principals[record["author"]].consents, hash))
        return recipients

    def take_withdrawal(self, record: dict[str, Any], _: bytes) -> list[int]:
        granted = self.principals[record["author"]].consents
        if record["consent"] is None:
            self.change(record["author"], consents=(), withdrawn=True)
            return []
        ended = raw(record["consent"])
        check(ended in granted, "no_consent")
        self.change(record["author"], consents=tuple(hash for hash in granted if hash != ended))
        return []

    def take_share(self, record: dict[str, Any], hash: bytes) -> list[int]:
        under = raw(record["consent"])
        check(under in self.principals[record["author"]].consents, "no_consent")
        terms = self.consents[under]
        check(self.height < terms["expiry"], "consent_expired")
        check(record["recipient"] in self.participants(terms["recipients"], ""), "wrong_recipient")
        check(self.may_receive(record["recipient"]), "wrong_recipient")
        earlier = [share for share in self.shares.values() if raw(share["consent"]) == under]
        check(len(earlier) < terms["max_shares"], "consent_used_up")
        bases = {share["base"]: share["epsilon_nano"] for share in earlier}
        epsilon = record["epsilon_nano"]
        check(bases.setdefault(record["base"], epsilon) == epsilon, "wrong_spend")
        if terms["epsilon_nano"] is not None:
            check(None not in bases.values() and sum(bases.values()) <= terms["epsilon_nano"], "consent_exceeded")
        self.shares[hash] = record
        return [record["recipient"]]

    def take_receipt(self, record: dict[str, Any], _: bytes) -> list[int]:
        hash = raw(record["share"])
        check(self.lives(hash, record["sender"]), "share_without_consent")
        check(self.shares[hash]["recipient"] == record["author"], "wrong_recipient")
        check(self.shares[hash]["copy"] == record["copy"], "wrong_copy")
        check(hash not in self.receipts, "second_receipt")
        self.receipts.add(hash)
        return [record["sender"]]

    def take_erasure(self, record: dict[str, Any], _: bytes) -> list[int]:
        number, report = record["number"], record["report"]
        if report is None:
            check(number == record["author"], "wrong_erasure")
            check(self.principals[number].withdrawn, "not_withdrawn")
            check(not self.principals[number].forgotten, "second_request")
            self.change(number, forgotten=True)
            return [number]
        check(self.principals[record["author"]].role == "coordinator", "wrong_erasure")
        check(number < len(self.principals) and self.principals[number].forgotten, "not_requested")
        notified, confirmed = (
            self.participants(report[name], "wrong_participants") for name in ("notified", "confirmed")
        )
        check(
            all(each < len(self.principals) for each in notified) and set(confirmed) <= set(notified),
            "wrong_participants",
        )
        versions = self.participants(report["models"], "wrong_version")
        check(all(1 <= version <= self.model[0] for version in versions), "wrong_version")
        return [number, *notified]

    def take_disclosure(self, record: dict[str, Any], _: bytes) -> list[int]:
        participants = self.participants(record["participants"], "wrong_participants")
        check(participants != [], "wrong_participants")
        check(
            all(n < len(self.principals) and self.principals[n].role == "participant" for n in participants),
            "wrong_participants",
        )
        return participants

    def participants(self, parts: list[dict[str, Any]], code: str) -> list[int]:
        numbers: list[int] = []
        total = 0
        for part in parts:
            bitmap = raw(part["bitmap"])
            total += sum(byte.bit_count() for byte in bitmap)
            check(bitmap[0] & 1 == 1 and bitmap[-1] != 0, code)
            found = [part["first"] + 8 * j + i for j, byte in enumerate(bitmap) for i in range(8) if byte >> i & 1]
            check(not numbers or found[0] > numbers[-1], code)
            numbers += found
        check(total <= 262_144, "too_many_participants")
        return numbers

    def is_participant(self, number: int) -> bool:
        return (
            number < len(self.principals)
            and self.principals[number].role == "participant"
            and not self.principals[number].revoked
            and not self.principals[number].device_revoked
        )

    def take_round(self, record: dict[str, Any], hash: bytes) -> list[int]:
        assert self.genesis
        check(self.open is None, "round_open")
        check(record["number"] == self.round + 1, "wrong_number")
        run, rounds = record["run"], record["rounds"]
        is_new = self.run is None or run != self.run[0]
        if self.run is None:
            check(run in (0, 1), "wrong_run")
        elif is_new:
            check(run == self.run[0] + 1, "wrong_run")
        else:
            check(rounds == self.run[1], "wrong_run")
        opened = 0 if is_new or self.run is None else self.run[2]
        check(rounds is None or opened < rounds, "run_complete")
        base = raw(record["base_digest"])
        check(record["base_version"] == self.model[0] and (is_new or base == self.model[1]), "wrong_base_model")
        check(raw(record["terms"]) == self.terms_hash, "wrong_terms")
        check((record["spend_nano"] == 0) == (record["account"] == "none"), "wrong_spend")
        check(record["noise_placement"] != "on_sum" or self.genesis["simulated"], "not_simulated")
        check(record["mechanism"]["parameters"].get("masked") != 0 or self.genesis["simulated"], "not_simulated")
        if not self.genesis["simulated"] and record["mechanism"]["parameters"].get("masked") == 1:
            vkeys, threshold = self.genesis["witnesses"]["keys"], self.genesis["witnesses"]["threshold"]
            others = [vkey for vkey in vkeys if not vkey.partition("+")[0].endswith("/replay")]
            check(threshold > len(others), "not_replayed")
        check(record["deadline"] > self.height, "too_late")
        cohort = self.participants(record["cohort"], "wrong_cohort")
        check(all(map(self.is_participant, cohort)), "wrong_cohort")
        check(not any(self.principals[number].withdrawn for number in cohort), "withdrawn")
        masked = record["mechanism"]["parameters"].get("masked") == 1
        check(not masked or cohort != [], "wrong_cohort")
        late = self.terms["max_late_dropouts_permille"] * len(cohort) // 1000
        self.open = Open(record, hash, len(self.principals), set(cohort), late=late)
        self.run, self.round, self.model = (run, rounds, opened + 1), record["number"], (record["base_version"], base)
        return []

    def take_update(self, record: dict[str, Any], hash: bytes) -> list[int]:
        assert self.genesis
        current = self.open
        check(current is not None and record["round"] == current.record["number"], "closed_round")
        assert current
        terms = current.record
        check(raw(record["round_hash"]) == current.hash, "wrong_round")
        check("survivors" not in current.sets, "survivors_named")
        check(self.height < terms["deadline"], "too_late")
        check((record["account"], record["spend_nano"]) == (terms["account"], terms["spend_nano"]), "wrong_spend")
        limits = [self.genesis["epsilon_nano_limit"], self.genesis["rho_nano_limit"]]
        is_limited = limits != [None, None]
        check(terms["account"] != "none" or not is_limited, "unpriced")
        check(terms["account"] == "none" or not record["shares"], "private_shares")
        is_host = self.principals[record["author"]].role == "host"
        check(is_host == bool(record["participants"]), "wrong_participants")
        persons = self.participants(record["participants"], "wrong_participants") or [record["author"]]
        check(all(map(self.is_participant, persons)), "not_in_cohort")
        check(not any(self.principals[person].withdrawn for person in persons), "withdrawn")
        if current.is_masked():
            check(current.is_whole("shared"), "not_shared")
            check(set(persons) <= set(current.sets["shared"]), "not_in_set")
        for person in persons:
            check(person in current.cohort if current.cohort else person < current.enrolled, "not_in_cohort")
            check(person not in current.answered, "second_update")
            if terms["account"] != "none":
                limit = self.genesis[f"{terms['account']}_nano_limit"]
                spent = getattr(self.principals[person], terms["account"]) + terms["spend_nano"]
                check(spent <= (LARGEST if limit is None else limit), "over_budget")
                other = {"epsilon": "rho", "rho": "epsilon"}[terms["account"]]
                check(not is_limited or getattr(self.principals[person], other) == 0, "over_budget")
        inputs = [(each["sender"], raw(each["share"])) for each in record["shares"]]
        check(all(a < b for a, b in pairwise(inputs)), "wrong_shares")
        for sender, share in inputs:
            check(self.lives(share, sender), "share_without_consent")
            check(share in self.receipts and self.shares[share]["recipient"] in persons, "not_received")
        for person in persons:
            if terms["account"] != "none":
                spent = getattr(self.principals[person], terms["account"]) + terms["spend_nano"]
                self.change(person, **{terms["account"]: spent})
        current.answered |= set(persons)
        current.updates.append((self.size, hash, persons))
        return [*persons, *(sender for sender, _ in inputs)]

    def closable(self, record: dict[str, Any]) -> Open:
        check(self.open is not None and record["round"] == self.open.record["number"], "closed_round")
        assert self.open
        check(record["author"] == self.open.record["author"], "other_coordinator")
        return self.open

    def take_pool(self, record: dict[str, Any], _: bytes) -> list[int]:
        current = self.closable(record)
        check(raw(record["round_hash"]) == current.hash, "wrong_round")
        participants = self.participants(record["participants"], "wrong_participants")
        check(participants != [], "wrong_participants")
        check(not set(participants) & current.pool, "second_pool")
        for person in participants:
            received = [
                hash
                for hash, share in self.shares.items()
                if self.lives(hash, person) and hash in self.receipts and share["recipient"] == record["author"]
            ]
            check(received != [], "not_received")
        current.pool |= set(participants)
        return participants

    def take_round_set(self, record: dict[str, Any], _: bytes) -> list[int]:
        current = self.closable(record)
        check(raw(record["round_hash"]) == current.hash, "wrong_round")
        check(current.is_masked(), "not_masked")
        phase, parts = record["phase"], record["parts"]
        check(not current.is_whole(phase), "second_set")
        begun = [name for name in PHASES if current.is_whole(name)]
        check(phase == PHASES[len(begun)], "wrong_phase")
        before = current.named[0] if current.is_partial() else 0
        check(record["part"] == before + 1 and before < parts, "wrong_part")
        check(before == 0 or parts == current.named[1], "wrong_part")
        root = raw(record["root"])
        check((root != bytes(32)) == (phase in ("advertised", "graph")), "wrong_root")
        check(before == 0 or root == current.root, "wrong_root")
        participants = self.participants(record["participants"], "wrong_participants")
        earlier = current.sets.get(phase, [])
        check(participants != [] and all(participants[0] > number for number in earlier), "wrong_participants")
        check(set(participants) <= (set(current.sets[begun[-1]]) if begun else current.cohort), "not_in_set")
        members = [*earlier, *participants]
        if record["part"] == parts:
            check(len(members) >= current.least(), "too_few_participants")
        if phase == "survivors":
            check(set(participants) <= current.answered, "no_answer")
            for *_ignored, persons in current.updates if record["part"] == parts else []:
                check(set(persons) <= set(members) or not set(persons) & set(members), "wrong_updates")
        current.sets[phase], current.named, current.root = members, (record["part"], parts), root
        return []

    def take_model(self, record: dict[str, Any], _: bytes) -> list[int]:
        current = self.closable(record)
        check(record["parent"] == current.record["base_digest"], "wrong_parent")
        check(record["version"] == current.record["base_version"] + 1, "wrong_version")
        unused = record["unused"]
        check(all(a < b for a, b in pairwise(unused)), "wrong_updates")
        check(set(unused) <= {position for position, _, _ in current.updates}, "wrong_updates")
        if current.is_masked():
            check(current.is_whole("survivors"), "no_survivors")
            survivors = set(current.sets["survivors"])
            left_out = {position for position, _, persons in current.updates if not set(persons) & survivors}
            check(set(unused) == left_out, "wrong_updates")
        used = [(hash, persons) for position, hash, persons in current.updates if position not in unused]
        counted = sum(len(persons) for _, persons in used)
        if current.record["account"] == "none" and not current.is_masked():
            counted += len(current.pool - current.answered)
        check(counted >= current.record["minimum"], "too_few_updates")
        check(raw(record["updates_root"]) == tree_root([hash for hash, _ in used]), "wrong_updates")
        self.open, self.model = None, (record["version"], raw(record["digest"]))
        return []

    def take_aborted(self, record: dict[str, Any], _: bytes) -> list[int]:
        self.closable(record)
        self.open = None
        return []

    def take_block(self, record: dict[str, Any], hash: bytes) -> list[int]:
        check(record["seq"] == self.height + 1, "wrong_height")
        check(raw(record["parent"]) == self.block_hash, "wrong_parent")
        check(record["count"] == self.size - self.block_size, "wrong_count")
        check(record["time_us"] >= self.time_us, "wrong_time")
        check(raw(record["state_root"]) == self.state_root(), "wrong_state")
        self.height, self.block_hash, self.block_size = record["seq"], hash, self.size + 1
        self.time_us = record["time_us"]
        return []


# --- published files -------------------------------------------------------------------------------------------------


def tile_name(number: int) -> str:
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    return "/".join(groups)


def open_note(note: str, vkey: str) -> tuple[str, int, bytes]:
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    name, key = parse_vkey(vkey, 1)
    wanted = raw(vkey.split("+", 2)[2])
    key_id = sha256(name.encode() + b"\n" + wanted).digest()[:4]
    for line in signatures.splitlines():
        dash, signer, encoded = line.split(" ")
        data = raw(encoded)
        if dash == "—" and signer == name and data[:4] == key_id and is_signed(key, text.encode(), data[4:]):
            break
    else:
        raise Refused("not the log's note")
    origin, size, root = text.splitlines()
    assert origin == name
    return origin, int(size), raw(root)


def read_export(folder: Path, vkey: str) -> list[bytes]:
    _, size, root = open_note((folder / "checkpoint").read_text(), vkey)
    entries: list[bytes] = []
    for number in range(-(-size // 256)):
        width = min(256, size - 256 * number)
        suffix = "" if width == 256 else f".p/{width}"
        data = (folder / f"tile/entries/{tile_name(number)}{suffix}").read_bytes()
        while data:
            length = int.from_bytes(data[:2], "big")
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
    hashes, level = [leaf_hash(entry) for entry in entries], 0
    assert len(entries) == size
    assert tree_root(hashes) == root
    while hashes:
        for number in range(-(-len(hashes) // 256)):
            part = hashes[256 * number : 256 * number + 256]
            suffix = "" if len(part) == 256 else f".p/{len(part)}"
            assert (folder / f"tile/{level}/{tile_name(number)}{suffix}").read_bytes() == b"".join(part)
        hashes = [tree_root(hashes[i : i + 256]) for i in range(0, len(hashes) // 256 * 256, 256)]
        level += 1
    return entries


def read_inclusion(text: str, vkey: str) -> bytes:
    """Return the entry that a proof of inclusion is about."""
    head, _, note = text.partition("\n\n")
    magic, extra, index, *proof = head.split("\n")
    assert magic == "c2sp.org/tlog-proof@v1"
    entry, position = raw(extra.removeprefix("extra ")), int(index.removeprefix("index "))
    _, size, root = open_note(note, vkey)
    assert inclusion_root(leaf_hash(entry), position, size, [raw(step) for step in proof]) == root
    return entry


def inclusion_root(leaf: bytes, position: int, size: int, proof: list[bytes]) -> bytes:
    """RFC 9162, 2.1.3.2."""
    assert position < size
    last, root = size - 1, leaf
    for step in proof:
        assert last > 0
        if position & 1 or position == last:
            root = sha256(b"\1" + step + root).digest()
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            root = sha256(b"\1" + root + step).digest()
        position, last = position >> 1, last >> 1
    assert last == 0
    return root


def read_history(data: bytes, vkey: str) -> list[dict[str, Any]]:
    """Return the records of a proof of completeness, which are all that name its principal."""
    proof = json.loads(data, object_pairs_hook=unique)
    assert canonical(proof) == data
    assert proof["format"] == "liberate-completeness/1"
    origin, size, root = open_note(proof["checkpoint"], vkey)
    block = raw(proof["block"])
    assert inclusion_root(leaf_hash(block), size - 1, size, list(map(raw, proof["block_proof"]))) == root
    last = decode(block)
    assert last["kind"] == "block"
    number, entries = proof["number"], list(map(raw, proof["entries"]))
    records = list(map(decode, entries))
    assert records[0]["kind"] == "enrol"
    assert records[0]["number"] == number
    leaf = enrolled(records[0])
    for entry, record in zip(entries, records, strict=True):
        leaf = advanced(leaf, number, entry, record)
        assert record["origin"] == origin
    steps = list(map(raw, proof["state_proof"]))
    found = inclusion_root(leaf_hash(leaf.leaf()), number, proof["principal_count"], steps)
    assert found == raw(last["state_root"])
    return records


def advanced(leaf: Principal, number: int, entry: bytes, record: dict[str, Any]) -> Principal:
    """Return a principal's leaf after an entry that names it."""
    kind, is_author = record["kind"], record["author"] == number
    if is_author:
        assert is_signed(leaf.signs_with(kind), pae("application/vnd.liberate.record+json", entry[64:]), entry[:64])
        leaf = replace(leaf, seq=record["seq"])
    assert is_author or number in subjects(record)
    if kind == "consent" and is_author:
        leaf = replace(leaf, consents=(*leaf.consents, leaf_hash(entry)))
    if kind == "withdrawal":
        ended = record["consent"]
        kept = () if ended is None else tuple(hash for hash in leaf.consents if hash != raw(ended))
        leaf = replace(leaf, consents=kept, withdrawn=leaf.withdrawn or ended is None)
    if kind == "erasure" and is_author and record["report"] is None:
        leaf = replace(leaf, forgotten=True)
    if kind == "key" and record["number"] == number:
        leaf = with_key(leaf, record)
    if kind == "update" and (number in numbers(record["participants"]) or (is_author and not record["participants"])):
        account = record["account"]
        if account != "none":
            leaf = replace(leaf, **{account: getattr(leaf, account) + record["spend_nano"]})
    return replace(leaf, count=leaf.count + 1, chain=sha256(leaf.chain + leaf_hash(entry)).digest())


def subjects(record: dict[str, Any]) -> set[int]:
    """Return whom a record that is no genesis names beside its author."""
    match record["kind"]:
        case "enrol" | "key":
            return {record["number"]}
        case "consent":
            return numbers(record["recipients"])
        case "share":
            return {record["recipient"]}
        case "receipt":
            return {record["sender"]}
        case "update":
            return numbers(record["participants"]) | {each["sender"] for each in record["shares"]}
        case "pool" | "disclosure":
            return numbers(record["participants"])
        case "erasure":
            return {record["number"]} | numbers((record["report"] or {"notified": []})["notified"])
        case _:
            return set()


def numbers(parts: list[dict[str, Any]]) -> set[int]:
    """Return the numbers of some people."""
    return {
        part["first"] + 8 * j + i
        for part in parts
        for j, byte in enumerate(raw(part["bitmap"]))
        for i in range(8)
        if byte >> i & 1
    }
