"""The documentation shows what the program really prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import liberate
from liberate.cli.app import app
from liberate.privacy.mechanism_base import Mode
from scripts import describe_rooms
from scripts.update_docs import (
    REPOSITORY,
    Mark,
    comparable,
    differences,
    documents,
    find_blocks,
    run,
    stale_commands,
    updated,
)

ADDRESS = "https://liberate-rec.readthedocs.io/en/latest/"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HELP = re.compile(
    r"^```console\n(?P<body>\$ (?P<command>liberate(?: [\w-]+)* --help)\n.*?)^```$", re.DOTALL | re.MULTILINE
)


def name(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


def document_of(*blocks: tuple[str, str, str]) -> str:
    return "\n".join(f"Words.\n<!-- {mark}: {command} -->\n```console\n{body}```" for mark, command, body in blocks)


def test_update_puts_the_output_of_a_command_into_its_block(tmp_path: Path) -> None:
    text = document_of(("run", r"printf 'a \nb\n'", "old\n"), ("run-check", "echo c", ""))

    new = updated(text, tmp_path)

    assert new == document_of(
        ("run", r"printf 'a \nb\n'", "$ printf 'a \\nb\\n'\na\nb\n"), ("run-check", "echo c", "$ echo c\nc\n")
    )
    assert updated(new, tmp_path) == new


def test_update_runs_the_commands_of_a_document_in_one_folder(tmp_path: Path) -> None:
    text = document_of(("run", "echo kept > file", ""), ("run", "cat file", ""))

    assert "$ cat file\nkept\n" in updated(text, tmp_path)


def test_update_hides_where_it_ran(tmp_path: Path) -> None:
    assert run("pwd", tmp_path) == "$ pwd\n.\n"


def test_check_names_a_stale_repeatable_command_only(tmp_path: Path) -> None:
    text = document_of(
        ("run", "echo a", "old\n"), ("run-check", "echo b", "old\n"), ("run-check", "echo c", "$ echo c\nc\n")
    )

    assert stale_commands(text, tmp_path) == ["echo b"]


@pytest.mark.parametrize(
    ("mark", "shown", "printed"),
    [
        ("run", "seconds  4.1\nrmse 0.9\n", "seconds  14.12\nrmse 0.9\n"),
        ("run", f"root   {'A' * 43}=\n", f"root   {'b+/' * 14}c=\n"),
        ("run", "base_digest=ZLboyfV+G92zwe/RjiEF... cohort=()\n", "base_digest=BLboyfV+G92zwe/RjiEF... cohort=()\n"),
        ("run-cpu", "likelihood  10^22.4  at most 4e-13\n", "likelihood  10^24.0  at most 1\n"),
    ],
)
def test_what_differs_from_run_to_run_is_not_compared(mark: Mark, shown: str, printed: str) -> None:
    assert comparable(mark, shown) == comparable(mark, printed)


@pytest.mark.parametrize(
    ("mark", "shown", "printed"),
    [
        ("run-check", "seconds  4.1\n", "seconds  4.2\n"),
        ("run", "rmse  0.9922\n", "rmse  0.9775\n"),
        ("run", "ok  yes\n", "ok  no\n"),
        ("run-cpu", "accused: participant 4\n", "accused: nobody\n"),
    ],
)
def test_what_is_always_the_same_is_compared(mark: Mark, shown: str, printed: str) -> None:
    assert comparable(mark, shown) != comparable(mark, printed)


def test_differences_show_both_outputs(tmp_path: Path) -> None:
    text = document_of(("run", "echo a", "$ echo a\na\n"), ("run", "echo b", "$ echo b\nold\n"))

    assert differences(text, tmp_path) == [("$ echo b\nold\n", "$ echo b\nb\n")]


@pytest.mark.engines
@pytest.mark.parametrize("processor", ["this", "generic"])
@pytest.mark.parametrize("document", [d for d in documents() if find_blocks(d.read_text("utf-8"))], ids=name)
def test_output_in_documents_is_what_two_kinds_of_processors_give(
    document: Path, processor: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data, folder = tmp_path / "data", tmp_path / "work"
    (data / "liberate").mkdir(parents=True)
    (data / "liberate" / "ml-100k").symlink_to(real_data("ml-100k"))
    folder.mkdir()
    variables = {"XDG_DATA_HOME": str(data)} | ({} if processor == "this" else {"NUMBA_CPU_NAME": processor})

    assert differences(document.read_text("utf-8"), folder, variables) == []


@pytest.mark.parametrize("document", documents(), ids=name)
def test_repeatable_output_in_documents_is_current(document: Path, tmp_path: Path) -> None:
    assert stale_commands(document.read_text(encoding="utf-8"), tmp_path) == []


@pytest.mark.parametrize("document", [d for d in documents() if PYTHON.search(d.read_text("utf-8"))], ids=name)
def test_python_in_documents_runs(
    document: Path, real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "\n".join(PYTHON.findall(document.read_text(encoding="utf-8")))
    (tmp_path / "liberate").mkdir()
    (tmp_path / "liberate" / "ml-100k").symlink_to(real_data("ml-100k"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # where data sets are kept
    monkeypatch.chdir(tmp_path)

    exec(compile(code, str(document), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("document", documents(), ids=name)
def test_help_in_documents_is_what_the_program_prints(document: Path, tmp_path: Path) -> None:
    text = document.read_text(encoding="utf-8")
    checked = {block.command for block in find_blocks(text) if block.mark == "run-check"}
    others = [block for block in HELP.finditer(text) if block["command"] not in checked]

    assert [block["body"] for block in others] == [run(block["command"], tmp_path) for block in others]


def command_names(group: TyperGroup, prefix: str = "liberate") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from command_names(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_reference_shows_the_help_of_every_command(repository: Path) -> None:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    reference = (repository / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")

    shown = {block.command for block in find_blocks(reference) if block.mark == "run-check"}

    assert shown == {"liberate --help"} | {f"{command} --help" for command in command_names(root)}


def test_readme_is_short(repository: Path) -> None:
    assert len((repository / "README.md").read_text("utf-8").splitlines()) <= 150


def test_readme_links_to_addresses_of_pages_that_exist(repository: Path) -> None:
    """A package index shows the README without what lies beside it."""
    readme = (repository / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", readme) + re.findall(r"(?:src|href)=\"([^\"]+)\"", readme)
    ours = [target.removeprefix(ADDRESS) for target in targets if target.startswith(ADDRESS)]
    sources = [re.sub(r"^_images/", "images/", re.sub(r"\.html$", ".md", path.partition("#")[0])) for path in ours]

    assert [target for target in targets if not target.startswith("https://")] == []
    assert len(sources) > 10
    assert [source for source in sources if not (repository / "docs" / source).is_file()] == []


def test_reference_describes_every_name_of_the_python_front_door(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "python.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\.\. auto\w+:: liberate\.(\w+)$", text, re.MULTILINE)) == sorted(liberate.__all__)


def test_architecture_shows_the_rooms_as_their_docstrings_describe_them() -> None:
    page = describe_rooms.PAGE.read_text("utf-8")

    assert describe_rooms.described(page) == page


def test_architecture_names_files_that_exist(repository: Path) -> None:
    page = describe_rooms.PAGE.read_text("utf-8").partition(describe_rooms.BEGIN)[0]
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:/|\.py|\.md|\.toml))`", page))
    places = [repository, repository / "src" / "liberate"]

    assert len(named) > 40
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_page_on_who_learns_what_has_a_column_for_every_mode(repository: Path) -> None:
    text = (repository / "docs" / "explanation" / "privacy-modes.md").read_text(encoding="utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| |"))

    assert re.findall(r"`(\w+)`", header) == list(get_args(Mode))
