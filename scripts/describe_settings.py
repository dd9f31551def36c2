"""Write the tables in docs/reference/settings.md from the settings' classes, or check what is there.

python -m scripts.describe_settings [--check]
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from liberate.settings import SECTIONS
from scripts.generated_page import replaced, write_or_check

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "settings.md"
BEGIN, END = "<!-- settings: begin, written by scripts/describe_settings.py -->\n", "<!-- settings: end -->\n"
WORDS = {bool: "`true` or `false`", int: "integer", float: "number", str: "text", NoneType: "unset"}


def main() -> int:
    """Write the page, or with `--check` return 1 if it is not what the code says."""
    return write_or_check(PAGE, described)


def described(page: str) -> str:
    """Return the page with the settings as they are now."""
    return replaced(page, BEGIN, END, sections())


def sections() -> Iterator[str]:
    """Every section with a row for each of its settings."""
    for section, kind in SECTIONS.items():
        meanings = documented_attributes(kind)
        hints = get_type_hints(kind, include_extras=True)

        yield f"\n## [{section}]\n"
        yield first_paragraph(kind) + "\n"
        yield "| key | type | default | meaning |\n|---|---|---|---|"
        for field in dataclasses.fields(kind):
            words = f"{type_in_words(hints[field.name])} | {default_of(field)} | {meanings[field.name]}"
            yield f"| `{section}.{field.name}` `{environment_name(section, field.name)}` | {words} |"


def environment_name(section: str, key: str) -> str:
    """The environment variable that sets a key."""
    return f"LIBERATE_{section}_{key}".upper()


def first_paragraph(kind: type) -> str:
    """What a section is for."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def documented_attributes(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each of its attributes."""
    text = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")[2]
    rows = re.findall(r"^    (\w+): (.+(?:\n     +.+)*)", text, re.MULTILINE)
    return {name: " ".join(meaning.split()).replace("|", "\\|") for name, meaning in rows}


def type_in_words(hint: object) -> str:
    """The values that a setting takes.

    Raises:
        TypeError: There are no words for such a type yet.
    """
    arguments = get_args(hint)
    if isinstance(hint, type) and hint in WORDS:
        return WORDS[hint]
    if get_origin(hint) is Annotated:
        return type_in_words(arguments[0])
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if get_origin(hint) in (UnionType, Union):
        return " or ".join(map(type_in_words, arguments))
    if get_origin(hint) is tuple:
        return f"list of {type_in_words(arguments[0])}"
    if get_origin(hint) is dict:
        return f"table: {type_in_words(arguments[0])} = {type_in_words(arguments[1])}"
    raise TypeError(f"no words for {hint}")


def default_of(field: dataclasses.Field[object]) -> str:
    """A setting's default as TOML writes it."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value is None:
        return "unset"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.exit(main())
