"""The report of a run."""
from __future__ import annotations
from pathlib import Path
from liberate.runs.folder import Run

def write(run: Run) -> Path:
    return run.folder
