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
    """Trace one participant: own updates, their blocks, the models they shaped; every proof is checked first."""
    from liberate.runs.folder import load_run
    from liberate.runs.lineage import trace_person

    found = trace_person(load_run(folder), participant)
    if as_json:
        print_json(found)
        return
    print(f"participant {found['number']} (key {found['key_id']}, user {found['user_id']})")
    print(f"checked {found['proofs']} proofs against {found['entry_count']} entries, root {found['root']}")
    print(f"complete: these {len(found['entries'])} entries are all that name you, under the log's state root")
    print(f"spent: epsilon {show(found['epsilon'])}, rho {show(found['rho'])}\n")
    for entry in found["entries"]:
        if entry["kind"] != "update":
            print(f"block {entry['block']}: {entry['kind']}, entry {entry['position']}")
    print()
    columns = ("round", "position", "block", "outcome", "version", "descendants")
    rows = [[update[column] for column in columns] for update in found["updates"]]
    print_table(["round", "entry", "block", "outcome", "model", "models built on it"], rows)
