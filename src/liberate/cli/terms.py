"""`liberate terms`: what a federation's promises rest on, and who takes part under it."""

from __future__ import annotations

import typer

from liberate.cli.keys import Participant
from liberate.cli.output import JsonFlag, fields_of, print_json, print_pairs, print_result
from liberate.cli.run import Assignments, Folder

app = typer.Typer(help="Show, change and accept what a federation's promises rest on.", no_args_is_help=True)


@app.command()
def show(folder: Folder, as_json: JsonFlag = False) -> None:
    """Show the terms in force, and the participants whose owners have to decide on them."""
    from liberate.runs.folder import load_run
    from liberate.runs.terms_of_run import terms_in_force

    _print(terms_in_force(load_run(folder)), as_json=as_json)


@app.command()
def accept(folder: Folder, participant: Participant, as_json: JsonFlag = False) -> None:
    """Accept the terms in force for a participant, who takes part again from the next run on."""
    from liberate.runs.folder import load_run
    from liberate.runs.terms_of_run import accept_terms

    print_result(accept_terms(load_run(folder), participant), as_json=as_json)


@app.command()
def propose(folder: Folder, settings: Assignments = None, as_json: JsonFlag = False) -> None:
    """Put other terms in force between runs, in the coordinator's name.

    Devices accept by themselves what is no weaker for them; whoever has not accepted takes no part.
    The settings are privacy.max_colluders, privacy.max_dropouts, federation.min_cohort and federation.max_participants.
    """
    from liberate.runs.folder import load_run
    from liberate.runs.terms_of_run import propose_terms
    from liberate.settings import resolve

    _print(propose_terms(load_run(folder), resolve(None, settings or [])), as_json=as_json)


def _print(outcome: object, *, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
        return
    fields = fields_of(outcome)
    print_pairs(fields.pop("terms"))
    print()
    print_pairs(fields)
