"""How our figures look: one size, few colours with fixed meanings, and names beside the lines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_INCH = 7.3
"""700 pixels in a browser."""

OPEN, PRIVATE, RECORDED, FREE = "#1f5fa8", "#c4561a", "#2a7f62", "#77797d"
"""Learning without privacy; with it; what the ledger adds; what costs nothing."""


def style() -> AbstractContextManager[None]:
    """Return the context in which our figures are drawn and saved; in it they come out the same each time."""
    return mpl.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.labelsize": 9,
            "axes.labelcolor": "#3a3c40",
            "axes.edgecolor": "#9a9ca0",
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": "#3a3c40",
            "ytick.color": "#3a3c40",
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "lines.linewidth": 1.8,
            "figure.facecolor": "white",
            "figure.constrained_layout.w_pad": 0.08,
            "figure.constrained_layout.h_pad": 0.06,
            "svg.fonttype": "path",
            "svg.hashsalt": "liberate",
        }
    )


def panels(
    height_inch: float,
    n_rows: int,
    n_columns: int,
    *,
    sharey: bool = False,
    width_ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels, row by row."""
    figure = Figure(figsize=(WIDTH_INCH, height_inch), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=sharey, width_ratios=width_ratios)
    return figure, list(grid.flat)


def name_beside(axes: Axes, names: Sequence[tuple[float, str, str]], gap: float = 0.085) -> None:
    """Write names to the right of a panel at the height of what they name, moved apart where they would overlap.

    Args:
        axes: A panel whose limits are final.
        names: (height in data units, text, colour).
        gap: Least distance between two lines, as a share of the panel's height.
    """
    axes.get_ylim()  # brings limits up to date that are still to be worked out
    to_share = axes.transData + axes.transAxes.inverted()
    placed = sorted((float(to_share.transform((0, y))[1]), text, colour) for y, text, colour in names)

    heights = apart([height for height, _, _ in placed], gap)
    for height, (_, text, colour) in zip(heights, placed, strict=True):
        axes.text(1.02, height, text, color=colour, transform=axes.transAxes, va="center", fontsize=8.5)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move increasing heights apart to be `gap` from one another; those that touch keep their middle."""
    groups: list[list[float]] = []  # heights that touch, moved together
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _bottom(groups[-2], gap) + len(groups[-2]) * gap:
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, gap) + i * gap for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - (len(group) - 1) * gap / 2


def epsilon_axis(axes: Axes, epsilons: Sequence[int], meaningful: float | None = None) -> None:
    """Make the x-axis one of epsilon, logarithmic; shade where a promise means something, if it does not everywhere."""
    axes.set_xscale("log", base=2)
    axes.set(xlabel="ε of a person, whole run", xlim=(epsilons[0] / 1.6, epsilons[-1] * 1.6))
    axes.set_xticks(epsilons, [f"{epsilon:,}" for epsilon in epsilons], rotation=45, ha="right", rotation_mode="anchor")
    axes.minorticks_off()
    if meaningful is not None:
        axes.axvspan(epsilons[0] / 1.6, meaningful * 1.3, color="#f3f1ec", linewidth=0, zorder=-1)


def name_bars(axes: Axes, names: Sequence[str], places: Sequence[float] | None = None) -> None:
    """Write names to the left of horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)) if places is None else places, names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()


def mark_levels(axes: Axes, marks: Sequence[tuple[float, str, str]]) -> None:
    """Draw a thin line across a panel at each (height, name, colour)."""
    for height, _, colour in marks:
        axes.axhline(height, color=colour, linewidth=0.9, zorder=0)
