"""Long studies, one trained federation after the other: what was measured is kept, and is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

import msgspec

from liberate.files import write_atomic
from liberate.runs.folder import Run, load_run
from liberate.runs.train import train
from liberate.settings import to_toml
from liberate_studies.study import StudyRun
from liberate_studies.worlds import Job

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Cell(Generic[R]):
    """One federation that a study asks for.

    Attributes:
        words: Says which it is.
        job: What to learn.
        read: Returns the row of the trained run.
    """

    words: str
    job: Job
    read: Callable[[Run], R]

    @property
    def key(self) -> str:
        """Name of the settings and ratings: a row that was kept under it need not be measured again."""
        return sha256((to_toml(self.job.settings) + self.job.dataset.digest).encode()).hexdigest()[:16]

    def measure(self, scratch: Path) -> R:
        """Train the federation, and return its row."""
        with TemporaryDirectory(dir=scratch) as folder:
            train(self.job.settings, Path(folder, "run"))
            return self.read(load_run(Path(folder, "run")))


def measure_cells(study: StudyRun, cells: Sequence[Cell[R]], kind: type[R]) -> list[R]:
    """Return the rows of all cells. They are kept after every federation, so a study that is broken off goes on."""
    kept = study.out / "measured.json"
    known = msgspec.json.decode(kept.read_bytes(), type=dict[str, object]) if kept.exists() else {}
    for count, cell in enumerate(cells, start=1):
        if cell.key not in known:
            study.progress(f"{count} of {len(cells)}: {cell.words}")
            known[cell.key] = msgspec.to_builtins(cell.measure(study.scratch))
            write_atomic(kept, msgspec.json.encode(known))
    return [msgspec.convert(known[cell.key], kind) for cell in cells]
