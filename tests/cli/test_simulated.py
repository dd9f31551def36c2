"""Every command about a simulation says that it is one: a field in JSON, the last line of text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from liberate.cli.app import app
from liberate.cli.output import SIMULATED, tell_folder
from tests.worlds import low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]

PERSON = ("--participant", "3")
COMMANDS: dict[str, tuple[object, ...]] = {
    "evaluate": (),
    "recommend": PERSON,
    "trace": PERSON,
    "trace of a model": ("--model", "1"),
    "privacy report": (),
    "keys show": PERSON,
    "ledger show": (),
    "ledger verify": (),
    "ledger prove": ("--entry", "0"),
    "ledger export": ("--parquet",),
    "ledger backup": (),
    "ledger evidence": (),
    "consent": PERSON,
    "share": PERSON,
    "accept": (*PERSON, "--limit", "3"),
    "withdraw": PERSON,
    "erase": PERSON,
}
"""By name, what else is given; a folder is added where files are written."""

REAL = ("--set", "run.simulated=false")


@pytest.fixture(scope="module", params=[True, False], ids=["simulated", "real"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """The folder of ratings in which runs are trained, and whether they are simulations."""
    folder = tmp_path_factory.mktemp("world")
    write_csv(folder / "ratings.csv", low_rank_ratings(n_users=12, n_items=9))
    return folder, request.param


def train(call: Call, folder: Path, out: str, *flags: object, is_simulated: bool) -> tuple[int, str, str]:
    small = ["federation.rounds=1", "model.n_factors=2", "data.rating_min=1", "data.rating_max=5"]
    settings = [flag for setting in small for flag in ("--set", setting)] + [*(() if is_simulated else REAL)]
    return call("train", "--data", folder / "ratings.csv", *settings, "--out", folder / out, *flags)


def test_every_command_and_report_says_whether_it_is_about_a_simulation(
    call: Call, world: tuple[Path, bool], tmp_path: Path
) -> None:
    folder, is_simulated = world
    outcomes = {"train": train(call, folder, "json", "--json", is_simulated=is_simulated)}
    words = {"train": train(call, folder, "text", is_simulated=is_simulated)}
    for name, rest in COMMANDS.items():
        command = name.partition(" of ")[0].split()
        for out, said, flags in (("json", outcomes, ["--json"]), ("text", words, [])):
            target = [tmp_path / f"{name}-{out}"] if name in ("ledger export", "ledger backup") else []
            said[name] = call(*command, folder / out, *rest, *target, *flags)

    for name, (code, out, err) in outcomes.items():
        if name != "evaluate" or is_simulated:
            assert code == 0, (name, err)
            assert json.loads(out)["simulated"] is is_simulated, name
    for name, (_, out, _) in words.items():
        assert (SIMULATED in out) == is_simulated, name
        assert out.count(SIMULATED) <= 1, name


@pytest.mark.parametrize("is_simulated", [True, False])
def test_a_plan_says_whether_it_is_one_of_a_simulation(call: Call, tmp_path: Path, is_simulated: bool) -> None:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=12, n_items=9))
    command = ("privacy", "plan", "--data", data, *(() if is_simulated else REAL))

    assert json.loads(call(*command, "--json")[1])["simulated"] is is_simulated
    assert (SIMULATED in call(*command)[1]) == is_simulated


def test_no_command_about_a_run_can_forget_to_say_it() -> None:
    """Whatever takes a run's folder asks its ledger."""
    seen = []

    def visit(command: Any, path: str) -> None:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                visit(inner, f"{path} {name}")
            return
        for parameter in command.params:
            if parameter.metavar == "RUN":
                seen.append(path)
                inside = [cell.cell_contents for cell in (parameter.callback.__closure__ or ())]
                assert any(value is tell_folder for value in inside), path

    visit(typer.main.get_command(app), "liberate")
    assert len(seen) > 15
