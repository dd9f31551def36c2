"""Rounds against the terms that a device agreed to: what a lying coordinator names counts for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from liberate.errors import PrivacyError
from liberate.federation.participant.noise_checks import check_shared_noise
from liberate.federation.participant.refusals import Refused
from liberate.federation.participant.secagg_checks import check_masks
from liberate.federation.store.terms_tables import AcceptedTerms
from liberate.federation.terms import mask_assumptions, smallest_sum, unknown_shares
from liberate.federation.wire.round_messages import RoundRequest
from liberate.identifiers import Digest
from liberate.ledger.format.parts import MechanismSpec, Terms
from liberate.ledger.format.records import Round
from liberate.privacy.accounting import privacy_loss
from liberate.privacy.gaussian import DistributedGaussian
from liberate.privacy.gaussian_calibration import distributed
from liberate.privacy.mask_parameters import MaskParameters, mask_parameters, strays, verify_masks
from liberate.runs.terms import counted_noise, founding_terms
from liberate.settings import Settings
from tests.federation.masked import round_record
from tests.federation.participant.test_hostile import answers, captured, reasons, with_record
from tests.worlds import Stage, World, low_rank_ratings, stage

N = 300
TERMS = founding_terms(Settings(), N)
"""300 people, of whom 30 may collude, a twentieth of a round may drop out, and 240 at least take part."""

FIRST = 3


def shares(cohort: int, honest: int, epsilon: float = 8.0) -> DistributedGaussian:
    """A masked mechanism for one round of a whole budget."""
    return distributed(
        clip_norm=1.0,
        share_of_budget=1.0,
        epsilon=epsilon,
        delta=1e-5,
        n_participants=cohort,
        honest=honest,
        n_coordinates=8,
        masked=True,
    )


def round_of(cohort: int, minimum: int, mechanism: DistributedGaussian) -> Round:
    """A round that counts on the mechanism."""
    record = round_record(range(FIRST, FIRST + cohort), minimum)
    spec = MechanismSpec(name=mechanism.name, parameters=mechanism.parameters)
    return msgspec.structs.replace(
        record, mechanism=spec, fraction_bits=mechanism.fraction_bits, spend_nano=mechanism.spend_nano
    )


def refusal(terms: Terms, cohort: int, minimum: int, mechanism: DistributedGaussian) -> str:
    """Why a device refuses a round; empty if it does not."""
    try:
        check_shared_noise(terms, round_of(cohort, minimum, mechanism), mechanism)
    except Refused as refused:
        return refused.reason
    return ""


def test_the_round_that_a_federation_plans_is_accepted() -> None:
    honest = counted_noise(TERMS, N, 0.5)

    assert (smallest_sum(TERMS, N), honest) == (285, 255)
    assert refusal(TERMS, N, 285, shares(N, honest)) == ""
    assert refusal(TERMS, 240, 228, shares(240, counted_noise(TERMS, 240, 0.5))) == ""


def test_a_cohort_of_a_victim_and_accomplices_is_refused(tmp_path: Path) -> None:
    """Nine tenths of thirty are honest, says the coordinator, and knows the noise of 29 of them."""
    announced = shares(30, 27)
    left = DistributedGaussian(**{**parameters(announced), "honest": 1})
    assert privacy_loss([(announced.event(), 1)], 1e-5).epsilon_pld == pytest.approx(8, rel=1e-3)
    assert (privacy_loss([(left.event(), 1)], 1e-5).epsilon_pld or 0) > 70

    assert refusal(TERMS, 30, 30, announced) == "cohort"
    with asked(tmp_path) as (scene, request):
        assert reasons(scene, claiming(scene, request, 30, 30, announced)) == {"cohort"}


def parameters(mechanism: DistributedGaussian) -> dict[str, int]:
    return {"fraction_bits": mechanism.fraction_bits, **mechanism.parameters}


def test_dropouts_and_colluders_do_not_share_one_slack() -> None:
    """Thirty of 300 may collude: whoever drops out beside them takes more noise away."""
    assert refusal(TERMS, N, 285, shares(N, 270)) == "honest"
    assert refusal(TERMS, N, 285, shares(N, 256)) == "honest"
    assert refusal(TERMS, N, N, shares(N, 270)) == "", "nobody drops out of a sum of all"


@pytest.mark.parametrize("minimum", [1, 255, 284])
def test_a_minimum_below_the_agreed_dropouts_is_refused(minimum: int) -> None:
    """However little noise the round counts on: a sum of fewer isolates people whom a larger one hides."""
    assert refusal(TERMS, N, minimum, shares(N, 1)) == "minimum"
    assert refusal(TERMS, N, 285, shares(N, 1)) == ""


def test_masks_that_may_cut_more_people_off_than_counted_are_refused() -> None:
    """They may keep every secret: so low a degree takes the noise of honest people out of the sum that is read."""
    cohort = 3_000
    terms = msgspec.structs.replace(
        TERMS, max_participants=cohort, max_dropouts_permille=100, max_late_dropouts_permille=100
    )
    planned, thinner = mask_parameters(mask_assumptions(terms, cohort)), MaskParameters(degree=20, threshold=20)
    mechanism, minimum = shares(cohort, counted_noise(terms, cohort, 0.5)), smallest_sum(terms, cohort)
    verify_masks(thinner, mask_assumptions(terms, cohort))

    check_masks(round_of(cohort, minimum, mechanism.masked_with(planned)), terms, cohort)
    with pytest.raises(Refused, match="may be cut off unread"):
        check_masks(round_of(cohort, minimum, mechanism.masked_with(thinner)), terms, cohort)


def test_noise_that_does_not_fit_the_modulus_is_refused() -> None:
    wide = DistributedGaussian(fraction_bits=0, clip_units=2**29, share_units=2**20, honest=255, masked=1)

    assert refusal(TERMS, N, 285, wide) == "grid"


def test_nobody_is_left_alone_with_their_noise() -> None:
    terms = msgspec.structs.replace(TERMS, max_colluders=270, min_honest=20)

    assert refusal(terms, N, 285, shares(N, 1)) == "honest"


def test_a_round_under_other_terms_is_refused(tmp_path: Path) -> None:
    """Also by whoever has accepted these: what the host holds rounds against are the terms in force."""
    other = AcceptedTerms(Digest(b"other".ljust(32)), msgspec.structs.replace(TERMS, max_colluders=0))
    with asked(tmp_path) as (scene, request):
        edited = with_record(scene, request, scene.federation.coordinator.key, terms=other.hash)
        assert reasons(scene, edited) == {"terms"}

        devices = scene.federation.devices
        devices.record_terms([device.slot for device in devices.devices()], other)
        scene.host.reload()

        assert reasons(scene, edited) == {"terms"}


def test_who_has_not_accepted_the_terms_answers_no_round(tmp_path: Path) -> None:
    """The host's policy has the terms in force; whose owner has accepted others refuses all the same."""
    with stage(tmp_path, World(ratings=low_rank_ratings(), mode="plain")) as scene:
        request, first = captured(scene), scene.host.numbers[0]
        slot = next(device.slot for device in scene.federation.devices.devices() if device.number == first)
        scene.federation.devices.record_terms([slot], AcceptedTerms(Digest(bytes(32)), TERMS))
        scene.host.reload()

        replies = answers(scene, request)

    assert [getattr(reply, "reason", "") for reply in replies] == ["terms", ""]


@contextmanager
def asked(folder: Path) -> Iterator[tuple[Stage, RoundRequest]]:
    """A federation of 60 people, of whom 6 may collude, and the request of a round that suits its terms."""
    terms = founding_terms(Settings(), 60)
    with stage(folder, World(ratings=low_rank_ratings(60), mode="distributed", terms=terms)) as scene:
        request = captured(scene)
        assert reasons(scene, with_record(scene, request, scene.federation.coordinator.key)) == {"model"}, "accepted"
        yield scene, request


def claiming(
    scene: Stage, request: RoundRequest, cohort: int, minimum: int, mechanism: DistributedGaussian
) -> RoundRequest:
    """The request for a round with another cohort, minimum and mechanism."""
    record = round_of(cohort, minimum, mechanism)
    return with_record(
        scene,
        request,
        scene.federation.coordinator.key,
        cohort=record.cohort,
        minimum=minimum,
        mechanism=record.mechanism,
        fraction_bits=record.fraction_bits,
        spend_nano=record.spend_nano,
    )


@given(
    terms=st.builds(
        lambda n, colluders, permille, cohort: msgspec.structs.replace(
            TERMS,
            max_participants=n,
            max_colluders=min(colluders, n),
            max_dropouts_permille=permille,
            max_late_dropouts_permille=permille,
            min_cohort=min(cohort, n),
        ),
        st.integers(3, 60),
        st.integers(0, 30),
        st.integers(0, 500),
        st.integers(1, 60),
    ),
    cohort=st.integers(1, 60),
    minimum=st.integers(1, 60),
    honest=st.integers(1, 60),
    share=st.integers(3, 5_000),
    clip=st.integers(1, 20_000),
)
def test_whatever_a_coordinator_names_an_accepted_sum_has_the_noise_it_is_priced_by(
    terms: Terms, cohort: int, minimum: int, honest: int, share: int, clip: int
) -> None:
    """For every survivor set of at least the minimum, and whichever of its members collude."""
    mechanism = DistributedGaussian(fraction_bits=0, clip_units=clip, share_units=share, honest=honest, masked=1)
    priced = honest * share**2

    if refusal(terms, cohort, minimum, mechanism) == "":
        assumptions = mask_assumptions(terms, cohort)
        cut_off = strays(mask_parameters(assumptions), assumptions)
        for survivors in range(minimum, cohort + 1):
            colluders = min(terms.max_colluders, survivors)
            assert (survivors - colluders - cut_off) * share**2 >= priced
            assert cohort - survivors <= terms.dropouts(cohort)
            assert survivors - colluders >= terms.min_honest


@given(cohort=st.integers(3, 300), invented=st.integers(0, 30), gone=st.integers(0, 30))
def test_inventing_people_never_takes_noise_from_those_who_are_real(cohort: int, invented: int, gone: int) -> None:
    """Invented people add no noise, and are colluders: whom a coordinator admits and names changes nothing."""
    terms = msgspec.structs.replace(TERMS, min_cohort=1)
    minimum = smallest_sum(terms, cohort)
    try:
        counted = unknown_shares(terms, cohort, minimum)
    except PrivacyError:
        assume(False)
    survivors = max(minimum, cohort - gone)

    real = survivors - min(invented, survivors)
    colluding = min(terms.max_colluders - invented, real)

    assert real - colluding >= counted
