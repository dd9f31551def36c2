"""The command line: JSON others rely on, one-line errors, exit codes, nothing else on stdout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from liberate.crypto.note import verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import LiberateError
from tests.worlds import low_rank_ratings, write_csv

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run over a small world, trained by a real process."""
    folder = tmp_path_factory.mktemp("cli")
    data = write_csv(folder / "ratings.csv", low_rank_ratings(n_users=30, n_items=20))
    command = ["train", "--data", data, "--out", folder / "run", "--json"]
    settings = ["privacy.mode=local", "privacy.epsilon=8", "federation.rounds=3", "model.n_factors=2"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "liberate", *map(str, command), *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reported(outcome: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = outcome
    assert code == 0, err
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


def test_train_reports_its_keys(finished: dict[str, Any]) -> None:
    assert list(finished) == [
        *(
            "run",
            "rmse",
            "ndcg_at_10",
            "evaluation",
            "epsilon",
            "delta",
            "mode",
            "rounds",
            "seconds",
            "entry_count",
            "root",
        ),
        *("verifier_key", "privacy", "simulated"),
    ]
    assert (finished["mode"], finished["delta"], finished["rounds"]) == ("local", 0.0, 3)
    assert 7.99 < finished["epsilon"] <= 8
    assert (Path(finished["run"]) / "report.html").stat().st_size > 1000


MODES = [("device", {}), ("plain", {}), ("local", {"mechanism": "laplace"}), ("local", {"mechanism": "gaussian"}),
         ("distributed", {})]  # fmt: skip


@pytest.mark.parametrize("objective", ["explicit", "implicit"])
@pytest.mark.parametrize(("mode", "more"), MODES)
def test_train_says_what_each_mode_promised_and_spent(
    mode: str, more: dict[str, str], objective: str, call: Call, tmp_path: Path
) -> None:
    data = write_csv(tmp_path / "ratings.csv", low_rank_ratings(n_users=30, n_items=20))
    settings = [f"privacy.mode={mode}", "privacy.epsilon=4", f"model.objective={objective}", "federation.rounds=2"]
    settings += [f"privacy.{name}={value}" for name, value in more.items()]
    settings = [each for each in settings if mode != "distributed" or not each.startswith("federation")]
    flags = [flag for setting in settings for flag in ("--set", setting)]

    found = reported(call("train", "--data", data, *flags, "--out", tmp_path / "run", "--json"))

    said = found["privacy"]
    assert {"unit", "relation", "adversary", "mechanism", "sampler", "rho"} <= set(said)
    epsilons = [said["epsilon_basic"], said["epsilon_rdp"], said["epsilon_pld"]]
    match mode:
        case "device":
            assert (found["epsilon"], epsilons, said["unit"]) == (0, [0, 0, 0], "user")
        case "plain":
            assert (found["epsilon"], epsilons, said["unit"]) == (None, [None] * 3, "none")
        case _:
            assert 3.9 < found["epsilon"] <= 4
            assert found["epsilon"] in epsilons
            assert said["unit"] == "user"
            assert said["delta"] == 1e-5
            assert (said["rho"] is None) == (more.get("mechanism") == "laplace")
    assert (found["rmse"] is None) == (objective == "implicit")


def test_evaluate_lets_anyone_recompute_the_figures(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    predictions, top = tmp_path / "predictions.parquet", tmp_path / "top.parquet"

    found = reported(call("evaluate", finished["run"], "--predictions", predictions, "--top", top, "--json"))

    rows = pq.read_table(predictions)
    assert rows.column_names == ["user_id", "item_id", "rating", "prediction"]
    error = rows["rating"].to_numpy().astype(float) - rows["prediction"].to_numpy().astype(float)
    assert found["rmse"] == pytest.approx(float(np.sqrt(np.mean(error**2))), abs=1e-6)
    assert found["rmse"] == pytest.approx(finished["rmse"])
    assert set(found) == {"rmse", "ndcg_at_10", "recall_at_10", "coverage", "gini", "ild", "baselines", "simulated"}
    lists = pq.read_table(top)
    assert lists.column_names == ["user_id", "rank", "item_id"]
    assert set(lists["rank"].to_pylist()) <= set(range(1, 11))


def test_ledger_is_verified_with_and_without_the_key(call: Call, finished: dict[str, Any]) -> None:
    found = reported(call("ledger", "verify", finished["run"], "--key", finished["verifier_key"], "--json"))
    assert found["ok"]
    assert (found["trusted"], found["distrust"], found["trusted_size"]) == (False, "simulated", 0)
    assert found["simulated"]
    assert (found["root"], found["entry_count"]) == (finished["root"], finished["entry_count"])
    assert found["findings"] == []

    assert reported(call("ledger", "verify", finished["run"], "--json"))["trusted"] is False


def test_ledger_is_held_against_a_kept_checkpoint(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    note = (Path(finished["run"]) / "checkpoint").read_text("utf-8")
    kept.write_text(note, "utf-8")

    assert reported(call("ledger", "verify", finished["run"], "--checkpoint", kept, "--json"))["ok"]

    kept.write_text(note.replace(f"\n{finished['entry_count']}\n", f"\n{finished['entry_count'] + 1}\n"), "utf-8")
    assert call("ledger", "verify", finished["run"], "--checkpoint", kept)[0] == 1


@pytest.mark.parametrize("content", [b"", b"\x93\xff", b"no checkpoint\n"])
def test_a_kept_checkpoint_that_is_none_is_a_finding(
    call: Call, finished: dict[str, Any], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "kept").write_bytes(content)

    code, out, _ = call("ledger", "verify", finished["run"], "--checkpoint", tmp_path / "kept")

    assert code == 1
    assert "FOUND remembered checkpoint" in out


def test_a_file_that_is_not_there_is_named(call: Call, finished: dict[str, Any]) -> None:
    code, out, err = call("ledger", "verify", finished["run"], "--checkpoint", "nowhere")

    assert (code, out) == (1, "")
    assert err == "error: nowhere: No such file or directory\n"


def test_wrong_key_is_a_finding_and_exit_code_1(call: Call, finished: dict[str, Any]) -> None:
    origin = finished["verifier_key"].split("+")[0]
    other = verifier_key(origin, SigningKey.from_seed(bytes(32)).public)

    code, out, _ = call("ledger", "verify", finished["run"], "--key", other, "--json")

    assert code == 1
    assert not json.loads(out)["ok"]


def test_entries_name_people_in_three_ways(call: Call, finished: dict[str, Any]) -> None:
    found = reported(call("ledger", "show", finished["run"], "--kind", "update", "--author", "user:u04", "--json"))

    assert len(found["entries"]) == 3
    entry = found["entries"][0]
    assert (entry["kind"], entry["user_id"], entry["author"], len(entry["key_id"])) == ("update", "u04", 7, 16)


def test_proof_is_printed_with_its_checkpoint(call: Call, finished: dict[str, Any]) -> None:
    found = reported(call("ledger", "prove", finished["run"], "--entry", 5, "--json"))

    assert found["ok"]
    assert found["checkpoint"].startswith("liberate.invalid/")


@pytest.mark.parametrize("name", ["7", "user:u04", "u04"])
def test_participant_is_found_by_any_name(call: Call, finished: dict[str, Any], name: str) -> None:
    found = reported(call("recommend", finished["run"], "--participant", name, "-n", 3, "--json"))

    assert (found["number"], found["user_id"]) == (7, "u04")
    assert [item["rank"] for item in found["items"]] == [1, 2, 3]
    by_key = reported(call("recommend", finished["run"], "--participant", found["key_id"], "-n", 3, "--json"))
    assert by_key == found


def test_trace_counts_updates_models_and_proofs(call: Call, finished: dict[str, Any]) -> None:
    found = reported(call("trace", finished["run"], "--participant", "user:u04", "--json"))

    assert [update["round"] for update in found["updates"]] == [1, 2, 3]
    assert [model["version"] for model in found["models"]] == [1, 2, 3]
    assert found["epsilon"] == pytest.approx(8)
    assert found["proofs"] > 9


def test_trace_names_what_was_spent_from_both_accounts(call: Call, finished: dict[str, Any]) -> None:
    _, out, _ = call("trace", finished["run"], "--participant", "user:u04")

    assert "\nspent: epsilon 8.0000, rho 0\n" in out


@pytest.mark.parametrize(("mode", "is_told"), [("device", True), ("plain", True), ("local", False)])
def test_an_epsilon_that_the_mode_does_not_keep_is_told(
    mode: str, is_told: bool, call: Call, finished: dict[str, Any]
) -> None:
    data = Path(finished["run"]).parent / "ratings.csv"

    code, _, err = call(
        "privacy", "plan", "--data", data, "--set", f"privacy.mode={mode}", "--set", "privacy.epsilon=4"
    )

    assert code == 0
    assert ("ignores privacy.epsilon" in err) == is_told


def test_training_warns_where_noise_drowns_the_signal(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    data = Path(finished["run"]).parent / "ratings.csv"
    flags = [flag for setting in ("privacy.mode=distributed", "privacy.epsilon=1") for flag in ("--set", setting)]

    code, _, err = call("train", "--data", data, *flags, "--out", tmp_path / "run")

    assert code == 0
    assert "not expected to learn" in err.splitlines()[-1]


def test_ratings_in_place_of_settings_are_told_apart(call: Call, finished: dict[str, Any]) -> None:
    code, _, err = call("train", Path(finished["run"]).parent / "ratings.csv")

    assert code == 2
    assert "ratings are named with --data" in err


def test_ratings_that_are_all_alike_are_refused_with_the_flags_that_help(call: Call, tmp_path: Path) -> None:
    (tmp_path / "alike.csv").write_text("user,item,rating\nann,teapot,3\nbob,teapot,3\n")

    code, _, err = call("train", "--data", tmp_path / "alike.csv")

    assert code == 1
    assert "--set data.rating_min=1 --set data.rating_max=5" in err


def test_no_sampler_is_named_where_no_noise_is_drawn(call: Call, finished: dict[str, Any]) -> None:
    data = Path(finished["run"]).parent / "ratings.csv"
    for mode in ("device", "plain"):
        found = reported(call("privacy", "plan", "--data", data, "--set", f"privacy.mode={mode}", "--json"))

        assert found["sampler"] == "none: no noise is drawn"


@pytest.mark.parametrize("command", ["report", "plan"])
def test_long_texts_fit_a_terminal(
    command: str, call: Call, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    data = ["--data", Path(finished["run"]).parent / "ratings.csv"]
    private = ["--set", "privacy.mode=distributed", "--set", "privacy.epsilon=1"]
    arguments = ["privacy", command, *([finished["run"]] if command == "report" else [*data, *private])]
    _, plain, _ = call(*arguments)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    _, broken, _ = call(*arguments)

    assert broken.split() == plain.split()
    assert max(map(len, plain.splitlines())) > 100
    assert max(map(len, broken.splitlines())) <= 100


@pytest.mark.parametrize("command", ["privacy plan", "privacy report", "trace", "recommend", "data show", "evaluate"])
def test_the_page_of_commands_has_every_key(command: str, call: Call, finished: dict[str, Any]) -> None:
    data = str(Path(finished["run"]).parent / "ratings.csv")
    arguments = {
        "privacy plan": ["--data", data, "--set", "privacy.mode=distributed", "--set", "privacy.epsilon=4"],
        "data show": [data],
        "trace": [finished["run"], "--participant", "user:u04"],
        "recommend": [finished["run"], "--participant", "user:u04"],
    }
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")
    section = page.partition(f"\n## {command}\n")[2].partition("<!--")[0]

    found = reported(call(*command.split(), *arguments.get(command, [finished["run"]]), "--json"))

    # What everything about a run says is told at the top of the page.
    assert [key for key in found if f"`{key}`" not in section and key != "simulated"] == []


def test_privacy_plan_and_report_agree(call: Call, finished: dict[str, Any]) -> None:
    keys = ("epsilon_basic", "epsilon_rdp", "epsilon_pld")
    spent = reported(call("privacy", "report", finished["run"], "--json"))
    data = Path(finished["run"]).parent / "ratings.csv"
    settings = ["privacy.mode=local", "privacy.epsilon=8", "federation.rounds=3"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    planned = reported(call("privacy", "plan", "--data", data, *flags, "--json"))

    assert [spent[key] for key in keys] == pytest.approx([planned[key] for key in keys])
    assert spent["epsilon_basic"] <= 8
    assert planned["signal_to_noise"] < 1
    assert "not expected to learn" in planned["warning"]
    assert (spent["rounds_joined_least"], spent["rounds_joined_most"]) == (3, 3)


def test_data_show_counts(call: Call, finished: dict[str, Any]) -> None:
    found = reported(call("data", "show", Path(finished["run"]).parent / "ratings.csv", "--json"))

    assert (found["users"], found["items"]) == (30, 20)


def test_data_show_takes_names_of_columns(call: Call, tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("customer,product,stars\nann,teapot,1\nbob,teapot,5\n")

    columns = "data.columns={user='customer', item='product', rating='stars'}"
    found = reported(call("data", "show", tmp_path / "sales.csv", "--set", columns, "--json"))

    assert (found["users"], found["items"], found["ratings"]) == (2, 1, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["evaluate", "nowhere"], 1, "nowhere: no run.toml here"),
        (["train"], 2, "data.source is empty"),
        (["train", "--data", "nowhere.csv"], 1, "nowhere.csv"),
        (["train", "--data", "ml-10k"], 1, "ml-1"),
        (["train", "--set", "privacy.epsilom=1"], 2, "did you mean privacy.epsilon?"),
        (["train", "--set", "privacy.mode=local", "--data", "x"], 2, "needs an epsilon"),
        (["study", "alchemy"], 2, "alchemy"),
        (["data", "get", "ml-10k"], 1, "ml-1"),
    ],
)
def test_error_is_one_line(
    call: Call, arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    found, out, err = call(*arguments)

    assert found == code
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["recommend", "x"],
        ["ledger", "prove", "x", "--entry", "-1"],
        ["ledger", "prove", "x", "--entry", "1", "--participant", "2"],
        ["ledger", "export", "x"],
        ["ledger", "export", "x", "--tiles", "y", "--parquet", "z"],
        ["ledger", "verify-proof", "nowhere", "--key", "k"],
        ["x"],
        ["study", "x"],
    ],
)
def test_wrong_usage_is_exit_code_2(call: Call, arguments: list[str]) -> None:
    assert call(*arguments)[0] == 2


def test_errors_of_a_run_are_named(call: Call, finished: dict[str, Any]) -> None:
    run = finished["run"]
    data = Path(run).parent / "ratings.csv"

    assert "no participant 'nobody'" in call("recommend", run, "--participant", "nobody")[2]
    assert "no participant 'nobody'" in call("trace", run, "--participant", "nobody")[2]
    assert "no entry 100000" in call("ledger", "prove", run, "--entry", 100000)[2]
    assert "no kind 'gossip'" in call("ledger", "show", run, "--kind", "gossip")[2]
    assert "holds a run with other settings" in call("train", "--data", data, "--out", run)[2]
    (Path(run).parent / "other").mkdir(exist_ok=True)
    (Path(run).parent / "other" / "thesis.tex").write_text("precious")
    assert "holds no run" in call("train", "--data", data, "--out", Path(run).parent / "other")[2]


def test_changed_ratings_are_noticed(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(finished["run"]).parent
    moved = tmp_path / "moved"
    shutil.copytree(folder / "run", moved)
    text = (moved / "run.toml").read_text()
    changed = tmp_path / "ratings.csv"
    changed.write_text((folder / "ratings.csv").read_text() + "u00,i99,1\n")
    (moved / "run.toml").write_text(text.replace(str(folder / "ratings.csv"), str(changed)))

    assert "no longer holds the ratings" in call("evaluate", moved)[2]


def test_traceback_only_when_verbose(call: Call) -> None:
    with pytest.raises(LiberateError):
        call("--verbose", "evaluate", "nowhere")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['liberate', '--help']\n"
        "from liberate.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'numba', 'numpy', 'pyarrow', 'pydantic', 'matplotlib', 'dp_accounting'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_proof_of_an_entry_is_checked_without_the_ledger(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    file, key = tmp_path / "entry.tlog-proof", ("--key", finished["verifier_key"])
    proved = reported(call("ledger", "prove", finished["run"], "--entry", 5, "--out", file, "--json"))
    assert (proved["ok"], proved["path"]) == (True, str(file))

    found = reported(call("ledger", "verify-proof", file, *key, "--json"))

    assert (found["ok"], found["proves"], found["position"]) == (True, "inclusion", 5)
    assert (found["root"], found["size"]) == (finished["root"], finished["entry_count"])
    assert "position" in call("ledger", "verify-proof", file, *key)[1]

    file.write_bytes(file.read_bytes().replace(b"index 5", b"index 6"))
    code, out, _ = call("ledger", "verify-proof", file, *key, "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)
    code, out, err = call("ledger", "verify-proof", file, *key)
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_proof_that_the_ledger_grew_is_held_against_a_kept_checkpoint(
    call: Call, finished: dict[str, Any], tmp_path: Path
) -> None:
    file, key, kept = tmp_path / "growth", ("--key", finished["verifier_key"]), Path(finished["run"]) / "checkpoint"
    proved = reported(call("ledger", "prove", finished["run"], "--since", kept, "--out", file, "--json"))
    assert proved["old_size"] == proved["size"] == finished["entry_count"]

    found = reported(call("ledger", "verify-proof", file, *key, "--checkpoint", kept, "--json"))

    assert (found["proves"], found["root"]) == ("consistency", finished["root"])
    assert call("ledger", "verify-proof", file, *key)[0] == 1


def test_history_of_a_participant_is_proved_complete(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    file, key = tmp_path / "history.json", ("--key", finished["verifier_key"])
    asked = ("ledger", "prove", finished["run"], "--participant", "user:u04")
    proved = reported(call(*asked, "--out", file, "--json"))
    assert [entry["kind"] for entry in proved["entries"]] == ["enrol", "dataset", *["update"] * 3]

    found = reported(call("ledger", "verify-proof", file, *key, "--json"))

    assert (found["proves"], found["number"], found["root"]) == ("completeness", 7, finished["root"])
    assert found["entries"] == proved["entries"]
    assert found["epsilon"] == pytest.approx(8)
    assert call("ledger", "verify-proof", file, *key)[1].count("kind=update") == 3
    assert "checkpoint" in call(*asked)[1]


def test_tiles_are_exported_and_checked(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    tiles, key = tmp_path / "tiles", ("--key", finished["verifier_key"])
    wanted = {"entry_count": finished["entry_count"], "root": finished["root"], "simulated": True}

    for source in (finished["run"], Path(finished["run"]) / "ledger"):
        assert reported(call("ledger", "export", source, "--tiles", tiles, "--json")) == {"path": str(tiles), **wanted}

    kept = Path(finished["run"]) / "checkpoint"
    found = reported(call("ledger", "verify-tiles", tiles, *key, "--checkpoint", kept, "--json"))
    assert found == {"ok": True, "origin": finished["verifier_key"].split("+")[0], **wanted, "findings": []}
    assert reported(call("ledger", "verify-tiles", tiles, *key, "--replay", "--json")) == found
    bundle = next((tiles / "tile" / "entries").rglob("*.p/*"))
    bundle.write_bytes(bundle.read_bytes()[:-1])
    code, out, _ = call("ledger", "verify-tiles", tiles, *key)
    assert code == 1
    assert f"FOUND {bundle.relative_to(tiles).as_posix()}" in out


def test_table_is_exported(call: Call, finished: dict[str, Any], tmp_path: Path) -> None:
    found = reported(call("ledger", "export", finished["run"], "--parquet", tmp_path / "table", "--json"))

    assert (found["root"], found["entry_count"]) == (finished["root"], finished["entry_count"])
    assert pq.read_metadata(found["path"]).num_rows == finished["entry_count"]
    assert "entry_count" in call("ledger", "export", finished["run"], "--parquet", tmp_path / "table")[1]


def test_ledger_is_backed_up_and_the_copy_verified_from_where_it_was_left(
    call: Call, finished: dict[str, Any], tmp_path: Path
) -> None:
    key, kept = ("--key", finished["verifier_key"]), tmp_path / "kept"
    wanted = {"entry_count": finished["entry_count"], "root": finished["root"], "simulated": True}

    found = reported(call("ledger", "backup", finished["run"], tmp_path / "copy", *key, "--json"))

    assert found == {"path": str(tmp_path / "copy"), **wanted}
    first = reported(call("ledger", "verify", tmp_path / "copy", *key, "--resume", kept, "--json"))
    assert (first["ok"], first["distrust"], first["resumed_at"]) == (True, "simulated", 0)
    code, out, _ = call("ledger", "verify", tmp_path / "copy", *key, "--resume", kept)
    assert code == 0
    assert f"entries before {finished['entry_count']} were verified earlier and not read again" in out
    assert call("ledger", "backup", finished["run"], tmp_path / "copy")[0] == 1
    assert "entry_count" in call("ledger", "backup", finished["run"], tmp_path / "other")[1]
    code, _, err = call("ledger", "verify", finished["run"], *key)
    assert f"verified {finished['entry_count']} of {finished['entry_count']} entries" in err
