"""Nobody's data is used outside a consent that lives: what does not follow is refused, what does changes the state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from liberate.crypto.merkle import root
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import to_ranges
from liberate.ledger.format.records import Record
from liberate.ledger.format.refusals import Reason
from liberate.ledger.format.sharing_records import UsedCopy
from liberate.ledger.rules.principal import Principal
from liberate.ledger.trace.completeness import prove_completeness, verify_completeness
from tests.ledger.rules.test_transition import CROWD, SHARING_REASONS, Make, change, refused, snapshot
from tests.ledger.world import (
    AUDITOR,
    COORDINATOR,
    HOST,
    LOG_VKEY,
    World,
    bare_world,
    create,
    digest,
    reopen,
    write_sharing,
)

OPEN, TWO = None, 2_000_000_000


def as_it_is(world: World) -> World:
    return world


def granted(world: World) -> World:
    """3 lets 4 and the pool have two open copies."""
    world.add(world.consent(3, COORDINATOR, 4, max_shares=2))
    return world


def perturbed(world: World) -> World:
    """3 lets 4 and 5 have copies of one base at ε = 2, and has given 4 one."""
    world.add(world.consent(3, 4, 5, epsilon_nano=TWO))
    world.add(world.share(3, 4, epsilon_nano=TWO))
    return world


def handed_over(world: World) -> World:
    granted(world).add(world.share(3, 4))
    return world


def received(world: World) -> World:
    handed_over(world).add(world.receipt(4, 3))
    return world


def used_up(world: World) -> World:
    handed_over(world).add(world.share(3, COORDINATOR))
    return world


def expired(world: World) -> World:
    """3's consent held for the block that has ended, with a share for 4, and does not for the next one."""
    world.add(world.consent(3, COORDINATOR, 4, expiry=world.state.height + 1))
    world.add(world.share(3, 4))
    world.add(world.block())
    return world


def expired_in_pool(world: World) -> World:
    world.add(world.consent(3, COORDINATOR, expiry=world.state.height + 1))
    world.add(world.share(3, COORDINATOR))
    world.add(world.receipt(COORDINATOR, 3))
    world.add(world.round(spend=0))
    world.add(world.block())
    return world


def in_round(world: World) -> World:
    """3 has given 4 a share; a round is open."""
    received(world).add(world.round(spend=0))
    return world


def in_private_round(world: World) -> World:
    """3 has given 4 a share; a round is open whose answers spend."""
    received(world).add(world.round())
    return world


def in_pool_round(world: World) -> World:
    """3 has given 4 and the pool a share; a round is open."""
    world.hand_over(3, 4)
    world.hand_over(3, COORDINATOR)
    world.add(world.round(spend=0))
    return world


def in_used_pool(world: World) -> World:
    in_pool_round(world).add(world.pool(3))
    return world


def taken_back_in_round(world: World) -> World:
    in_round(world).add(world.withdrawal(3, world.consents(3)[0]))
    return world


def left_in_round(world: World) -> World:
    in_round(world).add(world.withdrawal(3))
    return world


def revoked_in_round(world: World) -> World:
    in_pool_round(world).add(world.revocation(3))
    return world


def left(world: World) -> World:
    """3 has withdrawn everything."""
    received(world).add(world.withdrawal(3))
    return world


def receiver_left(world: World) -> World:
    """4, for whom 3 has a share, has withdrawn everything."""
    handed_over(world).add(world.withdrawal(4))
    return world


def requested(world: World) -> World:
    left(world).add(world.erasure(3))
    return world


def share_of(world: World, sender: int = 3, recipient: int = 4) -> Digest:
    """A share, even if its consent has been withdrawn since."""
    found = world.shares(sender, recipient)
    return found[-1] if found else digest("withdrawn")


def bogus_receipt(world: World, author: int) -> Record:
    """A receipt for a share that was withdrawn."""
    other = handed_over(bare_world(auditors=True))
    return change(other.receipt(4, 3), author=author, seq=world.seq(author))


CASES: list[tuple[Reason, str, Callable[[World], World], Make]] = [
    ("wrong_role", "a host consents", as_it_is, lambda w: w.consent(HOST, 3)),
    ("too_late", "expires at once", as_it_is, lambda w: w.consent(3, 4, expiry=w.state.height)),
    ("wrong_recipient", "for nobody", as_it_is, lambda w: w.consent(3)),
    ("wrong_recipient", "for oneself", as_it_is, lambda w: w.consent(3, 3, 4)),
    ("wrong_recipient", "for a host", as_it_is, lambda w: w.consent(3, HOST)),
    ("wrong_recipient", "for a number that nobody has", as_it_is, lambda w: w.consent(3, 99)),
    ("wrong_recipient", "for somebody who left", left, lambda w: w.consent(4, 3)),
    ("wrong_recipient", "for a revoked key", revoked_in_round, lambda w: w.consent(4, 3)),
    (
        "wrong_recipient",
        "disorder",
        as_it_is,
        lambda w: change(w.consent(3, 4), recipients=to_ranges([5]) + to_ranges([4])),
    ),
    ("too_many_participants", "for a crowd", as_it_is, lambda w: change(w.consent(3, 4), recipients=CROWD)),
    ("no_consent", "withdraws another's", granted, lambda w: w.withdrawal(4, w.consents(3)[0])),
    ("no_consent", "withdraws nothing", as_it_is, lambda w: w.withdrawal(3, digest("no consent"))),
    ("no_consent", "withdraws twice", taken_back_in_round, lambda w: w.withdrawal(3, share_consent())),
    ("no_consent", "shares without one", as_it_is, lambda w: w.share(3, 4)),
    ("no_consent", "shares under another's", granted, lambda w: change(w.share(3, 5), author=5, seq=w.seq(5))),
    ("no_consent", "shares under one taken back", taken_back_in_round, lambda w: w.share(3, 4)),
    ("consent_expired", "shares too late", expired, lambda w: w.share(3, COORDINATOR)),
    ("wrong_recipient", "shares with another", granted, lambda w: w.share(3, 5)),
    ("wrong_recipient", "shares with somebody who left", receiver_left, lambda w: w.share(3, 4, base="again")),
    ("consent_used_up", "a third share of two", used_up, lambda w: w.share(3, 4)),
    ("wrong_spend", "one base, two epsilons", perturbed, lambda w: w.share(3, 5, epsilon_nano=1)),
    ("wrong_spend", "one base, open and not", perturbed, lambda w: w.share(3, 5, epsilon_nano=OPEN)),
    ("consent_exceeded", "another base", perturbed, lambda w: w.share(3, 5, base="other", epsilon_nano=1)),
    ("consent_exceeded", "an open base", perturbed, lambda w: w.share(3, 5, base="other", epsilon_nano=OPEN)),
    ("share_without_consent", "a receipt of nothing", granted, lambda w: bogus_receipt(w, 4)),
    ("share_without_consent", "a receipt of another's", handed_over, lambda w: change(w.receipt(4, 3), sender=5)),
    ("share_without_consent", "a receipt too late", expired, lambda w: w.receipt(4, 3)),
    ("wrong_recipient", "another's receipt", handed_over, lambda w: w.receipt(5, 3, share_of(w))),
    ("wrong_copy", "something else arrived", handed_over, lambda w: change(w.receipt(4, 3), copy=digest("other"))),
    ("second_receipt", "received twice", received, lambda w: w.receipt(4, 3)),
    ("share_without_consent", "uses no share", in_round, lambda w: w.update(4, (3, digest("share")))),
    ("share_without_consent", "uses another's share", in_round, lambda w: w.update(4, (5, share_of(w)))),
    ("share_without_consent", "uses a share taken back", taken_back_in_round, lambda w: w.update(4, (3, share_of(w)))),
    ("share_without_consent", "uses a share of who left", left_in_round, lambda w: w.update(4, (3, share_of(w)))),
    ("share_without_consent", "a revoked sender's", revoked_in_round, lambda w: w.update(4, (3, share_of(w)))),
    (
        "share_without_consent",
        "uses an expired share",
        lambda w: expired_in_round(w),
        lambda w: w.update(4, (3, share_of(w))),
    ),
    ("not_received", "uses a share on the way", lambda w: on_the_way(w), lambda w: w.update(4, (3, share_of(w)))),
    ("not_received", "uses a share for another", in_round, lambda w: w.update(5, (3, share_of(w)))),
    (
        "not_received",
        "a host for others",
        in_round,
        lambda w: change(w.update(HOST, (3, share_of(w))), participants=to_ranges([5])),
    ),
    ("private_shares", "a private answer names a copy", in_private_round, lambda w: w.update(4, (3, share_of(w)))),
    (
        "private_shares",
        "a host's private answer names a copy",
        in_private_round,
        lambda w: change(w.update(HOST, (3, share_of(w))), participants=to_ranges([4])),
    ),
    ("wrong_shares", "a share twice", in_round, lambda w: w.update(4, (3, share_of(w)), (3, share_of(w)))),
    ("wrong_shares", "disorder", in_round, lambda w: change(w.update(4), shares=disorder(w))),
    ("closed_round", "a pool for no round", as_it_is, lambda w: bogus_pool(w)),
    ("other_coordinator", "another's round", lambda w: second_coordinator(w), lambda w: by_second(w)),
    ("wrong_round", "another entry", in_pool_round, lambda w: change(w.pool(3), round_hash=digest("other"))),
    ("wrong_participants", "a pool of nobody", in_pool_round, lambda w: w.pool()),
    (
        "wrong_participants",
        "a pool in disorder",
        in_pool_round,
        lambda w: change(w.pool(), participants=to_ranges([4]) + to_ranges([3])),
    ),
    ("too_many_participants", "a pool of a crowd", in_pool_round, lambda w: change(w.pool(), participants=CROWD)),
    ("second_pool", "named twice", in_used_pool, lambda w: w.pool(3)),
    ("not_received", "a pool of who shared with 4", in_round, lambda w: w.pool(3)),
    ("not_received", "a pool of who shared nothing", in_pool_round, lambda w: w.pool(3, 5)),
    ("not_received", "a pool of no one", in_pool_round, lambda w: w.pool(99)),
    ("not_received", "a pool of a revoked key", revoked_in_round, lambda w: w.pool(3)),
    ("not_received", "a pool of expired shares", expired_in_pool, lambda w: w.pool(3)),
    ("withdrawn", "ratings of who left", left, lambda w: w.dataset(3)),
    ("withdrawn", "a consent of who left", left, lambda w: w.consent(3, 4)),
    ("withdrawn", "a share of who left", left, lambda w: w.share(3, 4)),
    ("withdrawn", "leaves twice", left, lambda w: w.withdrawal(3)),
    ("withdrawn", "a receipt of who left", receiver_left, lambda w: w.receipt(4, 3)),
    ("withdrawn", "an answer of who left", left_in_round, lambda w: w.update(3)),
    ("withdrawn", "a host answers for who left", left_in_round, lambda w: w.update(HOST)),
    ("withdrawn", "a cohort with who left", left, lambda w: change(w.round(), cohort=to_ranges([3, 4]))),
    ("wrong_erasure", "for another", left, lambda w: change(w.erasure(3), author=4, seq=w.seq(4))),
    ("wrong_erasure", "a participant's word", requested, lambda w: change(w.erasure_report(3), author=4, seq=w.seq(4))),
    ("wrong_erasure", "a coordinator asks for somebody", left, lambda w: change(w.erasure_report(3), report=None)),
    ("not_withdrawn", "asks before leaving", as_it_is, lambda w: w.erasure(3)),
    ("second_request", "asks twice", requested, lambda w: w.erasure(3)),
    ("not_requested", "nobody asked", left, lambda w: w.erasure_report(3)),
    ("not_requested", "nobody at all", requested, lambda w: w.erasure_report(99)),
    ("wrong_participants", "told nobody", requested, lambda w: w.erasure_report(3, notified=(99,))),
    (
        "wrong_participants",
        "answers of who was not told",
        requested,
        lambda w: w.erasure_report(3, notified=(4,), confirmed=(5,)),
    ),
    ("wrong_version", "a model to come", requested, lambda w: w.erasure_report(3, models=(1,))),
    ("wrong_version", "a model before the first", requested, lambda w: w.erasure_report(3, models=(0,))),
    ("wrong_role", "a coordinator looks up", as_it_is, lambda w: change(w.disclosure(3), author=2, seq=9)),
    ("wrong_participants", "looks nobody up", as_it_is, lambda w: w.disclosure()),
    ("wrong_participants", "looks a host up", as_it_is, lambda w: w.disclosure(HOST)),
    ("wrong_participants", "looks up who is not there", as_it_is, lambda w: w.disclosure(99)),
]


def share_consent() -> Digest:
    """The consent that `granted` makes, in every world."""
    return granted(bare_world(auditors=True)).consents(3)[0]


def expired_in_round(world: World) -> World:
    world.add(world.consent(3, 4, expiry=world.state.height + 1))
    world.add(world.share(3, 4))
    world.add(world.receipt(4, 3))
    world.add(world.round(spend=0))
    world.add(world.block())
    return world


def on_the_way(world: World) -> World:
    handed_over(world).add(world.round(spend=0))
    return world


def disorder(world: World) -> tuple[UsedCopy, ...]:
    hashes = sorted([share_of(world), digest("other")], reverse=True)
    return tuple(UsedCopy(sender=3, share=hash) for hash in hashes)


def bogus_pool(world: World) -> Record:
    return change(in_pool_round(bare_world(auditors=True)).pool(3), seq=world.seq(COORDINATOR))


def second_coordinator(world: World) -> World:
    world.add(world.enrol(8, "coordinator"))
    return in_pool_round(world)


def by_second(world: World) -> Record:
    return change(world.pool(3), author=8, seq=1)


@pytest.mark.parametrize(
    ("reason", "prepare", "make"), [pytest.param(r, p, m, id=f"{r}: {name}") for r, name, p, m in CASES]
)
def test_what_does_not_follow_is_refused(reason: Reason, prepare: Callable[[World], World], make: Make) -> None:
    world = prepare(bare_world(auditors=True))

    assert refused(world, make(world)) == reason


def test_a_private_update_that_names_copies_is_refused() -> None:
    """Though the copy was received under a consent that lives: the sender is in the round once already."""
    world = received(bare_world(auditors=True))
    world.add(world.round())

    assert refused(world, world.update(4, (3, share_of(world)))) == "private_shares"
    world.add(world.update(4))


def test_every_reason_of_sharing_is_exercised() -> None:
    assert {reason for reason, *_ in CASES} >= SHARING_REASONS


# --- what is accepted, and what it changes ---------------------------------------------------------------------------


def leaf(world: World, number: int) -> Principal:
    return Principal.decode(world.state.principals[number].encode())


def test_the_state_leaf_says_which_consents_live() -> None:
    world = bare_world(auditors=True)
    for recipient in (4, 5, COORDINATOR):
        world.add(world.consent(3, recipient))
    first, second, third = world.consents(3)

    assert leaf(world, 3).consents == root([first, second, third])
    world.add(world.withdrawal(3, second))
    assert leaf(world, 3).consents == root([first, third])
    world.add(world.withdrawal(3, first), change(world.withdrawal(3, third), seq=world.seq(3) + 1))
    assert leaf(world, 3).consents == bytes(32)


def test_the_state_leaf_says_who_has_left_and_asked_to_be_forgotten() -> None:
    world = received(bare_world(auditors=True))
    world.add(world.withdrawal(3))

    assert (leaf(world, 3).has_withdrawn, leaf(world, 3).is_to_be_forgotten) == (True, False)
    assert leaf(world, 3).consents == bytes(32)
    world.add(world.erasure(3))
    world.add(world.revocation(3))
    assert (leaf(world, 3).is_revoked, leaf(world, 3).is_to_be_forgotten) == (True, True)
    assert not world.state.sharing.consents
    assert not world.state.sharing.shares


def test_one_base_is_spent_once_however_many_copies_are_made() -> None:
    world = perturbed(bare_world(auditors=True))
    world.add(world.share(3, 5, epsilon_nano=TWO))
    world.add(change(world.share(3, 4, epsilon_nano=TWO), copy=digest("a second copy")))

    assert len(world.state.sharing.shares) == 3


def test_different_bases_add_up_to_the_limit() -> None:
    world = bare_world(auditors=True)
    world.add(world.consent(3, 4, epsilon_nano=5))
    world.add(world.share(3, 4, base=1, epsilon_nano=2), change(world.share(3, 4, base=2, epsilon_nano=3), seq=20))

    assert refused(world, world.share(3, 4, base=3, epsilon_nano=1)) == "consent_exceeded"
    world.add(world.share(3, 4, base=1, epsilon_nano=2))


def test_a_consent_holds_for_the_block_of_its_expiry() -> None:
    world = bare_world(auditors=True)
    world.add(world.consent(3, 4, expiry=world.state.height + 2))
    world.add(world.block())
    world.add(world.share(3, 4))
    world.add(world.receipt(4, 3))
    world.add(world.round(spend=0))

    world.add(world.update(4, (3, share_of(world))))


def test_withdrawing_one_consent_leaves_the_others() -> None:
    world = bare_world(auditors=True)
    share = world.hand_over(3, 4)
    world.hand_over(3, 5)
    world.add(world.withdrawal(3, world.consents(3)[1]))
    world.add(world.round(spend=0))

    world.add(world.update(4, (3, share)), world.update(3))
    assert not world.shares(3, 5)


def test_a_model_may_use_what_was_accepted_before_its_author_left() -> None:
    world = in_used_pool(bare_world(auditors=True))
    world.add(world.update(3), world.update(4, (3, share_of(world))))
    world.add(world.withdrawal(3))
    world.add(world.model())

    assert world.state.open_round is None


def test_a_masked_round_keeps_who_left_after_the_answer() -> None:
    world = bare_world(auditors=True)
    world.add(world.round(masked=True))
    world.exchange_keys()
    world.add(world.update(3), world.update(4))
    world.add(world.withdrawal(3))
    world.add(world.survivors(3, 4))
    world.add(world.model())


def test_a_pool_may_span_records() -> None:
    world = bare_world(auditors=True)
    for sender in (3, 4, 5):
        world.hand_over(sender, COORDINATOR)
    world.add(world.round(spend=0))
    world.add(world.pool(4))
    world.add(world.pool(3, 5))

    assert world.open_round.pool == {3, 4, 5}


def test_a_host_uses_the_shares_of_those_it_answers_for() -> None:
    world = in_round(bare_world(auditors=True))
    before = leaf(world, 3).about_count
    world.add(change(world.update(HOST, (3, share_of(world))), participants=to_ranges([4, 5])))

    assert leaf(world, 3).about_count == before + 1
    assert world.open_round.answered.keys() == {4, 5}


def test_what_was_done_may_be_said_again_when_more_have_answered() -> None:
    world = requested(bare_world(auditors=True))
    world.add(world.erasure_report(3, notified=(4, COORDINATOR)))
    world.add(world.erasure_report(3, notified=(4, COORDINATOR), confirmed=(4,)))

    assert leaf(world, 4).about_count == 7


def test_whoever_left_may_change_the_key_still() -> None:
    world = left(bare_world(auditors=True))

    world.add(world.new_key(3))


def test_an_auditor_may_look_up_who_has_left() -> None:
    world = left(bare_world(auditors=True))
    world.add(world.disclosure(3, 4))

    assert leaf(world, AUDITOR).sequence == 1


# --- on a log --------------------------------------------------------------------------------------------------------


def test_histories_of_people_who_share_are_complete(tmp_path: Path) -> None:
    ledger = create(tmp_path, auditors=True)
    write_sharing(ledger)

    for number in range(len(ledger.state.principals)):
        proof = prove_completeness(ledger, number)
        verify_completeness(proof, LOG_VKEY)
        assert len(proof.entries) == ledger.state.principals[number].about_count
    ledger.close()


def test_reopening_gives_the_same_state_after_every_block(tmp_path: Path) -> None:
    ledger = create(tmp_path, auditors=True)
    write_sharing(ledger)
    entries = [decode_entry(data) for _, data in ledger.entries()]
    ledger.close()
    again = create(tmp_path / "again", auditors=True)
    for entry in entries[1:]:
        if entry.record.kind == "block":
            continue
        again.append([entry.data])
        expected = snapshot(again.state)
        again.close()
        again = reopen(tmp_path / "again")

        assert snapshot(again.state) == expected
    again.close()


def test_nothing_of_a_copy_stands_in_clear() -> None:
    """Of what a sender decides, the ledger shows recipients, limits, the ε and commitments of 32 bytes."""
    world = bare_world(auditors=True)
    clear = {"origin", "author", "seq", "v"}
    consent, share = world.consent(3, 4), world.share(3, 4)

    assert set(consent.__struct_fields__) - clear == {"recipients", "expiry", "max_shares", "epsilon_nano", "terms"}
    assert set(share.__struct_fields__) - clear == {"consent", "recipient", "base", "epsilon_nano", "copy"}


def test_a_pool_of_enough_people_makes_a_model_without_answers() -> None:
    """Answers cost nothing there; a person who answers and is pooled counts once."""
    world = bare_world(auditors=True)
    world.hand_over(3, COORDINATOR)
    world.add(change(world.round(), account="none", spend_nano=0, minimum=2))
    world.add(world.pool(3))
    world.add(change(world.update(3), account="none", spend_nano=0))
    assert refused(world, world.model()) == "too_few_updates"

    world.add(change(world.update(4), account="none", spend_nano=0))
    world.add(world.model())

    world.add(change(world.round(), account="none", spend_nano=0))
    world.add(world.pool(3))
    world.add(world.model())


@pytest.mark.parametrize("masked", [False, True])
def test_a_pool_counts_nothing_where_answers_carry_noise(masked: bool) -> None:
    world = bare_world(auditors=True)
    world.hand_over(3, COORDINATOR)
    world.add(change(world.round(masked=masked), minimum=2))
    world.add(world.pool(3))
    if masked:
        world.exchange_keys()
    world.add(world.update(4))

    is_short = refused(world, world.survivors(4) if masked else world.model())
    assert is_short == ("too_few_participants" if masked else "too_few_updates")
