"""Paste the real output of commands into the documentation, or check what is there.

A block is a comment that names a command, followed by a fence:

    <!-- run: liberate data show ml-100k -->
    ```console
    $ liberate data show ml-100k
    ...
    ```

Three marks say what `--check` compares:

- `run-check`: every byte.
- `run`: all but what is another's at each run or on each processor: seconds, digests and roots. These take long, so
  `--check` leaves them out without `--all`.
- `run-cpu`: likewise, and no number. Noise that follows from a ledger's root differs with the processor's arithmetic.

The commands of a file run in order in one empty folder, with a terminal 100 columns wide and without colours.

    python scripts/update_docs.py [--check [--all]] [FILE.md ...]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

REPOSITORY = Path(__file__).resolve().parents[1]
COLUMNS = 100
TIME_LIMIT_S = 1800

Mark = Literal["run", "run-check", "run-cpu"]
"""What of a block's output is the same whenever and wherever the command is run."""

BLOCK = re.compile(
    rf"<!-- (?P<mark>{'|'.join(get_args(Mark))}): (?P<command>.+?) -->\n```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


# Digests and roots in base64, whole or cut short by a table, in hexadecimal, and seconds.
VOLATILE = (
    (re.compile(r"[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{20}\.\.\.|\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"(?<=^seconds)( +)[\d.]+", re.MULTILINE), " SECONDS"),
)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e-?\d+)?")


@dataclass(frozen=True, slots=True)
class Block:
    """A command in a document and the output shown below it.

    Attributes:
        mark: What of the output is always the same.
        command: As typed in a shell.
        body: What the fence holds, prompt line included.
        begin, end: Where the body is in the document, in characters.
    """

    mark: Mark
    command: str
    body: str
    begin: int
    end: int


def find_blocks(text: str) -> list[Block]:
    """Return the marked blocks of a document, in order."""
    marks: dict[str, Mark] = {mark: mark for mark in get_args(Mark)}
    return [
        Block(marks[match["mark"]], match["command"], match["body"], match.start("body"), match.end("body"))
        for match in BLOCK.finditer(text)
    ]


def comparable(mark: Mark, body: str) -> str:
    """Return the part of a block's body that is the same at each run, with white space that follows widths undone."""
    if mark == "run-check":
        return body

    for pattern, word in VOLATILE:
        body = pattern.sub(word, body)
    if mark == "run-cpu":
        body = NUMBER.sub("NUMBER", body)
    return re.sub(r" +", " ", body)


def run(command: str, folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """Run a command in a folder and return what its fence should hold.

    Args:
        command: As typed in a shell.
        folder: Where it runs.
        variables: What the environment has besides our own.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIBERATE_")}
    environment |= {
        "COLUMNS": str(COLUMNS),
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        **(variables or {}),
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIME_LIMIT_S,
        check=True,
    )
    output = done.stdout.replace(str(folder), ".").replace(str(Path.home()), "~")
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]

    return "\n".join([f"$ {command}", *lines, ""])


def updated(text: str, folder: Path) -> str:
    """Return the document with the output of every block as it is now."""
    pieces, end = [], 0
    for block in find_blocks(text):
        pieces += [text[end : block.begin], run(block.command, folder)]
        end = block.end
    return "".join([*pieces, text[end:]])


def stale_commands(text: str, folder: Path) -> list[str]:
    """Return the commands under `run-check` whose output is not what the document says."""
    return [b.command for b in find_blocks(text) if b.mark == "run-check" and run(b.command, folder) != b.body]


def differences(text: str, folder: Path, variables: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Run every block of a document; return what is shown and what was printed, where they do not agree."""
    pairs = [
        (comparable(block.mark, block.body), comparable(block.mark, run(block.command, folder, variables)))
        for block in find_blocks(text)
    ]
    return [(shown, printed) for shown, printed in pairs if shown != printed]


def documents() -> list[Path]:
    """Return the documents that may hold blocks."""
    built = REPOSITORY / "docs" / "_build"
    pages = (page for page in (REPOSITORY / "docs").rglob("*.md") if built not in page.parents)
    return [REPOSITORY / "README.md", *sorted(pages)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Update or check; return 0, or 1 when something is stale."""
    parser = argparse.ArgumentParser(description="Paste the real output of commands into the documentation.")
    parser.add_argument("--check", action="store_true", help="compare what never changes, write nothing")
    parser.add_argument("--all", action="store_true", help="with --check: compare every block, some minutes long")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.md", help="default: README.md and all of docs/")
    options = parser.parse_args(arguments)

    stale = []
    for document in options.files or documents():
        text = document.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            if options.check and options.all:
                stale += [f"{document}:\n{shown}\n{printed}" for shown, printed in differences(text, Path(folder))]
            elif options.check:
                stale += [f"{document}: {command}" for command in stale_commands(text, Path(folder))]
            elif (new := updated(text, Path(folder))) != text:
                document.write_text(new, encoding="utf-8")
                print(f"updated {document}")
    print("\n".join(stale), end="\n" if stale else "")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
