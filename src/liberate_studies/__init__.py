"""The paper's experiments and ours, one module per study: settings -> run -> rows, page and figure.

A study measures through `runs` and `federation` as they are; it has no learning, privacy or ledger of its own.
May import runs and everything below; knows nothing of the command line and reports.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from liberate.errors import LiberateError, SettingsError
from liberate.timing import Progress, silent

if TYPE_CHECKING:
    from liberate_studies.study import StudyFiles

STUDIES = {
    "centralised": "ml-100k",
    "federated": "ml-100k",
    "ledgered": "ml-100k",
    "ladder": "ml-100k",
    "paper": "ml-1m",
    "frontier": "ml-1m",
    "attacks": "ml-100k",
    "leaks": "ml-1m",
    "poisoning": "ml-100k",
    "sharing": "ml-1m",
    "unlearning": "ml-1m",
}
"""The studies, each the function `run` of the module of its name, and the data set that it uses if none is named."""


def run_study(
    name: str,
    *,
    data: str | None = None,
    is_quick: bool = False,
    out: Path | str,
    progress: Progress = silent,
) -> StudyFiles:
    """Run a study, and write its page, its figure and all its numbers.

    Args:
        name: One of `STUDIES`.
        data: Name or path of a data set; the study's own if None.
        is_quick: A small world, in seconds: the densest corner of `data`, or a made-up world without `data`.
        out: Folder for `table.md`, `figure.svg`, `results.json` and `settings.toml`; made if absent.
        progress: Told each step.

    Raises:
        SettingsError: There is no such study.
        DataError: The ratings cannot be used.
        LiberateError: Matplotlib, which draws the figures, is not installed.
    """
    if name not in STUDIES:
        raise SettingsError(f"no study {name!r}", hint="known are " + ", ".join(STUDIES))

    try:
        from liberate_studies.study import write_study
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise LiberateError(
            "studies draw with matplotlib, which is not installed", hint="pip install 'liberate-rec[studies]'"
        ) from error

    run, source = import_module(f"liberate_studies.{name}").run, STUDIES[name]
    return write_study(name, run, source=source, data=data, is_quick=is_quick, out=Path(out), progress=progress)
