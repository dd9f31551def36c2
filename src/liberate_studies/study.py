"""How a study is defined, run and written: typed rows in, a page, a figure and the rows as JSON out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from matplotlib.figure import Figure

from liberate.settings import to_toml
from liberate.timing import Progress
from liberate_studies.drawing import style
from liberate_studies.stamp import Stamp
from liberate_studies.worlds import QUICK_ITEMS, QUICK_USERS, World, corner, made_up, open_world

Rows = Mapping[str, Sequence[object]]
"""Everything that was measured: by the name of a table its rows, all of one frozen dataclass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRun:
    """What a study is given.

    Attributes:
        world: The ratings.
        is_quick: Whether to be done in seconds.
        scratch: A folder for what is not kept.
        out: A folder that outlives a study that is broken off; for one that goes on from there.
        progress: Told each step.
    """

    world: World
    is_quick: bool
    scratch: Path
    out: Path
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResults:
    """What a study found.

    Attributes:
        rows: All numbers.
        page: Markdown, paragraph by paragraph: a title, what was done, the tables, what they say.
        figure: The same to look at.
        alt: The figure in one sentence, for those who cannot see it.
    """

    rows: Rows
    page: Sequence[str]
    figure: Figure
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFiles:
    """What a study has left.

    Attributes:
        name: What its page is called: the study's name, and the data set's where that is not the study's own.
        text: What the page says, without figure and stamp.
        table: The page, Markdown.
        figure: The figure, SVG.
        rows: All numbers with their stamp, JSON.
    """

    name: str
    text: str
    table: Path
    figure: Path
    rows: Path


def write_study(
    name: str,
    measure: Callable[[StudyRun], StudyResults],
    *,
    source: str,
    data: str | None,
    is_quick: bool,
    out: Path,
    progress: Progress,
) -> StudyFiles:
    """Run a study, and write what it found into a folder."""
    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "ratings.parquet"
    world = made_up(path) if is_quick and data is None else open_world(data or source)
    # A name, never a path: the command has to work on other machines, and their paths are nobody's business.
    other = None if data is None or world.name == source else world.name
    if is_quick and data is not None:
        world = corner(world, QUICK_USERS, QUICK_ITEMS, path)
    command = f"liberate study {name}" + (f" --data {other}" if other else "") + (" --quick" if is_quick else "")
    stamp = Stamp.begin(command)

    with tempfile.TemporaryDirectory(prefix="liberate-study-") as scratch, style():
        run = StudyRun(world=world, is_quick=is_quick, scratch=Path(scratch), out=out, progress=progress)
        results = measure(run)
        files = StudyFiles(
            name=name if other is None else f"{name}-{other}",
            text="\n\n".join(results.page),
            table=out / "table.md",
            figure=out / "figure.svg",
            rows=out / "results.json",
        )
        results.figure.savefig(files.figure, format="svg", metadata={"Date": None, "Creator": None})

    stamp = stamp.end(time.perf_counter() - begin)
    files.table.write_text(f"{files.text}\n\n![{results.alt}]({files.figure.name})\n\n{stamp}\n", "utf-8")
    files.rows.write_bytes(msgspec.json.format(msgspec.json.encode({"stamp": stamp, **results.rows})) + b"\n")
    (out / "settings.toml").write_text(to_toml(world.job().settings), "utf-8")
    return files
