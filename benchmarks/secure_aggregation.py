"""One masked round: what it costs each participant, the coordinator and the wire.

A Gram over 1,200 items by 100 participants, some of whom vanish after their keys were agreed on.
Noise is the simulation's, and timed apart. Seconds of the round are on the wall; what a person and the coordinator need
is CPU time of the thread that works, which other work on the machine changes little.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, show
from liberate.data.ratings import Ratings
from liberate.federation.coordinator.config import RoundConfig, RoundMethod
from liberate.federation.coordinator.coordinator import Coordinator
from liberate.federation.participant.host import Host
from liberate.federation.session import FederationAccess
from liberate.federation.setup import RunParticipation, open_for_run
from liberate.federation.store.models import ModelStore
from liberate.federation.terms import GenesisParameters, ParticipationTerms
from liberate.federation.wire.transport import Reply, Request
from liberate.model.cooccurrence import Gram
from liberate.model.item_model import initial_items
from liberate.model.item_solvers import Ease
from liberate.privacy.gaussian_calibration import distributed
from liberate.randomness import RandomSource
from liberate.runs.federation_access import open_ledger
from liberate.runs.terms import counted_noise, founding_terms
from liberate.settings import Settings
from liberate.timing import Stopwatch
from liberate.units import to_nano

N_PARTICIPANTS, N_ITEMS, VANISH = 100, 1200, 0.05
RATED = 165
"""Ratings of each participant: the mean of MovieLens-1M."""


class Wire:
    """Carries requests to a host, adds up seconds and bytes by phase, and loses the uploads of some.

    Args:
        host: Answers for everybody.
        vanished: Who does not upload.
    """

    def __init__(self, host: Host, vanished: set[int]) -> None:
        self._host = host
        self._vanished = vanished
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.replies: defaultdict[str, int] = defaultdict(int)
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.received: defaultdict[str, int] = defaultdict(int)

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        phase = requests[0].phase
        if phase == "mask":
            requests = [request for request in requests if request.recipient not in self._vanished]
        begin = time.thread_time()
        replies = self._host.answer(requests)
        self.seconds[phase] += time.thread_time() - begin
        self.replies[phase] += len(replies)
        self.received[phase] += sum(len(request.body) for request in requests)
        self.sent[phase] += sum(len(reply.body) for reply in replies)
        return replies


def measure() -> Iterator[Figure]:
    """Carry out a round, and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _measure(Path(folder), N_PARTICIPANTS, N_ITEMS, VANISH)


def _measure(folder: Path, n_participants: int, n_items: int, vanish: float) -> Iterator[Figure]:
    statistic, ratings = Gram(n_items), random_ratings(n_participants, n_items)
    terms = founding_terms(Settings(), n_participants)
    mechanism = distributed(
        clip_norm=1.0,
        share_of_budget=1.0,
        epsilon=8.0,
        delta=1e-5,
        n_participants=n_participants,
        honest=counted_noise(terms, n_participants, 0.5),
        n_coordinates=statistic.shape[0],
        masked=True,
    )
    access = FederationAccess(folder=folder, source=RandomSource(1), open_ledger=open_ledger)
    participation = RunParticipation(
        run=1,
        user_ids=[str(user) for user in range(n_participants)],
        ratings=ratings,
        terms=ParticipationTerms(mechanism=mechanism.name, rho_nano=mechanism.spend_nano),
    )
    parameters = GenesisParameters(origin="benchmark.invalid/masks", terms=terms)
    stopwatch = Stopwatch(time.thread_time)
    with open_for_run(access, parameters, participation, batch_size=1000) as federation:
        host = Host(federation.devices, federation.policy, n_items, access.source.randomness(b"run"))
        wire = Wire(host, set(host.numbers[: int(n_participants * vanish)]))
        coordinator = Coordinator(
            writer=federation.coordinator,
            transport=wire,
            store=ModelStore(folder / "model"),
            config=RoundConfig(),
            noise_placement="per_upload",
            randomness=access.source.randomness(b"run"),
            publish=federation.publisher.publish,
        )
        base = initial_items(n_items, 1.0, 5.0, statistic="gram", noisy=True)
        stage = RoundMethod(statistic, mechanism, Ease(to_nano(mechanism.client_noise)))
        begin = time.perf_counter()
        with stopwatch.running():
            coordinator.run_round(base, stage, run=1, rounds=1)
        seconds = time.perf_counter() - begin
    yield from figures(wire, stopwatch, seconds, statistic.shape[0])


def figures(wire: Wire, stopwatch: Stopwatch, seconds: float, size: int) -> Iterator[Figure]:
    """Put what was measured beside the unmasked upload.

    A person's `mask` phase holds checks, opening of shares, masks, commitment, signing and storing; fitting and noise,
    which any upload takes, are left out of it.
    """
    uploads = wire.replies["mask"]
    phases = {phase: 1000 * spent / wire.replies[phase] for phase, spent in wire.seconds.items() if wire.replies[phase]}
    phases["mask"] -= 1000 * (stopwatch.seconds["fit"] + stopwatch.seconds["noise"]) / uploads
    sent, received = sum(wire.sent.values()), sum(wire.received.values())
    unmasking = stopwatch.seconds["unmask"] - wire.seconds["unmask"]

    yield Figure(name="the whole round, noise and solve included", value=seconds, unit="s", at_most=60)
    yield Figure(name="a participant's masks, all phases", value=sum(phases.values()), unit="ms", at_most=60)
    for phase, milliseconds in phases.items():
        yield Figure(name=f"a participant's phase `{phase}`", value=milliseconds, unit="ms")
    yield Figure(name="the mask streams themselves", value=1000 * stopwatch.seconds["mask"] / uploads, unit="ms")
    yield Figure(name="sent, beside the upload without masks", value=sent / (4 * size * uploads), at_most=1.05)
    yield Figure(name="received by a participant", value=received / wire.replies["mask"] / 1000, unit="kB")
    yield Figure(name="the coordinator undoes the masks of the sum", value=unmasking, unit="s")
    for part in ("noise", "solve"):
        yield Figure(name=f"{part}, CPU time", value=stopwatch.seconds[part], unit="s")


def random_ratings(n_participants: int, n_items: int) -> Ratings:
    """Return the same number of ratings for everybody, of items drawn at random."""
    rng = np.random.default_rng(1)
    rated = min(RATED, n_items)
    users = np.repeat(np.arange(n_participants), rated)
    items = np.concatenate([np.sort(rng.permutation(n_items)[:rated]) for _ in range(n_participants)])
    return Ratings.from_triples(
        users, items, rng.integers(1, 6, users.size).astype(np.float32), n_participants, n_items
    )


if __name__ == "__main__":
    show(measure())
