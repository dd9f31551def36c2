"""One masked round: what it costs each participant, the coordinator and the wire.

A Gram over 1,200 items by 100 participants, 20 neighbours each, some of whom vanish after their keys were agreed on.
Noise is the simulation's, and timed apart. Seconds of the round are on the wall; what a person and the coordinator need
is CPU time of the thread that works, which other work on the machine changes little. Prints one JSON object.

    python benchmarks/secure_aggregation.py [--people 100] [--items 1200] [--vanish 0.05]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

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
from liberate.privacy.secure_aggregation import NEIGHBOURS
from liberate.randomness import RandomSource
from liberate.runs.federation_access import open_ledger
from liberate.timing import Stopwatch
from liberate.units import to_nano

RATED = 165
"""Ratings of each participant: the mean of MovieLens-1M."""


class ProcessorWatch(Stopwatch):
    """Adds up CPU seconds of the thread instead of what a clock on the wall says."""

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        begin = time.thread_time()
        try:
            yield
        finally:
            self.seconds[part] += time.thread_time() - begin


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--items", type=int, default=1200)
    parser.add_argument("--vanish", type=float, default=0.05)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), arguments.participants, arguments.items, arguments.vanish)))


def measure(folder: Path, n_participants: int, n_items: int, vanish: float) -> dict[str, object]:
    """Carry out a round and give its figures."""
    statistic, ratings = Gram(n_items), random_ratings(n_participants, n_items)
    mechanism = distributed(
        clip_norm=1.0,
        share_of_budget=1.0,
        epsilon=8.0,
        delta=1e-5,
        n_participants=n_participants,
        honest_fraction=0.9,
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
    parameters, stopwatch = GenesisParameters(origin="benchmark.invalid/masks"), ProcessorWatch()
    with open_for_run(access, parameters, participation, batch_size=1000, stopwatch=stopwatch) as federation:
        host = Host(federation.devices, federation.policy, n_items, access.source.randomness(b"run"), stopwatch)
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
        stopwatch.seconds.clear()
        begin = time.perf_counter()
        coordinator.run_round(base, stage, run=1, rounds=1)
        seconds = time.perf_counter() - begin
    return figures(wire, stopwatch, seconds, n_participants, statistic.shape[0])


def figures(wire: Wire, stopwatch: Stopwatch, seconds: float, n_participants: int, size: int) -> dict[str, object]:
    """Put what was measured beside the unmasked upload.

    A person's `mask` phase holds checks, opening of shares, masks, commitment, signing and storing; fitting and noise,
    which any upload takes, are left out of it.
    """
    computing = stopwatch.seconds["fit"] + stopwatch.seconds["noise"]
    phases = {phase: spent / wire.replies[phase] for phase, spent in wire.seconds.items()}
    phases["mask"] -= computing / wire.replies["mask"]
    return {
        "people": n_participants,
        "numbers": size,
        "neighbours": min(NEIGHBOURS, n_participants - 1),
        "uploads": wire.replies["mask"],
        "round_s": round(seconds, 2),
        "noise_cpu_s": round(stopwatch.seconds["noise"], 2),
        "solve_cpu_s": round(stopwatch.seconds["solve"], 2),
        "coordinator_unmask_cpu_s": round(stopwatch.seconds["unmask"] - wire.seconds["unmask"], 2),
        "ms_per_person": {phase: round(1e3 * spent, 2) for phase, spent in phases.items()},
        "ms_per_person_all_phases": round(1e3 * sum(phases.values()), 2),
        "ms_per_person_masks_alone": round(1e3 * stopwatch.seconds["mask"] / wire.replies["mask"], 2),
        "sent_over_dense_upload": round(sum(wire.sent.values()) / (4 * size * wire.replies["mask"]), 4),
        "sent_bytes_per_person": {phase: count // wire.replies[phase] for phase, count in wire.sent.items()},
        "received_bytes_per_person": {phase: count // wire.replies[phase] for phase, count in wire.received.items()},
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def random_ratings(n_participants: int, n_items: int) -> Ratings:
    """Give everybody the same number of ratings of items drawn at random."""
    rng = np.random.default_rng(1)
    rated = min(RATED, n_items)
    users = np.repeat(np.arange(n_participants), rated)
    items = np.concatenate([np.sort(rng.permutation(n_items)[:rated]) for _ in range(n_participants)])
    return Ratings.from_triples(
        users, items, rng.integers(1, 6, users.size).astype(np.float32), n_participants, n_items
    )


if __name__ == "__main__":
    main()
