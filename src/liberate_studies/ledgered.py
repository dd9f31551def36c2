"""The paper's third experiment: the same federation on the ledger, and what the ledger costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from matplotlib.figure import Figure

from liberate.errors import LiberateError
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.metrics import Metrics
from liberate_studies.drawing import OPEN, PRIVATE, name_bars, panels
from liberate_studies.rungs import TIMES, Learned, Ledgered, fastest, federated, judge, ledgered, require_same
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import free_lines, header, number, table
from liberate_studies.worlds import Job, free

_MODES = {"plain": ("privacy.mode=plain",), "local, ε = 8": ("privacy.mode=local", "privacy.epsilon=8")}

_REST = "everything else"
_PARTS = {
    "learning": ("fit", "sum", "solve"),
    "grid and noise": ("noise",),
    "hashes": ("hash",),
    "signatures": ("sign", "verify"),
    "database": ("store",),
    _REST: (),
}
_COLOURS = dict(zip(_PARTS, (OPEN, PRIVATE, "#bcdccd", "#7fb8a0", "#2a7f62", "#d9dadc"), strict=True))


@dataclass(frozen=True, slots=True)
class Pair:
    """The same run without and with the ledger; their models are the same to the bit.

    Attributes:
        without: The arithmetic alone.
        recorded: On the ledger.
    """

    without: Learned
    recorded: Ledgered

    @property
    def ratio(self) -> float:
        """Time with the ledger over time without."""
        return self.recorded.seconds / self.without.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one half of a pair took.

    Attributes:
        mode: The mode.
        side: `without` or `with` the ledger.
        rounds: Rounds of the run.
        parts: Seconds by part of the work.
        ratio: Its time over that without the ledger; None where it is that one.
        metrics: Of the last model.
    """

    mode: str
    side: str
    rounds: int
    parts: Mapping[str, float]
    ratio: float | None
    metrics: Metrics

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def measure(study: StudyRun, name: str, job: Job) -> Pair:
    """Run a job with and without the ledger, verify the ledger, and compare the models.

    Raises:
        LiberateError: The ledger does not verify, or the models differ.
    """
    federated(job)  # loads and compiles what is needed, so that no measured time holds it
    study.progress(f"{name}, on the ledger")
    recorded = fastest(lambda: ledgered(job, Path(mkdtemp(dir=study.scratch), "run")))
    audit = verify_ledger(recorded.run.ledger_folder, key=recorded.run.verifier_key)
    if not audit.ok:
        first = audit.findings[0]
        raise LiberateError(f"the ledger of this study does not verify: {first.place}: {first.reason}")

    study.progress(f"{name}, without ledger")
    without = fastest(lambda: federated(job, recorded.first_root))
    require_same(without, recorded.recorded)
    return Pair(without, recorded)


def same_models(pair: Pair) -> str:
    """Say that the models are the same, and which they are."""
    return (
        f"Without and with the ledger all {pair.without.rounds} models are the same to the bit; "
        f"SHA-256 of the last: `{pair.without.digests[-1].hex()}`."
    )


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    world = study.world
    baselines = free(world, world.job())
    pairs = {name: measure(study, name, world.job(*settings)) for name, settings in _MODES.items()}
    timings = [
        Timing(
            mode=name,
            side=side,
            rounds=learned.rounds,
            parts=_parts(learned),
            ratio=ratio,
            metrics=judge(world.job(*_MODES[name]), learned.models[-1]),
        )
        for name, pair in pairs.items()
        for side, learned, ratio in (("without", pair.without, None), ("with", pair.recorded, pair.ratio))
    ]

    return StudyResults(
        rows={"baselines": list(baselines.values()), "timings": timings},
        page=[
            header("Federated on the ledger", world),
            table(
                ["", "rounds", "RMSE", "NDCG@10", "seconds", "with / without"],
                [*free_lines(baselines.values(), 6), *map(_line, timings)],
            ),
            "\n".join(f"- {name}: {_facts(pair)}" for name, pair in pairs.items()),
            "The time with the ledger begins before the first key is drawn and holds enrolment, messages, commitments, "
            "a signature of each participant in each round and its check, and the database.",
            TIMES,
        ],
        figure=_figure(timings),
        alt="Seconds by part of the work, without and with the ledger, in the modes plain and local.",
    )


def _line(timing: Timing) -> list[str]:
    return [
        f"{timing.mode}, {timing.side} ledger",
        str(timing.rounds),
        number(timing.metrics.rmse),
        number(timing.metrics.ndcg_at_10),
        number(timing.seconds, 2),
        number(timing.ratio, 1),
    ]


def _facts(pair: Pair) -> str:
    result = pair.recorded.run.result
    size = sum(file.stat().st_size for file in pair.recorded.run.ledger_folder.iterdir())
    return (
        f"{result.entry_count:,} entries in {size / 1e6:.1f} MB, "
        f"{size / result.entry_count:,.0f} bytes an entry; root `{result.root}`; every signature, rule and "
        f"derived row verified again.\n  {same_models(pair)}"
    )


def _parts(learned: Learned) -> dict[str, float]:
    """Return seconds by named part, and what is left."""
    parts = {name: sum(learned.parts.get(key, 0.0) for key in keys) for name, keys in _PARTS.items()}
    return parts | {_REST: learned.seconds - sum(parts.values())}


def _figure(timings: Sequence[Timing]) -> Figure:
    figure, (axes,) = panels(2.7, 1, 1)
    places = [0.0, 1.0, 2.5, 3.5]
    for place, timing in zip(places, timings, strict=True):
        left = 0.0
        for name, seconds in timing.parts.items():
            axes.barh(place, seconds, left=left, color=_COLOURS[name], height=0.8, label=None if place else name)
            left += seconds
        times = "" if timing.ratio is None else f", {timing.ratio:.1f} times"
        axes.text(left, place, f" {left:.2f} s{times}", va="center", fontsize=8.5)

    name_bars(axes, [f"{timing.mode}, {timing.side}" for timing in timings], places)
    axes.margins(x=0.18)
    axes.set(xlabel="seconds, on one machine", title="Time without and with the ledger", xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=8.5, handlelength=1, columnspacing=1.2)
    return figure
