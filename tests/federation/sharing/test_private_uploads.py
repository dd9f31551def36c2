"""A private upload has nothing of anybody but its participant, whatever copies there are and a coordinator says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from liberate.arrays import Int64Array
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.federation.sharing.acceptance import accept_copy
from liberate.federation.sharing.consents import ConsentTerms, give_consent
from liberate.federation.sharing.handover import hand_over
from liberate.federation.store.device_rows import Device
from liberate.federation.wire.round_messages import RoundAnswer, RoundInputs, decode_upload, encode_message
from liberate.federation.wire.transport import Request, Transport
from liberate.ledger.format.entries import decode_entry, decode_record
from liberate.ledger.format.records import Update
from liberate.ledger.queries.usable_copies import usable_copies
from liberate.privacy.gaussian import DistributedGaussian
from liberate.randomness import SimulatedRandomness
from tests.federation.hostile import Wrap, editing, overhearing
from tests.worlds import Stage, World, low_rank_ratings, stage

N_USERS, N_ITEMS = 6, 9
RATINGS = low_rank_ratings(N_USERS, N_ITEMS)
SCALE = RatingScale(low=1.0, step=1.0, n_levels=5)
RANDOM = SimulatedRandomness(7, b"copies")

Handed = tuple[int, int, int]
"""Sender and recipient, as users of the data set, and how many copies the consent allows."""

PRIVATE = {
    "local": World(ratings=RATINGS, mode="local", epsilon=6.0),
    "distributed": World(
        ratings=RATINGS, mode="distributed", masks=False, noise_placement="on_sum", min_participation=1.0
    ),
    "masked": World(ratings=RATINGS, mode="distributed", batch_size=2, min_participation=1.0),
}


def device_of(scene: Stage, user: int) -> Device:
    device = scene.federation.devices.find(user_id=f"u{user}")
    assert device is not None
    return device


def let_share(scene: Stage, handed: Sequence[Handed]) -> None:
    """Let copies be handed over and received."""
    ledger, devices = scene.federation.ledger, scene.federation.devices
    for sender, recipient, most in handed:
        to = device_of(scene, recipient).enrolled_number
        terms = ConsentTerms(recipients=(to,), expiry=1000, max_shares=most)
        position = give_consent(ledger, devices, device_of(scene, sender), terms, RANDOM)
        consent = decode_entry(ledger.entry(position)).leaf_hash
        _, sealed = hand_over(ledger, devices, device_of(scene, sender), consent, to, SCALE, RANDOM)
        accept_copy(ledger, devices, device_of(scene, recipient), sealed, N_ITEMS)
    scene.host.reload()


def naming_copies(scene: Stage) -> Wrap:
    """Let the coordinator tell each device, before its upload, to use every copy that it holds."""

    def tell(requests: list[Request]) -> list[Request]:
        state = scene.federation.ledger.state
        if requests[0].phase not in ("update", "mask") or state.open_round is None:
            return requests
        current, numbers = state.open_round.record.number, [request.recipient for request in requests]
        inputs = [
            Request(number, "inputs", encode_message(RoundInputs(round=current, shares=shares)))
            for number, shares in usable_copies(state, numbers, 1).items()
        ]
        return [*inputs, *requests]

    return editing(requests=tell)


def overheard_round(scene: Stage) -> list[RoundAnswer]:
    """Carry out a round whose coordinator names copies; return all answers that leave devices."""
    answers: list[RoundAnswer] = []

    def wrap(transport: Transport) -> Transport:
        return overhearing(answers)(naming_copies(scene)(transport))

    with scene.edited(wrap):
        scene.learn(1)
    return answers


def used(answers: Sequence[RoundAnswer]) -> int:
    return sum(len(decode_record(answer.entry, Update).shares) for answer in answers)


@pytest.mark.parametrize("mode", PRIVATE)
def test_a_device_uses_no_copy_in_a_private_upload_even_when_told_to(tmp_path: Path, mode: str) -> None:
    with stage(tmp_path, PRIVATE[mode]) as scene:
        let_share(scene, [(0, 1, 1), (2, 1, 2), (0, 3, 2)])
        answers = overheard_round(scene)

    assert len(answers) >= N_USERS
    assert used(answers) == 0


def test_in_an_open_round_the_same_copies_are_used(tmp_path: Path) -> None:
    with stage(tmp_path, World(ratings=RATINGS)) as scene:
        let_share(scene, [(0, 1, 1), (2, 1, 2), (0, 3, 2)])

        assert used(overheard_round(scene)) > 0


def test_a_private_upload_is_the_same_with_and_without_copies(tmp_path: Path) -> None:
    uploads = []
    for name, handed in (("with", [(0, 1, 1), (2, 1, 2)]), ("without", [])):
        with stage(tmp_path / name, PRIVATE["distributed"]) as scene:
            let_share(scene, handed)
            uploads.append([answer.upload for answer in overheard_round(scene)])

    assert uploads[0] == uploads[1]


# --- property: whatever is shared, one participant moves the sum by one clip -----------------------------------------

CLIP = PRIVATE["distributed"].mechanism
handed_over = st.lists(
    st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_USERS - 1), st.integers(1, 3)).filter(
        lambda handed: handed[0] != handed[1]
    ),
    max_size=5,
    unique_by=lambda handed: handed[:2],
)


def without(ratings: Ratings, user: int) -> Ratings:
    """Replace a person's ratings by nothing."""
    kept = ratings.users() != user
    return Ratings.from_triples(ratings.users()[kept], ratings.items[kept], ratings.values[kept], N_USERS, N_ITEMS)


def sum_of_uploads(ratings: Ratings, handed: Sequence[Handed]) -> Int64Array:
    """Return the sum of the clipped uploads of one round, before any noise, in grid units."""
    world = World(ratings=ratings, mode="distributed", masks=False, noise_placement="on_sum", min_participation=1.0)
    with TemporaryDirectory() as folder, stage(Path(folder), world) as scene:
        let_share(scene, handed)
        shape = scene.learning.statistic.shape
        total = np.zeros(shape[:2], np.int64)
        for answer in overheard_round(scene):
            upload = decode_upload(answer.upload, shape=shape, is_dense=False)
            np.add.at(total, upload.indices, upload.rows)
        return total


@given(handed_over, st.integers(0, N_USERS - 1))
@settings(max_examples=8, deadline=None, phases=(Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck))
def test_a_sender_moves_the_sum_by_one_clip_at_most(handed: list[Handed], person: int) -> None:
    """Without a person's ratings there are none of its copies; the accountant counts one clip for that."""
    assert isinstance(CLIP, DistributedGaussian)
    theirs = [copy for copy in handed if copy[0] != person]

    moved = sum_of_uploads(RATINGS, handed) - sum_of_uploads(without(RATINGS, person), theirs)

    assert (moved.astype(object) ** 2).sum() <= CLIP.clip_units**2
