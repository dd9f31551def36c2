"""Paste the real output of commands into the documentation, or check what is there.

A block is a comment that names a command, followed by a fence:

    <!-- run: liberate data show ml-100k -->
    ```console
    $ liberate data show ml-100k
    ...
    ```

`run` marks output that differs from run to run; `run-check` output that never does, which `--check` compares.
The commands of a file run in order in one empty folder, with a terminal 100 columns wide and without colours.

    python scripts/update_docs.py [--check] [FILE.md ...]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
COLUMNS = 100
TIME_LIMIT_S = 1800

BLOCK = re.compile(
    r"<!-- (?P<mark>run|run-check): (?P<command>.+?) -->\n```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A command in a document and the output that stands there.

    Attributes:
        command: As typed in a shell.
        body: What the fence holds, prompt line included.
        begin, end: Where the body stands in the document, in characters.
        is_repeatable: Whether the command gives the same output every time.
    """

    command: str
    body: str
    begin: int
    end: int
    is_repeatable: bool


def find_blocks(text: str) -> list[Block]:
    """Give the marked blocks of a document, in order."""
    return [
        Block(m["command"], m["body"], m.start("body"), m.end("body"), m["mark"] == "run-check")
        for m in BLOCK.finditer(text)
    ]


def run(command: str, folder: Path) -> str:
    """Run a command in a folder and give what its fence should hold.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIBERATE_")}
    environment |= {
        "COLUMNS": str(COLUMNS),
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
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
    """Give the document with the output of every block as it is now."""
    pieces, end = [], 0
    for block in find_blocks(text):
        pieces += [text[end : block.begin], run(block.command, folder)]
        end = block.end
    return "".join([*pieces, text[end:]])


def stale_commands(text: str, folder: Path) -> list[str]:
    """Give the repeatable commands whose output is not what the document says."""
    return [b.command for b in find_blocks(text) if b.is_repeatable and run(b.command, folder) != b.body]


def documents() -> list[Path]:
    """Give the documents that may hold blocks."""
    built = REPOSITORY / "docs" / "_build"
    pages = (page for page in (REPOSITORY / "docs").rglob("*.md") if built not in page.parents)
    return [REPOSITORY / "README.md", *sorted(pages)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Update or check; give 0, or 1 when something is stale."""
    parser = argparse.ArgumentParser(description="Paste the real output of commands into the documentation.")
    parser.add_argument("--check", action="store_true", help="compare repeatable output, write nothing")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.md", help="default: README.md and all of docs/")
    options = parser.parse_args(arguments)

    stale = []
    for document in options.files or documents():
        text = document.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            if options.check:
                stale += [f"{document}: {command}" for command in stale_commands(text, Path(folder))]
            elif (new := updated(text, Path(folder))) != text:
                document.write_text(new, encoding="utf-8")
                print(f"updated {document}")
    print("\n".join(stale), end="\n" if stale else "")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
