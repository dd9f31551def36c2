"""What scripts do that write a page of the documentation, or a part of one, from the code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def write_or_check(path: Path, described: Callable[[str], str]) -> int:
    """Write a page as it is now, or with `--check` return 1 if it is not what the code says.

    Args:
        path: The page.
        described: From the page as it stands to the page as it is now.
    """
    page = path.read_text("utf-8") if path.exists() else ""
    new = described(page)
    if "--check" in sys.argv[1:]:
        return int(page != new)

    path.write_text(new, "utf-8")
    return 0


def replaced(page: str, begin: str, end: str, lines: Iterable[str]) -> str:
    """Return a page with other lines between two marks, each a line of its own."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return before + begin + "\n".join(lines) + "\n" + end + after
