"""What it costs to take a run again from the uploads it kept, beside the training; prints one JSON object.

    python -m benchmarks.recompute [--data ml-1m] [--set privacy.mode=plain]... [--folder FOLDER]

`training` is from opening the federation to the last model on the ledger, keeping uploads included; `without_keeping`
is the same without that. `recompute` opens, adds up and solves again; `verify` is the ledger's own check before it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.__main__ import source
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs.folder import load_run
from liberate.runs.train import train
from liberate.settings import resolve
from liberate.tracing.influence import trace_influence
from liberate.tracing.recompute import recompute


def main() -> None:
    """Train, take the run again, and print what each cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        print(json.dumps(_measure(arguments.data, arguments.assignments, folder), indent=1))


def _measure(data: str, assignments: Sequence[str], folder: Path) -> dict[str, object]:
    fixed = [f"data.source={source(data)}", *assignments]
    load = os.getloadavg()[0]
    plain = train(resolve(None, fixed, environment={}), folder / "plain")
    settings = resolve(None, [*fixed, "ledger.keep_uploads=true"], environment={})
    trained = train(settings, folder / "kept")
    run = load_run(folder / "kept")
    begin = time.perf_counter()
    audit = verify_ledger(run.ledger_folder)
    verified = time.perf_counter()
    taken = recompute(run)
    ended = time.perf_counter()
    figures: dict[str, object] = {
        "data": data,
        "settings": list(assignments),
        "load": [load, os.getloadavg()[0]],
        "rounds": trained.rounds,
        "uploads_mb": sum(path.stat().st_size for path in run.uploads_folder.iterdir()) // 10**6,
        "without_keeping_s": round(plain.seconds, 2),
        "training_s": round(trained.seconds, 2),
        "verify_s": round(verified - begin, 2),
        "recompute_s": round(ended - verified, 2),
        "speed": round(trained.seconds / (ended - begin), 2),
        "sound": audit.ok and not taken.findings and {each.outcome for each in taken.rounds} == {"follows"},
    }
    if not run.settings.is_masked:
        begin = time.perf_counter()
        trace_influence(run, run.record.first_version + trained.rounds)
        figures["harm_of_one_round_s"] = round(time.perf_counter() - begin, 2)
    return figures


if __name__ == "__main__":
    main()
