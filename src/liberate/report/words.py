"""How the report writes numbers, and what it says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, assert_never

if TYPE_CHECKING:
    from liberate.ledger.verification.verify import VerificationReport

Direction = Literal["lower", "higher", "neither"]

_COLUMNS: dict[str, tuple[str, Direction]] = {
    "rmse": ("RMSE", "lower"),
    "ndcg_at_10": ("NDCG@10", "higher"),
    "recall_at_10": ("Recall@10", "higher"),
    "coverage": ("Coverage", "neither"),
    "gini": ("Gini", "neither"),
    "ild": ("Diversity", "neither"),
}
"""Metrics by name: how they are headed, and which direction is better."""

_AS_GOOD = 0.0005
"""Differences below this do not show in three digits."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Column:
    """A metric's heading and which direction is better."""

    title: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class TableCell:
    """A metric's value as text, and whether none in its column is better."""

    text: str
    is_best: bool


def trust(report: VerificationReport) -> str:
    """Say how far a ledger is trusted that was verified, and why no further."""
    match report.distrust:
        case "simulated":
            return "never trusted: whoever knows the seed of a simulation has its keys, and can sign anything"
        case "wrong_key":
            return "not trusted: the key given is not the one that the genesis names"
        case "findings":
            return "not trusted: something is wrong"
        case "no_key":
            return (
                "not trusted: without --key this shows only that the ledger is consistent; its operator could have"
                " rewritten and re-signed all of it"
            )
        case "not_cosigned":
            return (
                f"trusted are the first {report.trusted_size} of {report.entry_count} entries: no checkpoint over more"
                " has the cosignatures that the genesis wants"
            )
        case None if report.cosigned_size is None:
            return (
                "trusted as far as the key goes: the genesis wants no witness, so whether others were shown another"
                " ledger, only kept checkpoints tell"
            )
        case None:
            return "trusted: the key is the log's, and enough witnesses have cosigned all entries"
        case _:
            assert_never(report.distrust)


def decimal(value: float | None, digits: int = 4) -> str:
    """Write a number with so many digits after the point; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def significant(value: float | None) -> str:
    """Write a number with three significant digits, plainly."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def epsilon(value: float | None) -> str:
    """Write an epsilon; None is what nothing bounds."""
    return "no bound" if value is None else significant(value)


def scientific(value: float) -> str:
    """Write a small number as a power of ten, such as 2.5 × 10⁻⁶."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    factor = mantissa.rstrip("0").rstrip(".")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if factor == "1" else f"{factor} × {power}"


def seconds(value: float) -> str:
    """Write a duration."""
    if value >= 60:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest} s"
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def percent(value: float) -> str:
    """Write a share."""
    return f"{100 * value:.0f} %" if value >= 0.01 or value == 0 else "< 1 %"


def count(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """Write a clause as a sentence."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def pixels(value: float) -> str:
    """Write a place in a drawing."""
    return f"{value:.1f}".removesuffix(".0")


def metric_table(rows: Mapping[str, Mapping[str, float | None]]) -> tuple[list[Column], dict[str, list[TableCell]]]:
    """Set metrics beside one another.

    Args:
        rows: Metrics by name, by whom they judge; a metric that nobody has is left out.
    """
    shown = [key for key in _COLUMNS if any(_known(row.get(key)) is not None for row in rows.values())]
    best = {}
    for key in shown:
        values = [value for row in rows.values() if (value := _known(row.get(key))) is not None]
        best[key] = {"lower": min(values), "higher": max(values), "neither": None}[_COLUMNS[key][1]]
    cells = {
        name: [TableCell(decimal(row.get(key)), best[key] is not None and row.get(key) == best[key]) for key in shown]
        for name, row in rows.items()
    }
    return [Column(*_COLUMNS[key]) for key in shown], cells


def comparison(key: str, value: float, baselines: Mapping[str, Mapping[str, float]]) -> str:
    """Say how a metric stands beside the best of what costs nothing, such as "0.045 better than ..."."""
    sign = -1 if _COLUMNS[key][1] == "lower" else 1
    known = {name: sign * row[key] for name, row in baselines.items() if _known(row.get(key)) is not None}
    if not known or not math.isfinite(value):
        return "nothing was held out to judge it by"
    name = max(known, key=known.__getitem__)
    gain = sign * value - known[name]
    if abs(gain) < _AS_GOOD:
        return f"as good as the free baseline “{name}”"
    return f"{abs(gain):.3f} {'better' if gain > 0 else 'worse'} than the free baseline “{name}”"


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
