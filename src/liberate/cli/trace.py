"""`liberate trace`: where did my data go?"""

from __future__ import annotations

from typing import Annotated

import typer

from liberate.cli.output import JsonFlag, print_json, print_table, show
from liberate.cli.run import Folder


def trace(
    folder: Folder,
    participant: Annotated[str, typer.Option(help="Participant number, key id, or user:ID of the data set.")],
    as_json: JsonFlag = False,
) -> None:
    """Trace one participant: own updates, the blocks they lie in, the models they shaped. Every proof is checked."""
    from liberate.runs.folder import load_run
    from liberate.runs.lineage import trace_person

    found = trace_person(load_run(folder), participant)
    if as_json:
        print_json(found)
        return
    print(f"participant {found['number']} (key {found['key_id']}, user {found['user_id']})")
    print(f"{len(found['updates'])} updates, epsilon spent {show(found['epsilon'])}, {found['proofs']} proofs checked")
    rows = [[u["round"], u["position"], u["block"], u["used"], u["version"]] for u in found["updates"]]
    print_table(["round", "entry", "block", "used", "model version"], rows)
