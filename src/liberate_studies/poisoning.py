"""Poisoning: what hostile people do to a model in mode `plain`, what limits and trimming take from it, who is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, panels
from liberate_studies.poisoners import (
    TRIM,
    UNCHECKED,
    WATCHED,
    Aim,
    Defence,
    Poisoning,
    PoisoningEffect,
    Statistic,
    poisoned,
)
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import header, number, percent, table_of
from liberate_studies.worlds import Job, World

_NAMES: dict[Statistic, str] = {"normal": "normal equations", "gradient": "gradient"}
_LINES: dict[tuple[Statistic, Defence], tuple[str, str]] = {
    ("normal", "none"): (FREE, "-"),
    ("normal", "limits"): (OPEN, "-"),
    ("gradient", "none"): (FREE, "--"),
    ("gradient", "limits"): (RECORDED, "-"),
    ("gradient", "limits and trimming"): (PRIVATE, "-"),
}
"""Colour and style in figures of each way of learning."""

_WAYS = tuple(_LINES)
_ROUNDS: dict[Statistic, int] = {"normal": 8, "gradient": 25}
_QUICK_ROUNDS: dict[Statistic, int] = {"normal": 4, "gradient": 6}
_SHARES, _QUICK_SHARES = (0.01, 0.05, 0.2), (0.05, 0.2)
_MANY_PEOPLE, _MANY_SHARES = 2_000, (0.01, 0.05)
"""People from which on larger shares are left out, for the time that they take."""

_ALIKE = 10
_QUANTILES: dict[str, float] = {"of an item rated seldom": 0.5, "of an item rated often": 0.9}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisoningTrial:
    """An attack, and what it came to.

    Attributes:
        attack: The attack.
        aim: What the poisoners want, in words.
        outcome: What it came to.
    """

    attack: Poisoning
    aim: str
    outcome: PoisoningEffect

    @property
    def way(self) -> tuple[Statistic, Defence]:
        return self.attack.statistic, self.attack.defence


Column = tuple[str, Callable[[PoisoningTrial], str]]


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    world = study.world
    rounds, shares = (_QUICK_ROUNDS, _QUICK_SHARES) if study.is_quick else (_ROUNDS, _shares(world))
    jobs = {name: world.job("privacy.mode=plain", f"model.statistic={name}") for name in _NAMES}
    targets = _targets(jobs["normal"])

    trials = []
    for way, (aim, attack) in product(_WAYS, _attacks(shares, targets)):
        statistic, defence = way
        study.progress(f"{_NAMES[statistic]}, {defence}: {100 * attack.share:.0f} % want {aim}")
        planned = replace(attack, statistic=statistic, defence=defence)
        outcome = poisoned(jobs[statistic], planned, rounds[statistic])
        trials.append(PoisoningTrial(attack=planned, aim=aim, outcome=outcome))

    counts = np.bincount(jobs["normal"].split.train.items)
    return StudyResults(
        rows={"trials": trials},
        page=_page(world, trials, rounds, {name: int(counts[item]) for name, item in targets.items()}),
        figure=_figure(trials, shares),
        alt="Left and middle: without a check one per cent of the people spoil every prediction, within limits they do "
        "little. Right: how many lists an item gets onto that poisoners promote.",
    )


def _shares(world: World) -> tuple[float, ...]:
    return _MANY_SHARES if len(world.dataset.user_ids) >= _MANY_PEOPLE else _SHARES


def _targets(job: Job) -> dict[str, int]:
    """Choose the items to be promoted: of those rated about as often the one that is liked least."""
    ratings = job.split.train
    counts = np.bincount(ratings.items, minlength=ratings.n_items)
    means = np.bincount(ratings.items, ratings.values, ratings.n_items) / np.maximum(counts, 1)
    order = np.argsort(counts, kind="stable")

    chosen = {}
    for name, quantile in _QUANTILES.items():
        place = int(quantile * len(order))
        alike = order[max(0, place - _ALIKE) : place + _ALIKE + 1]
        chosen[name] = int(alike[means[alike].argmin()])
    return chosen


def _attacks(shares: Sequence[float], targets: dict[str, int]) -> list[tuple[str, Poisoning]]:
    """Return every attack, whatever is learned and checked, each with what it wants in words."""
    attacks = [(f"promotion {name}", Poisoning(target=item)) for name, item in targets.items()]
    for share in shares:
        aims: tuple[Aim, ...] = ("random", "sign flip")
        attacks += [(aim, Poisoning(aim=aim, share=share)) for aim in aims]
        attacks += [
            (f"promotion {name}", Poisoning(aim="promotion", share=share, target=item))
            for name, item in targets.items()
        ]
    return attacks


_BEGIN: tuple[Column, ...] = (
    ("learned by", lambda trial: _NAMES[trial.attack.statistic]),
    ("checked", lambda trial: trial.attack.defence),
    ("poisoners", lambda trial: percent(trial.attack.share)),
)
_FOUND: tuple[Column, ...] = (
    ("found by size", lambda trial: percent(trial.outcome.by_size)),
    ("by fit", lambda trial: percent(trial.outcome.by_fit)),
    ("by held out", lambda trial: percent(trial.outcome.by_held_out)),
)


def _page(
    world: World, trials: Sequence[PoisoningTrial], rounds: dict[Statistic, int], counts: dict[str, int]
) -> Sequence[str]:
    return [
        header("Poisoning", world),
        "Some of the people send uploads of their own making in mode `plain`; all else is honest.\n"
        "`random`: taste and ratings at random. "
        "`sign flip`: the negative of what is learned from. "
        "`promotion`: one item is to be liked by everybody, all others by nobody.\n"
        f"They know model and limits, and send the largest upload that passes; where nothing is checked, one "
        f"{UNCHECKED:.0f} times as large as an honest one.\n"
        "Without limits is for this study only: no setting switches them off.\n"
        f"A trimmed sum leaves out {100 * TRIM:.0f} % of the numbers at either end.\n"
        f"Normal equations are learned from in {rounds['normal']} rounds, the gradient in {rounds['gradient']}.",
        *_spoiling(trials),
        *_promotion(trials, counts),
    ]


def _spoiling(trials: Sequence[PoisoningTrial]) -> Sequence[str]:
    # The first trial of each way of learning is without poisoners.
    begins = {trial.way: trial for trial in reversed(trials)}

    return [
        table_of(
            [t for t in trials if t.attack.aim in ("random", "sign flip") or t is begins[t.way]],
            *_BEGIN,
            ("aim", lambda trial: trial.attack.aim or "nothing"),
            ("RMSE of the others", lambda trial: number(trial.outcome.rmse)),
            *_FOUND,
        ),
        "RMSE is of held-out ratings of those who are no poisoners; a dash: no model follows from the sum, and the "
        "round is closed as aborted.\n"
        "As many people are named as there are poisoners, so precision and recall are one number: those with the "
        "largest rows, those without whom the others' fit would gain most, and those without whom predictions of "
        "held-out ratings would, which a simulation alone knows.\n"
        f"It is what `trace --influence` says, over the first {WATCHED} rounds.",
    ]


def _promotion(trials: Sequence[PoisoningTrial], counts: dict[str, int]) -> Sequence[str]:
    items = " and ".join(f"the one {name.removeprefix('of an item ')} has {n:,} ratings" for name, n in counts.items())

    return [
        "## Promotion of an item",
        table_of(
            [trial for trial in trials if trial.aim.startswith("promotion")],
            *_BEGIN,
            ("item", lambda trial: trial.aim.removeprefix("promotion of an item rated ")),
            ("predicted", lambda trial: number(trial.outcome.predicted, 2)),
            ("listed", lambda trial: percent(trial.outcome.listed)),
            ("RMSE", lambda trial: number(trial.outcome.rmse)),
            *_FOUND,
        ),
        "Predicted for, and in the ten best items of, those who have not rated it.\n"
        f"Of the two items {items}; neither is liked much.\n"
        "A trimmed sum keeps an item where it was as long as poisoners are a smaller part of its raters than is "
        "left out; of a rare item they soon are the greater part.",
    ]


def _figure(trials: Sequence[PoisoningTrial], shares: Sequence[float]) -> Figure:
    figure, axes = panels(3.4, 1, 3)
    random, flip, lists = axes
    heights = _heights(trials)
    for way in _WAYS:
        group = [trial for trial in trials if trial.way == way]
        for place, aim in ((random, "random"), (flip, "sign flip")):
            errors = [group[0].outcome.rmse, *(trial.outcome.rmse for trial in group if trial.aim == aim)]
            _draw(place, errors, way)
            gone = [x for x, error in enumerate(errors) if error is None]
            place.plot(gone, [heights[1] - 0.01] * len(gone), color=_LINES[way][0], marker="x", linestyle="")
        listed = [trial.outcome.listed for trial in group if trial.aim.endswith("rated often")]
        _draw(lists, [None if share is None else 100 * share for share in listed], way)

    for place, title in ((random, "Random uploads"), (flip, "Flipped signs")):
        place.set(title=title, ylabel="RMSE of the others, x: no model", ylim=heights)
    lists.set(title="Promotion of an item", ylabel="% of lists that have it, rated often", ylim=(-4, 104))
    for place in axes:
        labels = [f"{100 * share:.0f}" for share in (0.0, *shares)]
        place.set(xlabel="% of the people poison", xticks=range(len(labels)), xticklabels=labels)
    figure.legend(*random.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def _draw(axes: Axes, values: Sequence[float | None], way: tuple[Statistic, Defence]) -> None:
    name = f"{_NAMES[way[0]]}, {'no check' if way[1] == 'none' else way[1]}"
    colour, style = _LINES[way]
    heights = [np.nan if value is None else value for value in values]
    axes.plot(heights, color=colour, linestyle=style, marker="o", markersize=4, label=name)


def _heights(trials: Sequence[PoisoningTrial]) -> tuple[float, float]:
    """Return limits that show every attack within limits."""
    checked = [trial.outcome.rmse for trial in trials if trial.attack.defence != "none"]
    errors = [error for error in checked if error is not None]
    return min(errors) - 0.02, max(errors) + 0.05
