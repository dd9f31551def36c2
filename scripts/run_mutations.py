"""Take each answer to an attack out of the code, and see that its tests fail without it.

`tests/mutations/*.toml` says for each attack which text of which file answers it, what is left when the answer is taken
out, and which tests have to notice. A copy of the sources is changed, never the sources themselves.

    python scripts/run_mutations.py [--only WORD] [FILE.toml ...]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MUTATIONS = REPOSITORY / "tests" / "mutations"

# Always the same folder: compiled loops are found again by the path of their source.
COPY = REPOSITORY / "build" / "mutations"
TIME_LIMIT_S = 900
TESTS_FAILED = 1
"""Exit status of pytest when tests ran and some failed; errors in collecting them have another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One answer, and how it is taken out.

    Attributes:
        threat: What it answers.
        file: Where it stands, relative to the repository.
        find: Its text, which occurs there once.
        replace: What is left.
        tests: Node ids of the tests of which one at least must fail then.
    """

    threat: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]


def read_mutations(paths: Iterable[Path]) -> list[Mutation]:
    """Return the mutations in some files.

    Raises:
        ValueError: One is incomplete, or its text does not occur exactly once.
    """
    found = []
    for path in paths:
        for table in tomllib.loads(path.read_text("utf-8")).get("mutation", []):
            mutation = Mutation(**{**table, "tests": tuple(table["tests"])})
            count = (REPOSITORY / mutation.file).read_text("utf-8").count(mutation.find)
            if count != 1 or mutation.find == mutation.replace:
                raise ValueError(
                    f"{path.name}: the text for {mutation.threat!r} occurs {count} times in {mutation.file}"
                )
            found.append(mutation)
    return found


def copy_sources() -> None:
    """Make the copy anew where it differs; files that are the same keep their times, and so their compiled loops."""
    source, target = REPOSITORY / "src", COPY / "src"
    wanted = {path.relative_to(source) for path in source.rglob("*.py")}
    for stale in {path.relative_to(target) for path in target.rglob("*.py")} - wanted:
        (target / stale).unlink()
    for path in wanted:
        copy = target / path
        if not copy.exists() or copy.read_bytes() != (source / path).read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / path, copy)


def is_noticed(mutation: Mutation) -> bool:
    """Whether a test of a mutation fails with it.

    Raises:
        RuntimeError: The tests could not be run.
    """
    changed = COPY / mutation.file
    original = changed.read_text("utf-8")
    stat = changed.stat()
    try:
        changed.write_text(original.replace(mutation.find, mutation.replace), "utf-8")
        return _run_tests(mutation.tests) == TESTS_FAILED
    finally:
        changed.write_text(original, "utf-8")
        os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _run_tests(tests: Sequence[str]) -> int:
    """Run tests on the copy, and return pytest's exit status: 0 all pass, 1 some fail.

    Raises:
        RuntimeError: There are no such tests, or they could not be run.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(COPY / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
    )
    if done.returncode not in (0, TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return done.returncode


def main() -> int:
    """Run the mutations that are asked for, say what became of each, and return 1 if one went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="files with mutations; by default all")
    parser.add_argument("--only", default="", help="a word that the threat, or a test, has to contain")
    arguments = parser.parse_args()

    files = arguments.files or sorted(MUTATIONS.glob("*.toml"))
    chosen = [m for m in read_mutations(files) if arguments.only in f"{m.threat} {' '.join(m.tests)}"]
    copy_sources()

    unnoticed = 0
    for mutation in chosen:
        noticed = is_noticed(mutation)
        unnoticed += not noticed
        print(f"{'noticed  ' if noticed else 'UNNOTICED'}  {mutation.file}: {mutation.threat}", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} mutations are noticed")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
