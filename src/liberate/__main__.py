"""`python -m liberate`: the command line."""

from __future__ import annotations

from liberate.cli import main

main()
