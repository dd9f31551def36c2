"""k of n registrars admit, recover and revoke: fewer than k of them can do none of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liberate.crypto.signing import SigningKey
from liberate.errors import RefusedEntry
from liberate.ledger.format.entries import approve, enrolment_statement, key_statement, new_key, sign
from liberate.ledger.format.parts import Approval, EnrollableRole, EnrolmentPolicy
from liberate.ledger.format.records import Enrol, Genesis, KeyRecord
from tests.ledger import world
from tests.ledger.world import ORIGIN, BareRules, genesis, key, next_key
from tests.reference import ledger_format as second

N_REGISTRARS = 4
"""Principals 0 to 3: of the first three two enrol participants; 3 alone enrols coordinators; 4 is the log."""
LOG, PERSON, COORDINATOR = 4, 5, 6
WORKING_KEYS = {number: key(100 + number) for number in range(N_REGISTRARS)}

change = msgspec.structs.replace


def founding(*, threshold: int = 2, registrars: tuple[int, ...] = (0, 1, 2)) -> Genesis:
    by_some = EnrolmentPolicy(registrars=registrars, threshold=threshold)
    return change(
        genesis(),
        registrars=tuple(WORKING_KEYS[number].public for number in range(N_REGISTRARS)),
        enrolment_policy={"participant": by_some, "coordinator": EnrolmentPolicy(registrars=(3,), threshold=1)},
    )


class TwoReaders:
    """The rules, and the second reader beside them: both must give the same answer."""

    def __init__(self, first: Genesis) -> None:
        self.rules, self.other = BareRules(), second.Ledger()
        assert self.offer(sign(first, WORKING_KEYS[0])) == ""

    def offer(self, entry: bytes) -> str:
        """Why an entry is refused; empty if it is accepted."""
        (outcome,) = self.rules.append([entry])
        reason = outcome.reason if isinstance(outcome, RefusedEntry) else ""
        if reason:
            with pytest.raises(second.Refused, match=f"^{reason}$"):
                self.other.apply(entry)
        else:
            self.other.apply(entry)
            assert self.other.state_root() == self.rules.state.root()
        return reason

    def seq(self, author: int) -> int:
        return self.rules.state.principals[author].sequence + 1

    def admit(self, *registrars: int, number: int = PERSON) -> str:
        """Let registrars enrol somebody: the first one signs, the others approve."""
        record = enrolment(self, registrars[0], number)
        return self.offer(sign(approved(record, registrars[1:]), WORKING_KEYS[registrars[0]]))


def enrolment(ledger: TwoReaders, author: int, number: int = PERSON, role: EnrollableRole = "participant") -> Enrol:
    return world.enrolment(author, ledger.seq(author), number, role)


def approved(record: Enrol, registrars: Sequence[int]) -> Enrol:
    statement = enrolment_statement(record)
    return change(record, approvals=tuple(approve(statement, n, WORKING_KEYS[n]) for n in registrars))


def recovery(ledger: TwoReaders, author: int, others: Sequence[int], following: SigningKey | None) -> KeyRecord:
    """A recovery of the person's key, or its revocation."""
    record = KeyRecord(
        origin=ORIGIN,
        author=author,
        seq=ledger.seq(author),
        number=PERSON,
        which="person",
        key=None if following is None else new_key(following, ORIGIN, PERSON),
        approvals=(),
    )
    statement = key_statement(record, ledger.rules.state.principals[PERSON].key)
    return change(record, approvals=tuple(approve(statement, n, WORKING_KEYS[n]) for n in others))


# --- enrolment -------------------------------------------------------------------------------------------------------


def test_one_registrar_alone_enrols_nobody_where_two_must() -> None:
    ledger = TwoReaders(founding())

    assert ledger.admit(0) == "too_few_approvals"
    assert ledger.admit(1) == "too_few_approvals"
    assert len(ledger.rules.state.principals) == N_REGISTRARS + 1
    assert ledger.admit(1, 2) == ""
    assert ledger.rules.state.principals[PERSON].role == "participant"


@given(st.integers(1, 3), st.sets(st.integers(0, 2), min_size=1), st.data())
def test_any_registrars_fewer_than_the_threshold_admit_nobody(
    threshold: int, registrars: set[int], data: st.DataObject
) -> None:
    ledger = TwoReaders(founding(threshold=threshold))
    author = data.draw(st.sampled_from(sorted(registrars)))

    reason = ledger.admit(author, *sorted(registrars - {author}))

    assert reason == ("" if len(registrars) >= threshold else "too_few_approvals")


def forged(approval: Approval) -> Approval:
    return change(approval, signature=bytes(64))


def of_another(record: Enrol, **changes: object) -> Enrol:
    """The record with the approval of another one."""
    return change(record, approvals=approved(change(record, **changes), (1,)).approvals)


WRONG: dict[str, tuple[str, Callable[[Enrol], Enrol]]] = {
    "none": ("too_few_approvals", lambda record: record),
    "the author's": ("wrong_approvals", lambda record: approved(record, (0,))),
    "one twice": ("wrong_approvals", lambda record: approved(record, (1, 1))),
    "not increasing": ("wrong_approvals", lambda record: approved(record, (2, 1))),
    "of nobody": (
        "not_registrar",
        lambda record: change(record, approvals=(change(approved(record, (1,)).approvals[0], registrar=99),)),
    ),
    "of another role's registrar": ("not_registrar", lambda record: approved(record, (3,))),
    "forged": ("bad_approval", lambda record: change(record, approvals=(forged(approved(record, (1,)).approvals[0]),))),
    "in another's name": (
        "bad_approval",
        lambda record: change(record, approvals=(change(approved(record, (1,)).approvals[0], registrar=2),)),
    ),
    "one good, one bad": (
        "bad_approval",
        lambda record: change(
            record, approvals=(*approved(record, (1,)).approvals, forged(approved(record, (2,)).approvals[0]))
        ),
    ),
    "of another number": ("bad_approval", lambda record: of_another(record, number=6)),
    "of another key": ("bad_approval", lambda record: of_another(record, key=key(50).public)),
    "of another device": ("bad_approval", lambda record: of_another(record, device_key=key(50).public)),
    "of another custody": ("bad_approval", lambda record: of_another(record, custody="host")),
    "of another role": ("bad_approval", lambda record: of_another(record, role="host")),
    "of another ledger": ("bad_approval", lambda record: of_another(record, origin="example.org/b")),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_approval_counts_for_exactly_what_it_was_given_for(case: str) -> None:
    ledger = TwoReaders(founding())
    reason, spoil = WRONG[case]
    record = enrolment(ledger, 0)

    assert ledger.offer(sign(spoil(record), WORKING_KEYS[0])) == reason
    assert len(ledger.rules.state.principals) == N_REGISTRARS + 1


def test_a_revoked_registrar_approves_nothing() -> None:
    ledger = TwoReaders(founding())
    leaving = KeyRecord(origin=ORIGIN, author=2, seq=1, number=2, which="person", key=None, approvals=())
    assert ledger.offer(sign(leaving, WORKING_KEYS[2])) == ""

    assert ledger.admit(0, 2) == "revoked_registrar"
    assert ledger.admit(0, 1) == ""


def test_more_registrars_may_sign_than_must() -> None:
    assert TwoReaders(founding()).admit(0, 1, 2) == ""


def test_a_role_with_one_registrar_needs_no_approval() -> None:
    ledger = TwoReaders(founding())

    assert ledger.offer(sign(enrolment(ledger, 3, role="coordinator"), WORKING_KEYS[3])) == ""


@pytest.mark.parametrize(
    ("threshold", "registrars"), [(4, (0, 1, 2)), (2, (1,)), (2, (1, 1)), (1, (1, 0)), (1, (0, 9)), (1, ())]
)
def test_a_genesis_names_a_threshold_that_can_be_reached(threshold: int, registrars: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="bad_genesis"):
        TwoReaders(founding(threshold=threshold, registrars=registrars))


# --- keys ------------------------------------------------------------------------------------------------------------


def test_one_registrar_alone_neither_recovers_nor_revokes_where_two_must() -> None:
    ledger = TwoReaders(founding())
    ledger.admit(0, 1)
    following = next_key(key(PERSON))

    for record in (recovery(ledger, 0, (), following), recovery(ledger, 0, (), None)):
        assert ledger.offer(sign(record, WORKING_KEYS[0])) == "too_few_approvals"
    assert ledger.offer(sign(recovery(ledger, 0, (2,), following), WORKING_KEYS[0])) == ""
    assert ledger.rules.state.principals[PERSON].key == following.public


def test_an_approval_of_a_change_is_good_for_one_change() -> None:
    """Registrar 1 once approved a revocation; the key that replaced the revoked one is not revoked with it."""
    ledger = TwoReaders(founding())
    ledger.admit(0, 1)
    revocation = recovery(ledger, 0, (1,), None)
    assert ledger.offer(sign(revocation, WORKING_KEYS[0])) == ""
    assert ledger.offer(sign(recovery(ledger, 0, (2,), next_key(key(PERSON))), WORKING_KEYS[0])) == ""

    again = change(revocation, seq=ledger.seq(0))

    assert ledger.offer(sign(again, WORKING_KEYS[0])) == "bad_approval"


def test_an_approval_of_one_new_key_is_none_of_another() -> None:
    ledger = TwoReaders(founding())
    ledger.admit(0, 1)
    approvals = recovery(ledger, 0, (1,), next_key(key(PERSON))).approvals
    other = change(recovery(ledger, 0, (), key(77)), approvals=approvals)

    assert ledger.offer(sign(other, WORKING_KEYS[0])) == "bad_approval"


def test_an_owner_needs_no_approval_and_has_none() -> None:
    ledger = TwoReaders(founding())
    ledger.admit(0, 1)
    own = change(recovery(ledger, 0, (), next_key(key(PERSON))), author=PERSON, seq=1)
    with_approval = change(own, approvals=recovery(ledger, 0, (1,), next_key(key(PERSON))).approvals)

    assert ledger.offer(sign(with_approval, key(PERSON))) == "wrong_approvals"
    assert ledger.offer(sign(own, key(PERSON))) == ""
