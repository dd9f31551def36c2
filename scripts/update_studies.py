"""Run the studies on real ratings and put their tables and figures into docs/studies/.

    python scripts/update_studies.py [--data STUDY=SOURCE]... [--keep FOLDER] [STUDY ...]

Takes some minutes. SOURCE is a name or a path, where a study's own data set is not to be found by its name.
FOLDER keeps all numbers; a study that goes on where it was broken off looks for them there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from liberate import run_study
from liberate_studies import STUDIES

PAGES = Path(__file__).resolve().parents[1] / "docs" / "studies"


def update(name: str, source: str | None, keep: Path | None) -> None:
    """Run one study and copy its page and its figure."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if keep is None else keep / name
        outcome = run_study(name, data=source, out=folder, progress=lambda text: print(f"{name}: {text}", flush=True))
        page = outcome.table.read_text("utf-8").replace("](figure.svg)", f"]({name}.svg)")
        PAGES.mkdir(exist_ok=True)
        (PAGES / f"{name}.md").write_text(f"{page}\nMade by `liberate study {name}`.\n", "utf-8")
        (PAGES / f"{name}.svg").write_bytes(outcome.figure.read_bytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Update the studies named, all by default."""
    parser = argparse.ArgumentParser(description="Put the studies' tables and figures into docs/studies/.")
    parser.add_argument("--data", action="append", default=[], metavar="STUDY=SOURCE", help="where to find ratings")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep all numbers")
    parser.add_argument("names", nargs="*", metavar="STUDY", help="default: all")
    options = parser.parse_args(arguments)
    sources = dict(text.split("=", 1) for text in options.data)
    for name in options.names or STUDIES:
        update(name, sources.get(name), options.keep)


if __name__ == "__main__":
    main()
