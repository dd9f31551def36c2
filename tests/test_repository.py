"""What may lie in the repository: text about this project, small, without a machine's paths or anybody's ratings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

MAX_BYTES = 1024 * 1024

# Written in pieces, so that this file does not name what it forbids.
MACHINE_PATHS = re.compile(
    "|".join(
        [
            r"(?<![\w.])/ro" + r"ot\b",
            r"(?<![\w.])/wo" + r"rk/",
            r"/ho" + r"me/\w",
            r"/Us" + r"ers/\w",
            r"/opt/wh" + "eels",
        ]
    )
)
PACKAGE_INDEXES = re.compile(
    "|".join(
        [
            r"py" + r"pi\.org",
            r"python" + r"hosted",
            r"--(extra-)?index" + "-url",
            r"--find" + "-links",
            r"//[^\s\"']+/sim" + r"ple\b",
        ]
    )
)
# Words that only we would understand; the glossary has the field's, which are used instead.
PRIVATE_WORDS = re.compile(
    r"\b(the ow" + r"n\b|char" + r"ters?\b|cle" + r"rks?\b|agen" + r"das?\b)"
    r"|desk_" + r"of|wish" + r"to|home_" + r"of|par" + r"cel|admit" + r"ter|(?<![a-z])giv" + r"er",
    re.IGNORECASE,
)
DOCSTRING_GIVES = re.compile(r'^\s*"""Giv' + r"es?\b.*", re.MULTILINE)
# user, item, rating and a time at which a MovieLens user rated: 1995 to 2018, in seconds since 1970.
RATING_ROW = re.compile(r"^\s*\d{1,6}\s*(::|[\t,|;])\s*\d{1,6}\s*\1\s*[0-5](\.[05])?\s*\1\s*\d{9,10}\s*$", re.MULTILINE)
MOVIELENS_TIMES = range(789_652_000, 1_537_945_200)
DATA_SUFFIXES = {".arrow", ".dat", ".feather", ".inter", ".npy", ".npz", ".parquet", ".sqlite", ".zip"}


def tracked_files(repository: Path) -> list[Path]:
    """The files under version control, those about to be added included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git work tree")
    files = [repository / name for name in listed.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


def matches(repository: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    """Each match in a tracked text file, as `file:line: text`."""
    for file in tracked_files(repository):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{file.relative_to(repository)}:{line}: {match.group().strip()}"


def is_movielens_time(found: str) -> bool:
    return int(re.split(r"\D+", found)[-1]) in MOVIELENS_TIMES


def test_repository_names_no_path_of_a_machine(repository: Path) -> None:
    assert list(matches(repository, MACHINE_PATHS)) == []


def test_repository_names_no_package_index(repository: Path) -> None:
    assert list(matches(repository, PACKAGE_INDEXES)) == []


def test_repository_has_no_private_words(repository: Path) -> None:
    assert list(matches(repository, PRIVATE_WORDS)) == []


@pytest.mark.parametrize(
    "word", ["giv" + "ers", "Admit" + "ter", "N_GIV" + "ERS", "Wish" + "ToShare", "the ow" + "n key"]
)
def test_guard_knows_private_words(word: str) -> None:
    assert PRIVATE_WORDS.search(word) is not None


def test_docstrings_say_return(repository: Path) -> None:
    assert list(matches(repository, DOCSTRING_GIVES)) == []


def test_repository_holds_no_row_of_movielens(repository: Path) -> None:
    rows = [row for row in matches(repository, RATING_ROW) if is_movielens_time(row)]

    assert rows == [], "made-up rows use times before 1995, such as 1, 2, 3"


@pytest.mark.parametrize("separator", ["::", "\t", ",", "|", " , "])
def test_guard_knows_a_row_of_movielens_from_a_made_up_one(separator: str) -> None:
    real, made_up = (separator.join(["12", "345", "4", time]) for time in ("9" + "78300000", "100"))

    assert RATING_ROW.search(f"user\n{real}\n") is not None
    assert is_movielens_time(real)
    assert RATING_ROW.search(made_up) is None


def test_repository_holds_no_data_file(repository: Path) -> None:
    assert [file for file in tracked_files(repository) if file.suffix in DATA_SUFFIXES] == []


def test_repository_holds_no_large_file(repository: Path) -> None:
    assert [file for file in tracked_files(repository) if file.stat().st_size > MAX_BYTES] == []


def test_lock_has_no_address_and_a_hash_for_every_package(repository: Path) -> None:
    lock = (repository / "requirements.lock").read_text()
    packages = re.findall(r"^([a-z0-9][\w.-]*)==\S+(?: ; [^\\]+)? \\\n +--hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)

    assert "://" not in lock
    assert " @ " not in lock
    assert len(packages) == len(re.findall(r"^[^\s#]", lock, re.MULTILINE)) > 0


def test_lock_holds_every_package_that_the_project_asks_for(repository: Path) -> None:
    """Except what tests compare us with: it is large, has versions of its own and comes by `make oracles`."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = [names for extra, names in project["optional-dependencies"].items() if extra != "oracles"]
    asked = [*project["dependencies"], *(name for names in extras for name in names)]
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in asked}
    locked = set(re.findall(r"^([a-z0-9][\w.-]*)==", (repository / "requirements.lock").read_text(), re.MULTILINE))

    assert names <= locked


def imported_packages(folder: Path) -> set[str]:
    """The top-level names that a folder's modules import, at the top or inside a function."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src/liberate", []),
        ("src/liberate_studies", ["studies"]),
        ("tests", ["dev", "studies"]),
        ("scripts", []),
        ("benchmarks", []),
        ("examples", []),
    ],
)
def test_every_imported_package_is_declared(repository: Path, folder: str, extras: list[str]) -> None:
    distributions = packages_distributions()
    own = {"liberate", "liberate_studies", "tests", "scripts", "benchmarks"}
    third_party = imported_packages(repository / folder) - set(sys.stdlib_module_names) - own
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    asked = project["dependencies"] + [requirement for extra in extras for requirement in optional[extra]]
    declared = {re.split(r"[^\w.-]", requirement)[0] for requirement in asked}

    missing = {
        name for name in third_party if declared.isdisjoint(d.lower().replace("_", "-") for d in distributions[name])
    }

    assert missing == set()


def test_every_declared_dependency_is_imported(repository: Path) -> None:
    distributions = packages_distributions()
    imported = {
        distribution.lower().replace("_", "-")
        for name in imported_packages(repository / "src") - set(sys.stdlib_module_names)
        for distribution in distributions.get(name, [])
    }
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]

    assert {re.split(r"[^\w.-]", requirement)[0] for requirement in project["dependencies"]} <= imported
