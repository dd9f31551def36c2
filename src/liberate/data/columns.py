"""Which column of a file plays which role: by the name that a person states, or by the names in common use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from liberate.errors import DataError

ALIASES: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "user", "uid", "user_name", "customer_id", "reviewer_id"),
    "item": ("item_id", "item", "movie_id", "movie", "book_id", "product_id", "parent_asin", "asin", "isbn", "iid"),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
    "timestamp": ("timestamp", "time", "unix_time", "unix_review_time"),
    "title": ("movie_title", "title", "name"),
    "year": ("release_year", "year"),
    "genres": ("genres", "genre", "class", "categories", "category"),
}
"""Column names that are found without being told, best first; `UserID` and `user-id` are read as `user_id`."""

RATING_ROLES: Mapping[str, bool] = {"user": True, "item": True, "rating": True, "timestamp": False}
"""What a column of a file of ratings can be, and whether there must be one."""


def choose_columns(
    path: Path, names: Sequence[str], roles: Mapping[str, bool], columns: Mapping[str, str], *, line: int | None
) -> dict[str, int]:
    """Find the column of each role.

    Args:
        path: The file, for the error.
        names: The names of the file's columns.
        roles: The roles wanted, and whether each is required.
        columns: For some roles, the exact name of the column; the others are found by `ALIASES`.
        line: Line of the header, for the error.

    Raises:
        DataError: A required column is missing, or two columns have one name.
    """
    chosen = {}
    for role, is_required in roles.items():
        if role in columns:
            places = [place for place, name in enumerate(names) if name == columns[role]]
            wanted = f"named {columns[role]!r}"
        else:
            places = _places_by_alias(names, role)
            wanted = f"such as {', '.join(ALIASES[role][:3])}"

        if len(places) > 1:
            raise DataError(f"{len(places)} columns are called {names[places[0]]!r}", path=str(path), line=line)
        if places:
            chosen[role] = places[0]
        elif is_required or role in columns:
            raise DataError(
                f"there is no {role} column ({wanted}); the columns are {', '.join(map(repr, names))}",
                path=str(path),
                line=line,
                hint=f"say which column holds the {role}",
            )
    return chosen


def _places_by_alias(names: Sequence[str], role: str) -> list[int]:
    """Return the places of the columns that have the best alias of a role that any column has."""
    plain = [_plain(name) for name in names]
    alias = next((alias for alias in map(_plain, ALIASES[role]) if alias in plain), None)
    return [place for place, name in enumerate(plain) if name == alias]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
