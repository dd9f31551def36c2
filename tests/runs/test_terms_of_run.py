"""Terms that change: what devices accept by themselves, what waits for their owners, and who is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from liberate.errors import FederationError, PrivacyError, SettingsError
from liberate.federation.store.devices import DeviceStore
from liberate.federation.terms import is_no_weaker
from liberate.ledger.format.records import TermsRecord, Update
from liberate.ledger.lookup import entries
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs.folder import Run, load_run
from liberate.runs.terms import counted_noise, founding_terms
from liberate.runs.terms_of_run import accept_terms, propose_terms, terms_in_force
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from tests.worlds import low_rank_ratings, write_csv

Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Settings for the first so many people."""

    def build(n_users: int, *assignments: str) -> Settings:
        path = tmp_path / f"{n_users}.csv"
        write_csv(path, low_rank_ratings(n_users=n_users, n_items=8))
        small = [
            "model.n_factors=2",
            "federation.rounds=1",
            "privacy.mode=local",
            "privacy.epsilon=4",
            "ledger.epsilon_limit=16",
        ]
        return resolve(None, [f"data.source={path}", *small, *assignments], environment={})

    return build


@pytest.fixture
def founded(tmp_path: Path, configure: Configure) -> Run:
    """A federation of twenty people, of whom two may collude."""
    train(configure(20), tmp_path / "first")
    return load_run(tmp_path / "first")


def answered(run: Run) -> set[int]:
    """Who has an update in the run's rounds."""
    with run.open() as reader:
        updates = list(entries(reader.ledger, Update))
    return {update.record.author for update in updates if update.position >= run.record.first_position}


def changes(run: Run) -> list[TermsRecord]:
    with run.open() as reader:
        return [entry.record for entry in entries(reader.ledger, TermsRecord)]


# --- at the founding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "colluders", "dropouts", "cohort", "counted"),
    [(3, 1, 0, 3, 2), (5, 1, 0, 4, 4), (20, 2, 1, 16, 17), (100, 10, 5, 80, 85), (943, 95, 47, 755, 800)],
)
def test_what_is_not_said_follows_from_the_people_expected(
    people: int, colluders: int, dropouts: int, cohort: int, counted: int
) -> None:
    terms = founding_terms(Settings(), people)

    assert (terms.max_participants, terms.max_colluders, terms.min_cohort) == (people, colluders, cohort)
    assert terms.dropouts(people) == dropouts
    assert counted_noise(terms, people, 0.5) == counted


def test_what_leaves_no_noise_is_refused_with_the_number_to_lower() -> None:
    with pytest.raises(PrivacyError, match="2 people") as refused:
        counted_noise(founding_terms(Settings(), 2), 2, 0.5)
    assert "privacy.max_colluders" in (refused.value.hint or "")

    with pytest.raises(PrivacyError, match="no device answers a round of fewer than 80"):
        counted_noise(founding_terms(Settings(), 100), 79, 0.5)


def test_numbers_that_contradict_each_other_are_refused() -> None:
    settings = resolve(None, ["privacy.max_colluders=11"], environment={})

    with pytest.raises(SettingsError, match="contradict"):
        founding_terms(settings, 10)


# --- what a device accepts by itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "is_accepted"),
    [
        ({"max_colluders": 3}, True),
        ({"max_colluders": 1}, False),
        ({"max_participants": 40}, False),
        ({"max_participants": 40, "max_colluders": 4}, True),
        ({"max_participants": 10, "min_cohort": 10, "max_colluders": 1}, False),
        ({"min_cohort": 15}, False),
        ({"min_cohort": 17}, True),
        ({"max_dropouts_permille": 200}, True),
        ({"max_dropouts_permille": 0, "max_late_dropouts_permille": 0}, True),
        ({"min_honest": 3}, True),
    ],
    ids=str,
)
def test_only_what_is_no_weaker_is_accepted_without_the_owner(numbers: dict[str, int], is_accepted: bool) -> None:
    terms = founding_terms(Settings(), 20)

    assert is_no_weaker(terms, terms)
    assert is_no_weaker(msgspec.structs.replace(terms, **numbers), terms) == is_accepted


# --- runs under new terms ---------------------------------------------------------------------------------------------


def test_more_people_than_were_agreed_to_are_not_enrolled(tmp_path: Path, founded: Run, configure: Configure) -> None:
    with pytest.raises(FederationError, match="with 5 newcomers 25 people") as refused:
        train(configure(25), tmp_path / "second", ledger=founded.folder)

    assert "federation.max_participants=25" in (refused.value.hint or "")
    assert changes(founded) == []


def test_more_people_and_as_many_more_colluders_are_accepted_by_everybody(
    tmp_path: Path, founded: Run, configure: Configure
) -> None:
    more = ("federation.max_participants=25", "privacy.max_colluders=3")

    train(configure(25, *more), tmp_path / "second", ledger=founded.folder)

    run = load_run(tmp_path / "second")
    assert [record.terms.max_participants for record in changes(run)] == [25]
    assert len(answered(run)) == 25
    assert terms_in_force(run).waiting == ()
    assert (run.read_terms().max_colluders, founded.read_terms().max_colluders) == (3, 2)
    assert verify_ledger(run.ledger_folder, key=run.verifier_key).ok


def test_whoever_does_not_accept_new_terms_takes_no_part(tmp_path: Path, founded: Run, configure: Configure) -> None:
    """A lower number of colluders promises less: it waits for the owners, and so do their people."""
    said: list[str] = []
    shown = propose_terms(founded, resolve(None, ["privacy.max_colluders=1"], environment={}))
    assert (shown.terms.max_colluders, shown.accepted, len(shown.waiting)) == (1, 0, 20)
    with pytest.raises(FederationError, match="only 0 of 20 people accept the terms"):
        train(configure(20), tmp_path / "second", ledger=founded.folder)

    for number in shown.waiting[:15]:
        accept_terms(founded, str(number))
    train(configure(20), tmp_path / "second", ledger=founded.folder, progress=said.append)

    run = load_run(tmp_path / "second")
    assert answered(run) == set(shown.waiting[:15])
    assert terms_in_force(run).waiting == shown.waiting[15:]
    assert any("5 of 20 people stay out" in line for line in said)
    assert len(run.record.left_out) == 5


def test_terms_that_are_in_force_are_not_written_again(tmp_path: Path, founded: Run) -> None:
    shown = propose_terms(founded, resolve(None, ["privacy.max_colluders=2"], environment={}))

    assert (shown.entry, shown.enrolled, changes(founded)) == (0, 20, [])


def test_what_was_accepted_stays_on_the_device_with_its_numbers(founded: Run) -> None:
    with founded.open() as reader:
        state = reader.ledger.state
        accepted = reader.devices.accepted_terms()

    assert {(each.hash, each.terms) for each in accepted.values()} == {(state.terms_hash, state.terms)}
    with DeviceStore(founded.devices_folder) as devices:
        devices.erase(0)
        assert 0 not in devices.accepted_terms()
