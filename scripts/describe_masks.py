"""Write the tables in docs/reference/mask-parameters.md from the bounds on masks, or check what is there.

python -m scripts.describe_masks [--check]

It takes some minutes: the largest cohorts are searched where no masks are left.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

from liberate.errors import PrivacyError
from liberate.privacy.mask_parameters import (
    PLANNED_BITS,
    MaskAssumptions,
    complete_thresholds,
    mask_parameters,
    most_colluders,
    strays,
)
from scripts.generated_page import replaced, write_or_check

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "mask-parameters.md"
BEGIN, END = "<!-- masks: begin, written by scripts/describe_masks.py -->\n", "<!-- masks: end -->\n"
COHORTS = (100, 943, 6_040, 1_000_000)
COLLUDERS = (5, 10, 20, 30, 40)
DROPOUTS = (5, 10, 20)
LATE = 2
PARTIES = range(3, 21)
PARTY_CASES = ((1, 0), (1, 1), (2, 0), (2, 1), (3, 1), (3, 2))
ATTEMPTS = 64


def main() -> int:
    """Write the page, or with `--check` return 1 if it is not what the code says."""
    return write_or_check(PAGE, described)


def described(page: str) -> str:
    """Return the page with the tables as they are now."""
    return replaced(page, BEGIN, END, tables())


def tables() -> Iterator[str]:
    """Every table, line by line."""
    for n in COHORTS:
        yield f"\n### {n:,} people\n"
        columns = ("colluders", "dropouts", "degree", "threshold", "strays", "noise", "bears up to", "2 % late")
        yield "| " + " | ".join(columns) + " |"
        yield "|---|" + "---|" * (len(columns) - 1)
        yield from (people_row(n, colluders, dropouts) for colluders in COLLUDERS for dropouts in DROPOUTS)

    yield "\n### Where masks end\n"
    yield "| people | " + " | ".join(f"{dropouts} % dropouts" for dropouts in DROPOUTS) + " |"
    yield "|---|" + "---|" * len(DROPOUTS)
    for n in COHORTS:
        yield f"| {n:,} | " + " | ".join(f"{most_borne(n, dropouts):.1f} %" for dropouts in DROPOUTS) + " |"

    yield "\n### 3 to 20 parties\n"
    yield "| parties | " + " | ".join(f"{colluders} / {dropouts}" for colluders, dropouts in PARTY_CASES) + " |"
    yield "|---|" + "---|" * len(PARTY_CASES)
    yield from (party_row(n) for n in PARTIES)


def people_row(n: int, colluders: int, dropouts: int) -> str:
    """What masks must be for so many people, of whom such percentages collude and drop out."""
    assumptions = assumed(n, per_cent(n, colluders), per_cent(n, dropouts))
    late = assumed(n, per_cent(n, colluders), per_cent(n, dropouts), per_cent(n, LATE))
    try:
        parameters, fewer_late = mask_parameters(assumptions), mask_parameters(late)
    except PrivacyError:
        return f"| {colluders} % | {dropouts} % | none | none | | none | | none |"

    missing = strays(parameters, assumptions, bits=PLANNED_BITS)
    borne = most_colluders(parameters, assumptions)
    degree = f"{parameters.degree}, everybody" if parameters.degree == n - 1 else parameters.degree
    return (
        f"| {colluders} % | {dropouts} % | {degree} | {parameters.threshold} | {missing:,} "
        f"| {inflation(n, assumptions.honest_survivors - missing)} | {borne:,} "
        f"| {fewer_late.degree} / {fewer_late.threshold} |"
    )


def party_row(n: int) -> str:
    """The complete graph's thresholds and noise among so few that each is told by name."""
    cells = []
    for colluders, dropouts in PARTY_CASES:
        thresholds = complete_thresholds(assumed(n, colluders, dropouts))
        honest = n - colluders - dropouts
        spread = f"{thresholds[0]} to {thresholds[-1]}" if len(thresholds) > 1 else "".join(map(str, thresholds))
        cells.append(f"{spread or 'none'}; {inflation(n, honest)}")
    return f"| {n} | " + " | ".join(cells) + " |"


def most_borne(n: int, dropouts: int) -> float:
    """The most colluders, in tenths of a percent, for whom there are masks."""
    found, none = 0, 1000
    while none - found > 1:
        middle = (found + none) // 2
        try:
            mask_parameters(assumed(n, n * middle // 1000, per_cent(n, dropouts)))
            found = middle
        except PrivacyError:
            none = middle
    return found / 10


def assumed(n: int, colluders: int, dropouts: int, late: int | None = None) -> MaskAssumptions:
    """Numbers of people as masks assume them; unless told otherwise, everybody who drops out does so late."""
    return MaskAssumptions(
        n_participants=n,
        max_colluders=colluders,
        max_dropouts=dropouts,
        max_late_dropouts=dropouts if late is None else late,
        max_attempts=ATTEMPTS,
    )


def per_cent(n: int, percentage: int) -> int:
    """A percentage of people, rounded up."""
    return -(-n * percentage // 100)


def inflation(n: int, counted: int) -> str:
    """By how much noise grows if only so many people's noise is counted on."""
    return f"{math.sqrt(n / counted):.3f}" if counted > 0 else "none"


if __name__ == "__main__":
    sys.exit(main())
