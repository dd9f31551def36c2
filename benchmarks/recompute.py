"""What it costs to take a run again from the uploads it kept, beside the training.

`training` is from opening the federation to the last model on the ledger, keeping uploads included. `recompute` opens,
adds up and solves again; `verify` is the ledger's own check before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Figure, data_sets, seconds, show
from liberate.ledger.verification.verify import verify_ledger
from liberate.runs.folder import load_run
from liberate.runs.train import train
from liberate.settings import resolve
from liberate.tracing.influence import trace_influence
from liberate.tracing.recompute import recompute


def measure(*assignments: str) -> Iterator[Figure]:
    """Train on MovieLens-1M in `plain`, or with other settings, take the run again, and compare."""
    ((_, source),) = data_sets("ml-1m")
    fixed = [f"data.source={source}", "privacy.mode=plain", *assignments]
    with TemporaryDirectory() as folder:
        plain = train(resolve(None, fixed, environment={}), Path(folder, "plain"))
        yield Figure(name="training without keeping uploads", value=plain.seconds, unit="s")
        settings = resolve(None, [*fixed, "ledger.keep_uploads=true"], environment={})
        trained, run = train(settings, Path(folder, "kept")), load_run(Path(folder, "kept"))
        yield Figure(name="training, uploads kept", value=trained.seconds, unit="s")
        size = sum(path.stat().st_size for path in run.uploads_folder.iterdir())
        yield Figure(name="uploads", value=size / 1e6, unit="MB")

        begin = time.perf_counter()
        audit = verify_ledger(run.ledger_folder)
        verified = time.perf_counter()
        taken = recompute(run)
        ended = time.perf_counter()
        assert audit.ok
        assert not taken.findings
        assert {compared.outcome for compared in taken.rounds} == {"follows"}
        yield Figure(name="the ledger's own check", value=verified - begin, unit="s")
        yield Figure(name="recompute", value=ended - verified, unit="s")
        yield Figure(name="speed of both beside training", value=trained.seconds / (ended - begin), at_least=0.5)

        if not run.settings.is_masked:
            influence = seconds(lambda: trace_influence(run, run.record.first_version + trained.rounds), 1)
            yield Figure(name="influence of everybody in one round", value=influence, unit="s")


if __name__ == "__main__":
    show(measure())
