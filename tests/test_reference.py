"""The documentation names only what exists: kinds, codes, settings, commands, options; and its reference names all."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from liberate.cli.app import app
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import Record
from liberate.ledger.format.refusals import Reason
from liberate.settings import SECTIONS
from scripts import describe_settings
from scripts.update_docs import REPOSITORY, documents


def field_names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


KINDS = {kind.__struct_config__.tag for kind in get_args(Record)}
CODES = set(get_args(Reason))
SETTINGS = {f"{section}.{key}" for section, kind in SECTIONS.items() for key in field_names(kind)}
VARIABLES = {describe_settings.environment_name(*setting.split(".")) for setting in SETTINGS}
WRITTEN = [*documents(), REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md"]
PAGES = {str(page.relative_to(REPOSITORY)): page.read_text("utf-8") for page in WRITTEN}
FILES = {"run.toml", "ledger.lock", "ledger.sqlite", "federation.toml"}
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def section_of(page: str, heading: str) -> str:
    """The text below a heading, up to the next heading of its level."""
    level = heading.partition(" ")[0]
    return re.split(rf"^{level} ", page.partition(f"\n{heading}\n")[2], flags=re.MULTILINE)[0]


def codes(text: str) -> set[str]:
    return set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))


def commands(group: TyperGroup, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*prefix, name))
        elif isinstance(command, TyperCommand):
            yield (*prefix, name), command


ROOT = get_command(app)
assert isinstance(ROOT, TyperGroup)
COMMANDS = dict(commands(ROOT))
GROUPS = {path[:-1] for path in COMMANDS}


def options(command: TyperCommand) -> set[str]:
    named = {name for p in command.params if isinstance(p, TyperOption) for name in (*p.opts, *p.secondary_opts)}
    return named | {"--help"}


def command_lines(page: str) -> Iterator[list[str]]:
    """What pages show of the command line, in fences and in the text: the words after `liberate`, up to a pipe."""
    lines = [line.removeprefix("$ ") for fence in FENCE.findall(page) for line in fence.splitlines()]
    lines += CODE.findall(FENCE.sub("", page))
    for line in lines:
        if line.startswith("liberate ") and line[9:10] not in "{":
            yield shlex.split(re.split(r" (?:\||>|2>|#)", line)[0].replace("…", ""))[1:]


def faults(words: list[str]) -> Iterator[str]:
    """What no command of ours understands in a command line."""
    while words and words[0].startswith("--"):
        if words[0] not in ("--verbose", "--version", "--help"):
            yield f"option {words[0]}"
        words = words[1:]

    path = next((path for path in COMMANDS if tuple(words[: len(path)]) == path), None)
    if path is not None:
        known = options(COMMANDS[path])
        names = (word.partition("=")[0] for word in words if word.startswith("--"))
        yield from (f"option {name} of {' '.join(path)}" for name in names if name not in known)
    elif words and re.fullmatch(r"[a-z][a-z-]*", words[0]) and (tuple(words[:1]) not in GROUPS or len(words) > 1):
        yield f"command {' '.join(words)}"


def test_format_page_describes_exactly_the_kinds_of_entries() -> None:
    kinds = section_of(PAGES["docs/reference/ledger-format.md"], "## Kinds")

    assert set(re.findall(r"^### (\w+)$", kinds, re.MULTILINE)) == KINDS
    assert {kind for kind in KINDS if f"\n## {kind}\n" not in PAGES["docs/reference/ledger-records.md"]} == set()


@pytest.mark.parametrize("kind", get_args(Record), ids=lambda kind: kind.__struct_config__.tag)
def test_format_page_describes_exactly_the_members_of_a_record(kind: type[msgspec.Struct]) -> None:
    kinds = section_of(PAGES["docs/reference/ledger-format.md"], "## Kinds")
    described = section_of(kinds, f"### {kind.__struct_config__.tag}")
    table = "".join(line.split("|")[1] for line in described.splitlines() if line.startswith("| `"))

    assert codes(table) == set(kind.__struct_encode_fields__) - set(RecordBase.__struct_encode_fields__)


def test_format_page_lists_exactly_the_refusal_codes() -> None:
    table = section_of(PAGES["docs/reference/ledger-format.md"], "## Refusals")

    assert codes("".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))) == CODES


def test_rules_in_words_name_no_other_refusal_code() -> None:
    rules = section_of(PAGES["docs/reference/ledger-format.md"], "## Rules")
    named = set(re.findall(r"\(`(\w+)`\)", rules))

    assert len(named) > 40
    assert named <= CODES


@pytest.mark.parametrize(
    ("name", "column"), [("docs/howto/hostile-participants.md", 1), ("docs/explanation/threat-model.md", 2)]
)
def test_pages_on_attacks_name_codes_that_exist(name: str, column: int) -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "src" / "liberate").rglob("*.py"))
    known = CODES | set(re.findall(r'"([a-z]+(?:_[a-z]+)*)"', sources))
    rows = [row.split("|") for row in PAGES[name].splitlines() if row.startswith("| ")]
    named = codes("".join(row[column] for row in rows))

    assert len(named) > 10
    assert named <= known


def test_reference_of_settings_is_what_their_classes_say() -> None:
    page = describe_settings.PAGE.read_text("utf-8")

    assert describe_settings.described(page) == page
    assert all(f"`{name}`" in page for name in SETTINGS | VARIABLES)


@pytest.mark.parametrize("name", PAGES)
def test_every_setting_in_documents_exists(name: str) -> None:
    sections = "|".join(SECTIONS)
    text = PAGES[name]
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)\b(?!\()", text))
    named |= set(re.findall(rf"--set '?((?:{sections})\.[a-z_]+)=", text))

    # A module, or a file of a ledger, is written like a setting.
    assert {name for name in named - SETTINGS - FILES if not exists(f"liberate.{name}")} == set()
    assert set(re.findall(r"`(LIBERATE_[A-Z_]+)\b", text)) - VARIABLES - {"LIBERATE_PRIVCY_MODE"} == set()


@pytest.mark.parametrize("name", PAGES)
def test_every_settings_file_in_documents_is_accepted(name: str) -> None:
    for text in re.findall(r"^```toml\n(.*?)^```$", PAGES[name], re.DOTALL | re.MULTILINE):
        tree = tomllib.loads(text)

        assert {f"{section}.{key}" for section, values in tree.items() for key in values} <= SETTINGS


@pytest.mark.parametrize("name", PAGES)
def test_every_command_and_option_in_documents_exists(name: str) -> None:
    assert [(words, list(faults(words))) for words in command_lines(PAGES[name]) if list(faults(words))] == []


def test_command_lines_of_documents_are_found_and_faults_in_them_too() -> None:
    page = "Say `liberate tarin RUN` or\n```console\n$ liberate --verbose train --outt RUN | tail\n```\n"

    assert [list(faults(words)) for words in command_lines(page)] == [["option --outt of train"], ["command tarin RUN"]]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_reference_of_commands_names_every_option_and_argument(path: tuple[str, ...]) -> None:
    described = section_of(PAGES["docs/reference/cli.md"], "## " + " ".join(path))
    command = COMMANDS[path]
    arguments = {p.metavar or str(p.name) for p in command.params if isinstance(p, TyperArgument)}

    assert {name for name in options(command) | arguments if name.strip("{}").upper() not in described.upper()} == set()


@pytest.mark.parametrize("name", PAGES)
def test_every_module_and_name_of_ours_in_documents_exists(name: str) -> None:
    places = set(re.findall(r"(?<!vnd\.)\b(liberate(?:_studies)?(?:\.[A-Za-z]\w*)+)", PAGES[name]))

    # An address, a picture and a table's metadata are written like modules.
    other = re.compile(r"liberate\.(invalid|svg|log_vkey|checkpoint)")
    assert {place for place in places if not exists(place) and not other.fullmatch(place)} == set()


def exists(place: str) -> bool:
    """Whether a dotted name leads to a module or to something in one."""
    parts = place.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        try:
            for attribute in parts[length:]:
                value = getattr(value, attribute)
        except AttributeError:
            return False
        return True
    return False


def test_describing_settings_can_check_and_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "settings.md"
    copy.write_text(f"before\n{describe_settings.BEGIN}old\n{describe_settings.END}after\n", "utf-8")
    monkeypatch.setattr(describe_settings, "PAGE", copy)

    monkeypatch.setattr(sys, "argv", ["describe_settings.py", "--check"])
    assert describe_settings.main() == 1
    monkeypatch.setattr(sys, "argv", ["describe_settings.py"])
    assert describe_settings.main() == 0
    monkeypatch.setattr(sys, "argv", ["describe_settings.py", "--check"])
    assert describe_settings.main() == 0
    assert copy.read_text("utf-8").startswith("before\n")
    assert copy.read_text("utf-8").endswith("after\n")
