"""Run the studies on real ratings and put their pages, figures and numbers into docs/studies/.

    python scripts/update_studies.py [--data STUDY=SOURCE]... [--keep FOLDER] [STUDY ...]

Takes hours for all studies. SOURCE is a data set's name, or its path where it is not to be found by its name.
Each study has a page for each data set; that of another one than the study's own is called STUDY-DATA.
FOLDER keeps what was measured; a long study that was broken off goes on from it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from liberate import run_study
from liberate_studies import STUDIES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "studies"

SOURCES: dict[str, Sequence[str | None]] = {name: [None] for name in STUDIES} | {"poisoning": [None, "ml-1m"]}
"""The data sets that each study has a page for; None is the study's own."""


def pages() -> set[str]:
    """Return the name of every page that this script writes."""
    return {name if source is None else f"{name}-{source}" for name, all in SOURCES.items() for source in all}


def update(study: str, source: str | None, keep: Path | None) -> None:
    """Run one study, and copy its page, its figure and its rows."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if keep is None else keep / study / Path(source or "own").name
        found = run_study(study, data=source, out=folder, progress=lambda text: print(f"{study}: {text}", flush=True))

        page = found.table.read_text("utf-8").replace("](figure.svg)", f"]({found.name}.svg)")
        (FOLDER / f"{found.name}.md").write_text(page, "utf-8")
        (FOLDER / f"{found.name}.svg").write_bytes(found.figure.read_bytes())
        (FOLDER / f"{found.name}.json").write_bytes(found.rows.read_bytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Update the pages of the studies named, all by default."""
    parser = argparse.ArgumentParser(description="Put the studies' pages, figures and numbers into docs/studies/.")
    parser.add_argument("--data", action="append", default=[], metavar="STUDY=SOURCE", help="instead of its data sets")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep what was measured")
    parser.add_argument("names", nargs="*", metavar="STUDY", help="default: all")
    options = parser.parse_args(arguments)

    named = defaultdict[str, list[str]](list)
    for text in options.data:
        study, _, source = text.partition("=")
        named[study].append(source)
    for study in options.names or STUDIES:
        for source in named[study] or SOURCES[study]:
            update(study, source, options.keep)


if __name__ == "__main__":
    main()
