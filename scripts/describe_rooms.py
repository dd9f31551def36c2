"""Write the table of rooms in docs/explanation/architecture.md from the packages' docstrings, or check what is there.

python -m scripts.describe_rooms [--check]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.generated_page import replaced, write_or_check

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "explanation" / "architecture.md"
SOURCE = REPOSITORY / "src"
BEGIN, END = "<!-- rooms: begin, written by scripts/describe_rooms.py -->\n", "<!-- rooms: end -->\n"


def main() -> int:
    """Write the page, or with `--check` return 1 if it is not what the code says."""
    return write_or_check(PAGE, described)


def described(page: str) -> str:
    """Return the page with the rooms as they are now."""
    return replaced(page, BEGIN, END, rooms())


def rooms() -> Iterator[str]:
    """Every package with what it is for, and a line for each of its modules."""
    for package in sorted(path.parent for path in SOURCE.rglob("__init__.py")):
        name = ".".join(package.relative_to(SOURCE).parts)
        yield f"\n### {name}\n"
        yield docstring(package / "__init__.py") + "\n"

        modules = [path for path in sorted(package.glob("*.py")) if not path.stem.startswith("_")]
        if modules:
            yield "| module | what lives there |\n|---|---|"
            yield from (f"| `{path.stem}` | {summary(path)} |" for path in modules)


def docstring(path: Path) -> str:
    """The docstring of a module; a room without one is a fault."""
    found = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    if found is None:
        raise SystemExit(f"{path} has no docstring")
    return found


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    return " ".join(docstring(path).partition("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
