"""The command line: words typed by a person become calls.

One module per command noun; heavy libraries are imported inside the commands that need them, so that
`liberate --help` answers at once.
"""

from __future__ import annotations

from liberate.cli.app import main

__all__ = ["main"]
