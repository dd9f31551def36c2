"""A federated recommender whose every flow of data can be traced and proved.

The commands of `liberate` as functions, for notebooks:

    import liberate

    settings = liberate.configure("data.source=ml-100k", "privacy.mode=plain")
    result = liberate.train(settings, "runs/first")
    run = liberate.load_run("runs/first")
    liberate.evaluate(run).metrics
    liberate.recommend(run, "user:1")
    liberate.verify(run.ledger_folder, key=result.verifier_key)

Each name is imported when it is first used: `import liberate` alone is quick.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from liberate.data.public_datasets import fetch as fetch_data
    from liberate.data.public_datasets import load as load_data
    from liberate.errors import LiberateError
    from liberate.ledger.verification.verify import verify_ledger as verify
    from liberate.runs.actions import consent, erase, received, share, withdraw
    from liberate.runs.evaluate import evaluate_run as evaluate
    from liberate.runs.evaluate import own_error, recommend
    from liberate.runs.folder import Run, load_run
    from liberate.runs.privacy_forecast import forecast as plan_privacy
    from liberate.runs.privacy_report import privacy_report as report_privacy
    from liberate.runs.run_record import Result
    from liberate.runs.train import train
    from liberate.settings import Settings
    from liberate.tracing.traces import trace_participant as trace
    from liberate_studies import run_study

__version__ = "0.1.0"

__all__ = [
    "LiberateError",
    "Result",
    "Run",
    "Settings",
    "configure",
    "consent",
    "erase",
    "evaluate",
    "fetch_data",
    "load_data",
    "load_run",
    "own_error",
    "plan_privacy",
    "received",
    "recommend",
    "report_privacy",
    "run_study",
    "share",
    "trace",
    "train",
    "verify",
    "withdraw",
]

_PLACES = {
    "LiberateError": "liberate.errors:LiberateError",
    "Result": "liberate.runs.run_record:Result",
    "Run": "liberate.runs.folder:Run",
    "Settings": "liberate.settings:Settings",
    "consent": "liberate.runs.actions:consent",
    "erase": "liberate.runs.actions:erase",
    "evaluate": "liberate.runs.evaluate:evaluate_run",
    "fetch_data": "liberate.data.public_datasets:fetch",
    "load_data": "liberate.data.public_datasets:load",
    "load_run": "liberate.runs.folder:load_run",
    "own_error": "liberate.runs.evaluate:own_error",
    "plan_privacy": "liberate.runs.privacy_forecast:forecast",
    "received": "liberate.runs.actions:received",
    "recommend": "liberate.runs.evaluate:recommend",
    "report_privacy": "liberate.runs.privacy_report:privacy_report",
    "run_study": "liberate_studies:run_study",
    "share": "liberate.runs.actions:share",
    "trace": "liberate.tracing.traces:trace_participant",
    "train": "liberate.runs.train:train",
    "verify": "liberate.ledger.verification.verify:verify_ledger",
    "withdraw": "liberate.runs.actions:withdraw",
}


def configure(*assignments: str, file: Path | str | None = None) -> Settings:
    """Compose settings as the command line does: defaults < TOML file < LIBERATE_* environment < assignments.

    Args:
        assignments: `section.key=value` each, such as `privacy.mode=local`.
        file: A TOML file, or None.

    Raises:
        SettingsError: A setting is unknown, of the wrong type or out of range, or the file cannot be read.
    """
    from liberate.settings import resolve

    return resolve(None if file is None else Path(file), assignments)


if not TYPE_CHECKING:  # to a type checker a module with __getattr__ has every name

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, original = _PLACES[name].partition(":")
        value = getattr(import_module(module), original)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
