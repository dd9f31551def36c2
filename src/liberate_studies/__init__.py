"""The paper's experiments and ours, one module per study: settings -> run -> results.parquet, table and figure.

A study measures through `runs` and `federation` as they are; it has no learning, privacy or ledger of its own.
May import runs and everything below; knows nothing of the command line and reports.
"""

from __future__ import annotations

from pathlib import Path

from liberate.errors import SettingsError
from liberate.timing import Progress, silent
from liberate_studies import (
    attacks,
    centralised,
    federated,
    frontier,
    ladder,
    leaks,
    ledgered,
    paper,
    poisoning,
    sharing,
    unlearning,
)
from liberate_studies.findings import Study, StudyFiles, write

STUDIES: dict[str, Study] = {
    "centralised": centralised.STUDY,
    "federated": federated.STUDY,
    "ledgered": ledgered.STUDY,
    "ladder": ladder.STUDY,
    "paper": paper.STUDY,
    "frontier": frontier.STUDY,
    "attacks": attacks.STUDY,
    "leaks": leaks.STUDY,
    "poisoning": poisoning.STUDY,
    "sharing": sharing.STUDY,
    "unlearning": unlearning.STUDY,
}


def run_study(
    name: str,
    *,
    data: str | None = None,
    is_quick: bool = False,
    out: Path | str,
    progress: Progress = silent,
) -> StudyFiles:
    """Run a study, and write its table, its figure and all its numbers.

    Args:
        name: One of `STUDIES`.
        data: Name or path of a data set; the study's own if None.
        is_quick: A small world, in seconds: the densest corner of `data`, or a made-up world without `data`.
        out: Folder for `table.md`, `figure.svg`, `results.parquet` and `settings.toml`; made if absent.
        progress: Told each step.

    Raises:
        SettingsError: There is no such study.
        DataError: The ratings cannot be used.
    """
    if name not in STUDIES:
        raise SettingsError(f"no study {name!r}", hint="known are " + ", ".join(STUDIES))
    return write(STUDIES[name], data=data, is_quick=is_quick, out=Path(out), progress=progress)
