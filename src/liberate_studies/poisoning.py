"""Poisoning: what hostile people do to a model in mode `plain`, what limits and trimming take from it, who is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, panels
from liberate_studies.findings import Row, Study, StudyResults, header, number, table
from liberate_studies.poisoners import TRIM, UNCHECKED, WATCHED, Aim, Defence, Poisoning, PoisoningEffect, poisoned
from liberate_studies.worlds import Job, World

Statistic = Literal["normal", "gradient"]

_WAYS: tuple[tuple[Statistic, Defence], ...] = (
    ("normal", "none"),
    ("normal", "limits"),
    ("gradient", "none"),
    ("gradient", "limits"),
    ("gradient", "limits and trimming"),
)
_NAMES: dict[Statistic, str] = {"normal": "normal equations", "gradient": "gradient"}
_COLOURS = dict(zip(_WAYS, (FREE, OPEN, FREE, RECORDED, PRIVATE), strict=True))
_LINES = dict(zip(_WAYS, ("-", "-", "--", "-", "-"), strict=True))
_ROUNDS: dict[Statistic, int] = {"normal": 8, "gradient": 25}
_QUICK_ROUNDS: dict[Statistic, int] = {"normal": 4, "gradient": 6}
_SHARES, _QUICK_SHARES = (0.01, 0.05, 0.2), (0.05, 0.2)
_MANY_PEOPLE, _MANY_SHARES = 2_000, (0.01, 0.05)
"""People from which on larger shares are left out, for the time that they take."""

_ALIKE = 10
_FOUND = ("found by size", "by fit", "by held out")
_QUANTILES: dict[str, float] = {"of an item rated seldom": 0.5, "of an item rated often": 0.9}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisoningTrial:
    """An attack, and what it came to.

    Attributes:
        attack: The attack.
        name: What the poisoners want, in words.
        outcome: What it came to.
    """

    attack: Poisoning
    name: str
    outcome: PoisoningEffect

    @property
    def way(self) -> tuple[Statistic, Defence]:
        return self.attack.statistic, self.attack.defence


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    rounds, shares = (_QUICK_ROUNDS, _QUICK_SHARES) if is_quick else (_ROUNDS, _shares(world))
    jobs: dict[Statistic, Job] = {
        statistic: world.job("privacy.mode=plain", f"model.statistic={statistic}") for statistic in _NAMES
    }
    targets = _targets(jobs["normal"])
    trials: list[PoisoningTrial] = []
    for statistic, defence in _WAYS:
        for name, attack in _attacks(statistic, defence, shares, targets):
            progress(f"{_NAMES[statistic]}, {defence}: {100 * attack.share:.0f} % want {name}")
            outcome = poisoned(jobs[statistic], attack, rounds[statistic])
            trials.append(PoisoningTrial(attack=attack, name=name, outcome=outcome))
    counts = np.bincount(jobs["normal"].split.train.items)
    return StudyResults(
        rows=[_row(trial) for trial in trials],
        page=_page(world, trials, rounds, {name: int(counts[item]) for name, item in targets.items()}),
        figure=_figure(trials, shares),
        alt="Left and middle: without a check one per cent of the people spoil every prediction, within limits they do "
        "little. Right: how many lists an item gets onto that poisoners promote.",
    )


def _shares(world: World) -> tuple[float, ...]:
    return _MANY_SHARES if len(world.dataset.user_ids) >= _MANY_PEOPLE else _SHARES


def _targets(job: Job) -> dict[str, int]:
    """Choose the items to be promoted: of those rated about as often the one that is liked least."""
    own = job.split.train
    counts = np.bincount(own.items, minlength=own.n_items)
    means = np.bincount(own.items, own.values, own.n_items) / np.maximum(counts, 1)
    order = np.argsort(counts, kind="stable")
    chosen = {}
    for name, quantile in _QUANTILES.items():
        place = int(quantile * len(order))
        alike = order[max(0, place - _ALIKE) : place + _ALIKE + 1]
        chosen[name] = int(alike[means[alike].argmin()])
    return chosen


def _attacks(
    statistic: Statistic, defence: Defence, shares: Sequence[float], targets: dict[str, int]
) -> list[tuple[str, Poisoning]]:
    quiet = Poisoning(statistic=statistic, defence=defence)
    attacks = [(f"promotion {name}", replace(quiet, target=item)) for name, item in targets.items()]
    for share in shares:
        aims: tuple[Aim, ...] = ("random", "sign flip")
        attacks += [(aim, replace(quiet, aim=aim, share=share)) for aim in aims]
        attacks += [
            (f"promotion {name}", replace(quiet, aim="promotion", share=share, target=item))
            for name, item in targets.items()
        ]
    return attacks


def _row(trial: PoisoningTrial) -> Row:
    attack, outcome = trial.attack, trial.outcome
    return {
        "series": "poisoning",
        "statistic": attack.statistic,
        "defence": attack.defence,
        "aim": trial.name,
        "share": attack.share,
        "rmse": outcome.rmse,
        "target_predicted": outcome.predicted,
        "target_listed": outcome.listed,
        "found_by_size": outcome.by_size,
        "found_by_fit": outcome.by_fit,
        "found_by_held_out": outcome.by_held_out,
    }


def _page(world: World, trials: Sequence[PoisoningTrial], rounds: dict[Statistic, int], counts: dict[str, int]) -> str:
    items = " and ".join(f"the one {name.removeprefix('of an item ')} has {n:,} ratings" for name, n in counts.items())
    return "\n\n".join(
        [
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
            table(
                ["learned by", "checked", "poisoners", "aim", "RMSE of the others", *_FOUND],
                [_cells(t) for t in trials if t.attack.aim in ("random", "sign flip") or _begins(t, trials)],
            ),
            "RMSE is of held-out ratings of those who are no poisoners; a dash: no model follows from the sum, and the "
            "round is closed as aborted.\n"
            "As many people are named as there are poisoners, so precision and recall are one number: those with the "
            "largest rows, those without whom the others' fit would gain most, and those without whom predictions of "
            "held-out ratings would, which a simulation alone knows.\n"
            f"It is what `trace --influence` says, over the first {WATCHED} rounds.",
            "## Promotion of an item",
            table(
                ["learned by", "checked", "poisoners", "item", "predicted", "listed", "RMSE", *_FOUND],
                [_promotion_cells(trial) for trial in trials if trial.name.startswith("promotion")],
            ),
            f"Predicted for, and in the ten best items of, those who have not rated it.\n"
            f"Of the two items {items}; neither is liked much.\n"
            "A trimmed sum keeps an item where it was as long as poisoners are a smaller part of its raters than is "
            "left out; of a rare item they soon are the greater part.",
        ]
    )  # fmt: skip


def _begins(trial: PoisoningTrial, trials: Sequence[PoisoningTrial]) -> bool:
    """Whether this is the first trial of its way of learning: one without poisoners."""
    return trial is next(other for other in trials if other.way == trial.way)


def _cells(trial: PoisoningTrial) -> list[str]:
    outcome = trial.outcome
    aim = trial.attack.aim or "nothing"
    return [*_begin(trial), aim, number(outcome.rmse), *_found(outcome)]


def _promotion_cells(trial: PoisoningTrial) -> list[str]:
    outcome = trial.outcome
    return [
        *_begin(trial),
        trial.name.removeprefix("promotion of an item rated "),
        number(outcome.predicted, 2),
        _share(outcome.listed),
        number(outcome.rmse),
        *_found(outcome),
    ]


def _begin(trial: PoisoningTrial) -> list[str]:
    attack = trial.attack
    return [_NAMES[attack.statistic], attack.defence, f"{100 * attack.share:.0f} %"]


def _found(outcome: PoisoningEffect) -> list[str]:
    return [_share(value) for value in (outcome.by_size, outcome.by_fit, outcome.by_held_out)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _figure(trials: Sequence[PoisoningTrial], shares: Sequence[float]) -> Figure:
    figure, axes = panels(3.4, 1, 3)
    random, flip, lists = axes
    heights = _heights(trials)
    for way in _WAYS:
        own = [trial for trial in trials if trial.way == way]
        for place, aim in ((random, "random"), (flip, "sign flip")):
            errors = [own[0].outcome.rmse, *(trial.outcome.rmse for trial in own if trial.name == aim)]
            _draw(place, errors, way)
            gone = [x for x, error in enumerate(errors) if error is None]
            place.plot(gone, [heights[1] - 0.01] * len(gone), color=_COLOURS[way], marker="x", linestyle="")
        listed = [trial.outcome.listed for trial in own if trial.name.endswith("rated often")]
        _draw(lists, [None if share is None else 100 * share for share in listed], way)
    for place, title in ((random, "Random uploads"), (flip, "Flipped signs")):
        place.set(title=title, ylabel="RMSE of the others, x: no model", ylim=heights)
    lists.set(title="Promotion of an item", ylabel="% of lists that have it, rated often", ylim=(-4, 104))
    for place in axes:
        place.set_xlabel("% of the people poison")
        place.set_xticks(range(len(shares) + 1), ["0", *(f"{100 * share:.0f}" for share in shares)])
    handles, labels = random.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def _draw(axes: Axes, found: Sequence[float | None], way: tuple[Statistic, Defence]) -> None:
    name = f"{_NAMES[way[0]]}, {'no check' if way[1] == 'none' else way[1]}"
    heights = [np.nan if value is None else value for value in found]
    axes.plot(heights, color=_COLOURS[way], linestyle=_LINES[way], marker="o", markersize=4, label=name)


def _heights(trials: Sequence[PoisoningTrial]) -> tuple[float, float]:
    """Give limits that show every attack within limits."""
    errors = [
        trial.outcome.rmse for trial in trials if trial.attack.defence != "none" and trial.outcome.rmse is not None
    ]
    return min(errors) - 0.02, max(errors) + 0.05


STUDY = Study(default_source="ml-100k", run=_run)
