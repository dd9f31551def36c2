"""Whose copy leaked: how often marks name a source, how often somebody else, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.arrays import Int32Array, Int64Array
from liberate.data.ratings import Ratings
from liberate.data.splits import Split
from liberate.privacy.attacks import nearest
from liberate.privacy.fingerprinting import (
    FALSE_ACCUSATION,
    REPLACED_AT_END,
    REPLACED_INSIDE,
    fingerprint,
    score_recipient,
)
from liberate.privacy.randomised_response import respond
from liberate.randomness import SimulatedRandomness, generator
from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, panels
from liberate_studies.findings import Row, Study, StudyResults, header, number, table
from liberate_studies.rungs import centralised, judge
from liberate_studies.worlds import SEED, Job, World

RECIPIENTS = 100
_OUTSIDERS = 20
"""Recipients beyond the candidates, whose copies leak too."""

_OWNERS, _QUICK_OWNERS = 0.05, 0.5
"""Part of the people who share."""

_TRIALS, _QUICK_TRIALS = 500, 40
_INNOCENT = 20
"""Times as many leaks where there is no source to be found."""

_DRAWS, _QUICK_DRAWS = 3, 1
"""Times that the cost is measured, with other owners and marks."""

_EPSILON = 2.0
_LARGEST_SCALE = 10
_SIZES = (40, 100, 200, 400)
_MIXED_ROWS = 600
_COALITIONS = (2, 3, 5)

How = Literal["at random", "the commonest", "the mean", "the rarest"]
_HOWS: dict[How, str] = {"at random": OPEN, "the rarest": RECORDED, "the commonest": PRIVATE, "the mean": FREE}

Innocent = Literal["the ratings themselves", "the base copy", "copies of other recipients"]
_INNOCENTS: tuple[Innocent, ...] = ("the ratings themselves", "the base copy", "copies of other recipients")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySet:
    """What the owners handed out, row by row, all owners' rows behind one another.

    Attributes:
        raw: Levels of their ratings, shape (n_rows,).
        base: Levels of the base copies, shape (n_rows,).
        copies: Levels of each recipient's copies, the outsiders' last, shape (n_recipients, n_rows).
        n_levels: Levels of the scale.
    """

    raw: Int32Array
    base: Int32Array
    copies: Int32Array
    n_levels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakScenario:
    """One kind of leak.

    Attributes:
        epsilon: Of each rating in the base copies; None: open.
        rows: Rows that leaked.
        altered: Part of them set to another level at random.
        sources: Number of copies it is made of; 0: none of a candidate.
        how: How the leaked level was chosen among the copies', or what leaked.
    """

    epsilon: float | None
    rows: int
    altered: float
    sources: int
    how: How | Innocent


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What became of many leaks of one kind.

    Attributes:
        leak: The kind.
        trials: Leaks.
        right: Part of them with at least one true source accused; None where there is none.
        wrong: Part of them with anybody else accused.
    """

    leak: LeakScenario
    trials: int
    right: float | None
    wrong: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What marks cost.

    Attributes:
        name: Whose ratings were learned from.
        plain: RMSE of held-out ratings without marks, mean of the draws.
        marked: The same with marks.
    """

    name: str
    plain: float
    marked: float


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    job = world.job("privacy.mode=plain")
    owners = _QUICK_OWNERS if is_quick else _OWNERS
    trials = _QUICK_TRIALS if is_quick else _TRIALS
    found: list[Named] = []
    for epsilon in (None, _EPSILON):
        progress("handing out copies, " + _words(epsilon))
        handed = _handed(job, owners, epsilon)
        progress("attributing leaks")
        rng = generator(SimulatedRandomness(SEED).secret("leaks"))
        found += [
            _attributed(handed, leak, trials if leak.sources else _INNOCENT * trials, rng) for leak in _leaks(epsilon)
        ]
    progress("learning from marked ratings")
    costs = _costs(job, owners, _QUICK_DRAWS if is_quick else _DRAWS)
    return StudyResults(
        rows=_rows(found, costs),
        page=_page(world, owners, found, costs),
        figure=_figure(found),
        alt="Left: the more rows leak, the more surely their source is named. Right: mixtures of copies name a source, "
        "votes and means of several often do not.",
    )


def _leaks(epsilon: float | None) -> list[LeakScenario]:
    single = [
        LeakScenario(epsilon=epsilon, rows=rows, altered=altered, sources=1, how="at random")
        for altered in (0.0, 0.3)
        for rows in _SIZES
    ]
    innocent = [LeakScenario(epsilon=epsilon, rows=_MIXED_ROWS, altered=0.0, sources=0, how=how) for how in _INNOCENTS]
    if epsilon is not None:
        return single[-len(_SIZES) :] + innocent
    mixed = [
        LeakScenario(epsilon=epsilon, rows=_MIXED_ROWS, altered=altered, sources=sources, how=how)
        for how in _HOWS
        for altered in ((0.0, 0.3) if how == "at random" else (0.0,))
        for sources in _COALITIONS
    ]
    return single + mixed + innocent


def _levels(job: Job) -> list[float]:
    """Give the levels of the scale: those that occur, or whole numbers where ratings are not of a few levels."""
    found = np.unique(job.dataset.values).tolist()
    return found if len(found) <= _LARGEST_SCALE else np.arange(job.dataset.low, job.dataset.high + 0.5).tolist()


def _places(ratings: Ratings, levels: Sequence[float]) -> Int32Array:
    places: Int64Array = np.searchsorted(np.asarray(levels), nearest(ratings.values, levels))
    return places.astype(np.int32)


def _some(n_users: int, share: float, draw: int) -> Int64Array:
    """Choose who shares."""
    rng = generator(SimulatedRandomness(SEED).secret("owners", draw))
    return np.sort(rng.permutation(n_users)[: round(share * n_users)])


def _handed(job: Job, share: float, epsilon: float | None) -> CopySet:
    """Let some people hand what they rated to every recipient."""
    levels = _levels(job)
    secrets = SimulatedRandomness(SEED)
    ratings = job.split.train.select(_some(job.split.train.n_users, share, 0))
    raw = _places(ratings, levels)
    base = raw.copy()
    copies = np.empty((RECIPIENTS + _OUTSIDERS, len(raw)), np.int32)
    for owner in range(ratings.n_users):
        own = slice(ratings.indptr[owner], ratings.indptr[owner + 1])
        items = ratings.items[own]
        if epsilon is not None:
            base[own] = respond(raw[own], items, len(levels), epsilon, secrets.secret("answers", owner))
        key = secrets.secret("marks", owner)
        for recipient in range(len(copies)):
            copies[recipient, own] = fingerprint(base[own], items, len(levels), key, recipient)
    return CopySet(raw=raw, base=base, copies=copies, n_levels=len(levels))


def _attributed(handed: CopySet, leak: LeakScenario, trials: int, rng: np.random.Generator) -> Named:
    """Let such leaks happen, and count who is accused."""
    right = wrong = 0
    for _ in range(trials):
        rows = rng.permutation(len(handed.base))[: leak.rows]
        sources = rng.permutation(RECIPIENTS)[: leak.sources]
        leaked = _leaked(handed, leak, rows, sources, rng)
        is_altered = rng.random(len(leaked)) < leak.altered
        others = (leaked + rng.integers(1, handed.n_levels, len(leaked), dtype=np.int32)) % handed.n_levels
        leaked = np.where(is_altered, others, leaked).astype(np.int32)
        found = score_recipient(leaked, handed.base[rows], handed.copies[:RECIPIENTS, rows], handed.n_levels)
        is_source = np.isin(np.arange(RECIPIENTS), sources)
        right += bool((found.accused & is_source).any())
        wrong += bool((found.accused & ~is_source).any())
    return Named(leak=leak, trials=trials, right=right / trials if leak.sources else None, wrong=wrong / trials)


def _leaked(
    handed: CopySet, leak: LeakScenario, rows: Int64Array, sources: Int64Array, rng: np.random.Generator
) -> Int32Array:
    match leak.how:
        case "the ratings themselves":
            return handed.raw[rows]
        case "the base copy":
            return handed.base[rows]
        case "copies of other recipients":
            return np.asarray(handed.copies[RECIPIENTS + rng.integers(_OUTSIDERS), rows], np.int32)
        case _:
            return _mixed(handed.copies[np.ix_(sources, rows)], leak.how, handed.n_levels, rng)


def _mixed(copies: Int32Array, how: How, n_levels: int, rng: np.random.Generator) -> Int32Array:
    """Make one table of several copies, shape (n_copies, n_rows)."""
    levels = np.arange(n_levels)[:, None]
    counts = (copies == levels[:, :, None]).sum(axis=1)
    ties = rng.random(counts.shape) / 2
    match how:
        case "at random":
            return np.asarray(rng.permuted(copies, axis=0)[0], np.int32)
        case "the commonest":
            weights = counts + ties
        case "the rarest":
            weights = np.where(counts > 0, ties - counts, -np.inf)
        case "the mean":
            weights = ties / 1000 - np.abs(levels - copies.mean(axis=0))
    return np.asarray(weights.argmax(axis=0), np.int32)


def _costs(job: Job, share: float, draws: int) -> list[Cost]:
    """Learn from copies with and without marks, from everybody's and from the owners' alone, judged by everybody."""
    costs = []
    n_users = job.split.train.n_users
    for name, part in (("everybody's", 1.0), (f"{100 * share:.0f} % of people's", share)):
        errors = np.empty((draws, 2))
        for draw in range(draws):
            owners = np.zeros(n_users, np.bool_)
            owners[_some(n_users, part, draw)] = True
            shared = job.split.train.where(owners[job.split.train.users()])
            for column, ratings in enumerate((shared, _marked(shared, _levels(job), draw))):
                learned = centralised(replace(job, split=Split(train=ratings, test=job.split.test)))
                errors[draw, column] = judge(job, learned.models[-1]).rmse
        plain, marked = errors.mean(axis=0).tolist()
        costs.append(Cost(name=name, plain=plain, marked=marked))
    return costs


def _marked(ratings: Ratings, levels: Sequence[float], recipient: int) -> Ratings:
    """Give one recipient's copies of everybody's ratings."""
    places = _places(ratings, levels)
    copies = places.copy()
    secrets = SimulatedRandomness(SEED)
    for owner in range(ratings.n_users):
        own = slice(ratings.indptr[owner], ratings.indptr[owner + 1])
        copies[own] = fingerprint(
            places[own], ratings.items[own], len(levels), secrets.secret("marks", owner), recipient
        )
    values = np.where(copies == places, ratings.values, np.asarray(levels, np.float32)[copies])
    return replace(ratings, values=values.astype(np.float32))


def _rows(found: Sequence[Named], costs: Sequence[Cost]) -> list[Row]:
    rows: list[Row] = [
        {
            "series": "attribution",
            "epsilon": each.leak.epsilon,
            "rows": each.leak.rows,
            "altered": each.leak.altered,
            "sources": each.leak.sources,
            "how": each.leak.how,
            "trials": each.trials,
            "source_named": each.right,
            "falsely_accused": each.wrong,
        }
        for each in found
    ]
    rows += [{"series": "cost", "name": each.name, "rmse": each.plain, "rmse_marked": each.marked} for each in costs]
    return rows


def _page(world: World, owners: float, found: Sequence[Named], costs: Sequence[Cost]) -> str:
    false, trials = sum(round(each.wrong * each.trials) for each in found), sum(each.trials for each in found)
    return "\n\n".join(
        [
            header("Whose copy leaked", world),
            f"{100 * owners:.0f} % of the people hand what they rated to {RECIPIENTS} recipients, each a copy of its "
            f"own: {200 * REPLACED_INSIDE:g} % of the rows have the level below or above instead, and "
            f"{100 * REPLACED_AT_END:g} % of those at an end of the scale the only neighbour.\n"
            "Copies are of the ratings as they are (open), or of answers that were perturbed once "
            f"(ε = {_EPSILON:g} of a rating).\n"
            "Some rows leak, of any owners, and whoever's bound on a false accusation is at most "
            f"{100 * FALSE_ACCUSATION:.1f} % is accused.",
            table(
                ["copies", "leak", "rows", "altered", "leaks", "a source accused", "anybody else"],
                [_cells(each) for each in found],
            ),
            f"In {false} of all {trials:,} leaks somebody was accused whose copy had no part.\n"
            "Altered rows have another level at random.\n"
            "Of several copies a row's level is that of one of them at random, the commonest, the mean or the rarest.",
            "## What marks cost",
            table(
                ["learned from", "RMSE without marks", "with marks", "cost"],
                [
                    [each.name, number(each.plain), number(each.marked), number(each.marked - each.plain)]
                    for each in costs
                ],
            ),
            "Learned in one place without noise; everybody's held-out ratings are predicted, from the person's own "
            "unmarked ratings on the device.",
        ]
    )


def _words(epsilon: float | None) -> str:
    return "open" if epsilon is None else f"ε = {epsilon:g}"


def _cells(each: Named) -> list[str]:
    leak = each.leak
    source = {0: leak.how, 1: "one copy"}.get(leak.sources, f"{leak.sources} copies, {leak.how}")
    right = "-" if each.right is None else f"{100 * each.right:.1f} %"
    return [
        _words(leak.epsilon),
        source,
        str(leak.rows),
        f"{100 * leak.altered:.0f} %",
        f"{each.trials:,}",
        right,
        f"{100 * each.wrong:.2f} %",
    ]


def _figure(found: Sequence[Named]) -> Figure:
    figure, (single, mixed) = panels(3.2, 1, 2, sharey=True)
    opened = [each for each in found if each.leak.epsilon is None and each.right is not None]
    for altered, colour in ((0.0, OPEN), (0.3, PRIVATE)):
        these = [each for each in opened if each.leak.sources == 1 and each.leak.altered == altered]
        _draw(single, [each.leak.rows for each in these], these, f"{100 * altered:.0f} % altered", colour)
    for how, colour in _HOWS.items():
        these = [each for each in opened if each.leak.sources > 1 and each.leak.how == how and not each.leak.altered]
        _draw(mixed, [each.leak.sources for each in these], these, how, colour)
    single.set(title="One copy", xlabel="rows that leaked", ylabel="% of leaks with a source accused", ylim=(-4, 104))
    mixed.set(title=f"Several copies, {_MIXED_ROWS} rows", xlabel="copies", xticks=_COALITIONS)
    for axes in (single, mixed):
        axes.legend(frameon=False, fontsize=8.5)
    return figure


def _draw(axes: Axes, x: Sequence[int], found: Sequence[Named], name: str, colour: str) -> None:
    axes.plot(x, [100 * (each.right or 0.0) for each in found], color=colour, marker="o", markersize=4, label=name)


STUDY = Study(default_source="ml-1m", run=_run)
