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
from liberate.timing import Progress
from liberate_studies.drawing import OPEN, PRIVATE, panels
from liberate_studies.findings import TIMES, Row, Study, StudyResults, free_lines, header, number, table
from liberate_studies.rungs import Learned, Ledgered, fastest, federated, judge, ledgered, require_same, warm_up
from liberate_studies.worlds import World, free

_MODES = {"plain": ("privacy.mode=plain",), "local, ε = 8": ("privacy.mode=local", "privacy.epsilon=8")}

_PARTS = {
    "learning": (("fit", "sum", "solve"), OPEN),
    "grid and noise": (("noise",), PRIVATE),
    "hashes": (("hash",), "#bcdccd"),
    "signatures": (("sign", "verify"), "#7fb8a0"),
    "database": (("store",), "#2a7f62"),
}
_REST = "everything else"


@dataclass(frozen=True, slots=True)
class Pair:
    """The same run without and with the ledger; their models are the same to the bit.

    Attributes:
        name: The mode.
        without: The arithmetic alone.
        recorded: On the ledger.
        metrics: Of the last model.
        byte_count: Size of the ledger on disk.
    """

    name: str
    without: Learned
    recorded: Ledgered
    metrics: Metrics
    byte_count: int

    @property
    def ratio(self) -> float:
        """Time with the ledger over time without."""
        return self.recorded.seconds / self.without.seconds


def measure(world: World, name: str, settings: Sequence[str], scratch: Path, progress: Progress) -> Pair:
    """Run a job with and without the ledger, verify the ledger, and compare the models.

    Raises:
        LiberateError: The ledger does not verify, or the models differ.
    """
    job = world.job(*settings)
    warm_up(job)
    progress(f"{name}, on the ledger")
    recorded = fastest(lambda: ledgered(job, Path(mkdtemp(dir=scratch), "run")))
    audit = verify_ledger(recorded.run.ledger_folder, key=recorded.run.verifier_key)
    if not (audit.ok and audit.trusted):
        first = audit.findings[0]
        raise LiberateError(f"the ledger of this study does not verify: {first.place}: {first.reason}")
    progress(f"{name}, without ledger")
    without = fastest(lambda: federated(job, recorded.first_root))
    require_same(without, recorded.recorded)
    size = sum(file.stat().st_size for file in recorded.run.ledger_folder.iterdir())
    return Pair(name, without, recorded, judge(job, without.models[-1]), size)


def same_models(pair: Pair) -> str:
    """Say that the models are the same, and which they are."""
    return (
        f"Without and with the ledger all {pair.without.rounds} models are the same to the bit; "
        f"SHA-256 of the last: `{pair.without.digests[-1].hex()}`."
    )


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    baselines = free(world, world.job())
    pairs = [measure(world, name, settings, scratch, progress) for name, settings in _MODES.items()]
    sides = [
        (pair, side, found) for pair in pairs for side, found in (("without", pair.without), ("with", pair.recorded))
    ]
    rows: list[Row] = [
        {
            "series": f"{pair.name}, {side} ledger",
            "part": part,
            "seconds": seconds,
            "rmse": pair.metrics.rmse,
            "ndcg_at_10": pair.metrics.ndcg_at_10,
            "rounds": found.rounds,
        }
        for pair, side, found in sides
        for part, seconds in _parts(found).items()
    ]
    lines = free_lines(baselines, 6)
    for pair, side, found in sides:
        ratio = "-" if side == "without" else f"{pair.ratio:.1f}"
        accuracy = [number(pair.metrics.rmse), number(pair.metrics.ndcg_at_10)]
        lines.append([f"{pair.name}, {side} ledger", str(found.rounds), *accuracy, number(found.seconds, 2), ratio])
    page = "\n\n".join(
        [
            header("Federated on the ledger", world),
            table(["", "rounds", "RMSE", "NDCG@10", "seconds", "with / without"], lines),
            "\n".join(f"- {pair.name}: {_facts(pair)}" for pair in pairs),
            "The time with the ledger begins before the first key is drawn and holds enrolment, messages, commitments, "
            "a signature of each participant in each round and its check, and the database.",
            TIMES,
        ]
    )
    alt = "Seconds by part of the work, without and with the ledger, in the modes plain and local."
    return StudyResults(rows=rows, page=page, figure=_figure([(p, s, _parts(f)) for p, s, f in sides]), alt=alt)


def _facts(pair: Pair) -> str:
    result = pair.recorded.result
    return (
        f"{result.entry_count:,} entries in {pair.byte_count / 1e6:.1f} MB, "
        f"{pair.byte_count / result.entry_count:,.0f} bytes an entry; root `{result.root}`; every signature, rule and "
        f"derived row verified again.\n  {same_models(pair)}"
    )


def _parts(found: Learned) -> dict[str, float]:
    """Give seconds by named part, and what is left."""
    parts = {name: sum(found.parts.get(key, 0.0) for key in keys) for name, (keys, _) in _PARTS.items()}
    return parts | {_REST: found.seconds - sum(parts.values())}


def _figure(sides: Sequence[tuple[Pair, str, Mapping[str, float]]]) -> Figure:
    figure, (axes,) = panels(2.7, 1, 1)
    colours = {name: colour for name, (_, colour) in _PARTS.items()} | {_REST: "#d9dadc"}
    places = [0.0, 1.0, 2.5, 3.5]
    for place, (pair, side, parts) in zip(places, sides, strict=True):
        left = 0.0
        for name, seconds in parts.items():
            axes.barh(place, seconds, left=left, color=colours[name], height=0.8, label=name if place == 0 else None)
            left += seconds
        text = f" {left:.2f} s" if side == "without" else f" {left:.2f} s, {pair.ratio:.1f} times"
        axes.text(left, place, text, va="center", fontsize=8.5)
    axes.set_yticks(places, [f"{pair.name}, {side}" for pair, side, _ in sides])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()
    axes.set(xlabel="seconds, on one machine", title="Time without and with the ledger")
    axes.margins(x=0.18)
    axes.set_xlim(0, None)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=8.5, handlelength=1, columnspacing=1.2)
    return figure


STUDY = Study(default_source="ml-100k", run=_run)
