"""From a study's findings to the files that it leaves: all numbers, a figure, a page with the table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from liberate.model.metrics import Metrics
from liberate.settings import to_toml
from liberate.timing import Progress
from liberate_studies.drawing import style
from liberate_studies.rungs import REPEATS
from liberate_studies.worlds import QUICK_ITEMS, QUICK_USERS, SEED, World, corner, made_up, open_world

RESULTS = "results.parquet"
TIMES = f"Times are the best of {REPEATS} runs on one machine: their ratios count."

Cell = str | int | float | None
Row = Mapping[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResults:
    """What a study found.

    Attributes:
        rows: All numbers, one row per thing measured; rows may have different columns.
        page: Markdown: a title, what was done, the table, what it says.
        figure: The same to look at.
        alt: The figure in one sentence, for those who cannot see it.
    """

    rows: Sequence[Row]
    page: str
    figure: Figure
    alt: str


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """How good the models of one way of learning were, round by round.

    Attributes:
        name: What was done.
        colour: In figures.
        seconds: From the first step to the last model.
        metrics: Of every version, from 0.
    """

    name: str
    colour: str
    seconds: float
    metrics: Sequence[Metrics]

    @property
    def rounds(self) -> int:
        return len(self.metrics) - 1

    @property
    def round_seconds(self) -> float:
        return self.seconds / self.rounds

    @property
    def errors(self) -> list[float]:
        """RMSE of every version."""
        return [each.rmse for each in self.metrics]

    def rows(self) -> list[Row]:
        """Give a row per version."""
        return [
            {
                "series": self.name,
                "round": version,
                "rmse": each.rmse,
                "ndcg_at_10": each.ndcg_at_10,
                "seconds": version * self.round_seconds,
            }
            for version, each in enumerate(self.metrics)
        ]

    def cells(self) -> list[str]:
        """Write the outcome as cells of a table: name, rounds, RMSE, NDCG@10, seconds."""
        last = self.metrics[-1]
        return [self.name, str(self.rounds), number(last.rmse), number(last.ndcg_at_10), number(self.seconds, 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One experiment.

    Attributes:
        default_source: The data set it uses if none is named.
        run: Measures; takes the world, whether to be quick, a folder for what is not kept, and whom to tell each step.
        resumes: Whether that folder is the one of its findings, so that a study that was broken off goes on from the
            `results.parquet` in it.
    """

    default_source: str
    run: Callable[[World, bool, Path, Progress], StudyResults]
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class StudyFiles:
    """Where a study's findings lie.

    Attributes:
        table: The page with the table, Markdown.
        figure: The figure, SVG.
        text: What the page says.
    """

    table: Path
    figure: Path
    text: str


def write(study: Study, *, data: str | None, is_quick: bool, out: Path, progress: Progress) -> StudyFiles:
    """Run a study, and write what it found into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    world = _world(data, study.default_source, is_quick, out / "ratings.parquet")
    with tempfile.TemporaryDirectory(prefix="liberate-study-") as scratch, style():
        findings = study.run(world, is_quick, out if study.resumes else Path(scratch), progress)
        figure = out / "figure.svg"
        findings.figure.savefig(figure, format="svg", metadata={"Date": None, "Creator": None})
    page = out / "table.md"
    page.write_text(f"{findings.page}\n\n![{findings.alt}](figure.svg)\n", "utf-8")
    save_rows(findings.rows, out / RESULTS)
    (out / "settings.toml").write_text(to_toml(world.job().settings), "utf-8")
    return StudyFiles(page, figure, findings.page)


def save_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a Parquet file, whole or not at all; a column that a row lacks is null there."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    draft = path.with_suffix(".draft")
    pq.write_table(pa.table({c: [row.get(c) for row in rows] for c in columns}), draft)
    draft.replace(path)


def load_rows(path: Path) -> list[Row]:
    """Read rows that `save_rows` wrote; none if there is no file."""
    return [] if not path.exists() else pq.read_table(path).to_pylist()


def _world(data: str | None, default_source: str, is_quick: bool, path: Path) -> World:
    if not is_quick:
        return open_world(data or default_source)
    if data is None:
        return made_up(path)
    return corner(open_world(data), QUICK_USERS, QUICK_ITEMS, path)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table with aligned columns; all but the first are set to the right."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def number(value: float | None, digits: int = 4) -> str:
    """Write a number, or a dash for none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def header(title: str, world: World) -> str:
    """Begin a page: what it is about, and which ratings were used how."""
    return (
        f"# {title}\n\n{world.sentence}\n"
        f"A random fifth is held out; noise, keys and starting values follow from seed {SEED}."
    )


def free_rows(baselines: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Give what costs nothing as rows of results."""
    return [{"series": name, **found} for name, found in baselines.items()]


def free_lines(baselines: Mapping[str, Mapping[str, float]], n_columns: int) -> list[list[str]]:
    """Write what costs nothing as rows of a table: name, dash, RMSE, NDCG@10, dashes."""
    return [
        [name, "-", number(found.get("rmse")), number(found.get("ndcg_at_10"))] + ["-"] * (n_columns - 4)
        for name, found in baselines.items()
    ]
