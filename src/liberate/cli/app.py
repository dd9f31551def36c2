"""The tree of commands, and the one place where errors become one line and an exit code."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

import liberate
from liberate.cli import (
    actions,
    data,
    evidence,
    keys,
    ledger,
    privacy,
    proofs,
    run,
    study,
    terms,
    tiles,
    trace,
    unlearn,
    witness,
)
from liberate.cli.output import telling
from liberate.errors import LiberateError, SettingsError

app = typer.Typer(
    name="liberate",
    help="A federated recommender whose every flow of data can be traced and proved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.command("train")(run.train)
app.command("evaluate")(run.evaluate)
app.command("recommend")(run.recommend)
app.add_typer(privacy.app, name="privacy")
ledger.app.command("prove")(proofs.prove)
ledger.app.command("verify-proof")(proofs.verify_proof)
ledger.app.command("export")(tiles.export)
ledger.app.command("verify-tiles")(tiles.verify_tiles)
ledger.app.command("verify-evidence")(evidence.verify_evidence)
ledger.app.command("evidence")(evidence.evidence)
ledger.app.command("compare")(evidence.compare)
app.add_typer(ledger.app, name="ledger")
app.command("trace")(trace.trace)
app.command("consent")(actions.consent)
app.command("share")(actions.share)
app.command("accept")(actions.accept)
app.command("withdraw")(actions.withdraw)
app.command("erase")(actions.erase)
app.command("unlearn")(unlearn.unlearn)
app.add_typer(keys.app, name="keys")
app.add_typer(terms.app, name="terms")
app.command("witness")(witness.witness)
app.command("study")(study.study)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"liberate {liberate.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more, and show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("numba", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def main() -> None:
    """Run a command; exit 0 on success, 1 when it failed or a check found a fault, 2 on wrong usage."""
    try:
        with telling():
            app()
    except LiberateError as error:
        if "--verbose" in sys.argv:
            raise
        print(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if "--verbose" in sys.argv:
            raise
        print(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", file=sys.stderr)
        sys.exit(1)
