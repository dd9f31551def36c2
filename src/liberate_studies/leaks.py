"""Whose copy leaked: how often marks name a source, how often somebody else, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

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
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, panels
from liberate_studies.rungs import centralised, judge
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import header, number, percent, table_of, words
from liberate_studies.worlds import SEED, Job, World

RECIPIENTS = 100
_OUTSIDERS = 20
"""Recipients beyond the candidates, whose copies leak too."""

_FULL, _QUICK = (0.05, 500, 3), (0.5, 40, 1)
"""Part of the people who share; leaks of a kind; times that the cost is measured, with other owners and marks."""

_INNOCENT = 20
"""Times as many leaks where there is no source to be found."""

_EPSILON = 2.0
_LARGEST_SCALE = 10
_SIZES = (40, 100, 200, 400)
_MIXED_ROWS = 600
_COALITIONS = (2, 3, 5)

How = Literal["at random", "the commonest", "the mean", "the rarest"]
_HOWS: dict[How, str] = {"at random": OPEN, "the rarest": RECORDED, "the commonest": PRIVATE, "the mean": FREE}

Innocent = Literal["the ratings themselves", "the base copy", "copies of other recipients"]
_INNOCENTS: tuple[Innocent, ...] = get_args(Innocent)


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

    @property
    def source(self) -> str:
        """What leaks, in words."""
        return {0: str(self.how), 1: "one copy"}.get(self.sources, f"{self.sources} copies, {self.how}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What became of many leaks of one kind.

    Attributes:
        leak: The kind.
        trials: Leaks.
        source_named: Part of them with at least one true source accused; None where there is none.
        falsely_accused: Part of them with anybody else accused.
    """

    leak: LeakScenario
    trials: int
    source_named: float | None
    falsely_accused: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What marks cost.

    Attributes:
        name: Whose ratings were learned from.
        rmse: Of held-out ratings without marks, mean of the draws.
        rmse_marked: The same with marks.
    """

    name: str
    rmse: float
    rmse_marked: float


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    job = study.world.job("privacy.mode=plain")
    owners, trials, draws = _QUICK if study.is_quick else _FULL
    attributed: list[Attribution] = []
    for epsilon in (None, _EPSILON):
        study.progress("handing out copies, " + words(epsilon))
        copies = _hand_out(job, owners, epsilon)
        study.progress("attributing leaks")
        rng = generator(SimulatedRandomness(SEED).secret("leaks"))
        attributed += [
            _attribute(copies, leak, trials if leak.sources else _INNOCENT * trials, rng) for leak in _leaks(epsilon)
        ]

    study.progress("learning from marked ratings")
    costs = _costs(job, owners, draws)
    return StudyResults(
        rows={"attribution": attributed, "cost": costs},
        page=_page(study.world, owners, attributed, costs),
        figure=_figure(attributed),
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
    """Return the levels of the scale: those that occur, or whole numbers where ratings are not of a few levels."""
    levels = np.unique(job.dataset.values).tolist()
    return levels if len(levels) <= _LARGEST_SCALE else np.arange(job.dataset.low, job.dataset.high + 0.5).tolist()


def _places(ratings: Ratings, levels: Sequence[float]) -> Int32Array:
    places: Int64Array = np.searchsorted(np.asarray(levels), nearest(ratings.values, levels))
    return places.astype(np.int32)


def _some(n_users: int, share: float, draw: int) -> Int64Array:
    """Choose who shares."""
    rng = generator(SimulatedRandomness(SEED).secret("owners", draw))
    return np.sort(rng.permutation(n_users)[: round(share * n_users)])


def _owners(ratings: Ratings) -> Iterator[tuple[int, slice]]:
    """Return each owner, and where the owner's rows lie."""
    return enumerate(slice(*ends) for ends in pairwise(ratings.indptr.tolist()))


def _marked(ratings: Ratings, base: Int32Array, n_levels: int, recipients: Sequence[int]) -> Int32Array:
    """Return the levels of each recipient's copies, shape (n_recipients, n_rows)."""
    copies = np.empty((len(recipients), len(base)), np.int32)
    for owner, part in _owners(ratings):
        key = SimulatedRandomness(SEED).secret("marks", owner)
        for copy, recipient in zip(copies, recipients, strict=True):
            copy[part] = fingerprint(base[part], ratings.items[part], n_levels, key, recipient)
    return copies


def _hand_out(job: Job, share: float, epsilon: float | None) -> CopySet:
    """Let some people hand what they rated to every recipient."""
    levels = _levels(job)
    ratings = job.split.train.select(_some(job.split.train.n_users, share, 0))
    raw = _places(ratings, levels)
    base = raw.copy()
    if epsilon is not None:
        for owner, part in _owners(ratings):
            secret = SimulatedRandomness(SEED).secret("answers", owner)
            base[part] = respond(raw[part], ratings.items[part], len(levels), epsilon, secret)
    copies = _marked(ratings, base, len(levels), range(RECIPIENTS + _OUTSIDERS))
    return CopySet(raw=raw, base=base, copies=copies, n_levels=len(levels))


def _attribute(handed: CopySet, leak: LeakScenario, trials: int, rng: np.random.Generator) -> Attribution:
    """Let such leaks happen, and count who is accused."""
    right = wrong = 0
    for _ in range(trials):
        rows = rng.permutation(len(handed.base))[: leak.rows]
        sources = rng.permutation(RECIPIENTS)[: leak.sources]
        leaked = _leaked(handed, leak, rows, sources, rng)

        is_altered = rng.random(len(leaked)) < leak.altered
        others = (leaked + rng.integers(1, handed.n_levels, len(leaked), dtype=np.int32)) % handed.n_levels
        leaked = np.where(is_altered, others, leaked).astype(np.int32)

        scored = score_recipient(leaked, handed.base[rows], handed.copies[:RECIPIENTS, rows], handed.n_levels)
        is_source = np.isin(np.arange(RECIPIENTS), sources)
        right += bool((scored.accused & is_source).any())
        wrong += bool((scored.accused & ~is_source).any())
    return Attribution(
        leak=leak,
        trials=trials,
        source_named=right / trials if leak.sources else None,
        falsely_accused=wrong / trials,
    )


def _leaked(
    handed: CopySet, leak: LeakScenario, rows: Int64Array, sources: Int64Array, rng: np.random.Generator
) -> Int32Array:
    """Return the levels that leak: those of no candidate's copy, or of a table that is made of several copies."""
    copies, levels = handed.copies[np.ix_(sources, rows)], np.arange(handed.n_levels)[:, None]
    counts = (copies == levels[:, :, None]).sum(axis=1)
    ties = rng.random(counts.shape) / 2 if leak.sources else counts
    match leak.how:
        case "the ratings themselves":
            return handed.raw[rows]
        case "the base copy":
            return handed.base[rows]
        case "copies of other recipients":
            return np.asarray(handed.copies[RECIPIENTS + rng.integers(_OUTSIDERS), rows], np.int32)
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
    for name, part in (("everybody's", 1.0), (f"{100 * share:.0f} % of people's", share)):
        errors = [_errors(job, part, draw) for draw in range(draws)]
        costs.append(Cost(name, *np.mean(errors, axis=0).tolist()))
    return costs


def _errors(job: Job, share: float, draw: int) -> list[float]:
    """Return the RMSE of what is learned from some people's ratings, without marks and with those of one recipient."""
    train_part = job.split.train
    shared = train_part.where(np.isin(train_part.users(), _some(train_part.n_users, share, draw)))

    levels = _levels(job)
    places = _places(shared, levels)
    (copies,) = _marked(shared, places, len(levels), [draw])
    values = np.where(copies == places, shared.values, np.asarray(levels, np.float32)[copies])

    splits = [Split(train=train, test=job.split.test) for train in (shared, replace(shared, values=values))]
    return [judge(job, centralised(replace(job, split=split)).models[-1]).rmse for split in splits]


def _page(world: World, owners: float, attributed: Sequence[Attribution], costs: Sequence[Cost]) -> Sequence[str]:
    false = sum(round(kind.falsely_accused * kind.trials) for kind in attributed)

    return [
        header("Whose copy leaked", world),
        f"{100 * owners:.0f} % of the people hand what they rated to {RECIPIENTS} recipients, each a copy of its "
        f"own: {200 * REPLACED_INSIDE:g} % of the rows have the level below or above instead, and "
        f"{100 * REPLACED_AT_END:g} % of those at an end of the scale the only neighbour.\n"
        "Copies are of the ratings as they are (open), or of answers that were perturbed once "
        f"(ε = {_EPSILON:g} of a rating).\n"
        "Some rows leak, of any owners, and whoever's bound on a false accusation is at most "
        f"{100 * FALSE_ACCUSATION:.1f} % is accused.",
        table_of(
            attributed,
            ("copies", lambda kind: words(kind.leak.epsilon)),
            ("leak", lambda kind: kind.leak.source),
            ("rows", lambda kind: str(kind.leak.rows)),
            ("altered", lambda kind: percent(kind.leak.altered)),
            ("leaks", lambda kind: f"{kind.trials:,}"),
            ("a source accused", lambda kind: percent(kind.source_named, 1)),
            ("anybody else", lambda kind: percent(kind.falsely_accused, 2)),
        ),
        f"In {false} of all {sum(kind.trials for kind in attributed):,} leaks somebody was accused whose copy had no "
        "part.\n"
        "Altered rows have another level at random.\n"
        "Of several copies a row's level is that of one of them at random, the commonest, the mean or the rarest.",
        "## What marks cost",
        table_of(
            costs,
            ("learned from", lambda cost: cost.name),
            ("RMSE without marks", lambda cost: number(cost.rmse)),
            ("with marks", lambda cost: number(cost.rmse_marked)),
            ("cost", lambda cost: number(cost.rmse_marked - cost.rmse)),
        ),
        "Learned in one place without noise; everybody's held-out ratings are predicted, from the person's own "
        "unmarked ratings on the device.",
    ]


def _figure(attributed: Sequence[Attribution]) -> Figure:
    figure, (single, mixed) = panels(3.2, 1, 2, sharey=True)
    opened = [kind for kind in attributed if kind.leak.epsilon is None and kind.leak.sources]
    for altered, colour in ((0.0, OPEN), (0.3, PRIVATE)):
        kinds = [kind for kind in opened if kind.leak.sources == 1 and kind.leak.altered == altered]
        _draw(single, [kind.leak.rows for kind in kinds], kinds, f"{100 * altered:.0f} % altered", colour)
    for how, colour in _HOWS.items():
        kinds = [kind for kind in opened if kind.leak.sources > 1 and kind.leak.how == how and not kind.leak.altered]
        _draw(mixed, [kind.leak.sources for kind in kinds], kinds, how, colour)

    single.set(title="One copy", xlabel="rows that leaked", ylabel="% of leaks with a source accused", ylim=(-4, 104))
    mixed.set(title=f"Several copies, {_MIXED_ROWS} rows", xlabel="copies", xticks=_COALITIONS)
    for axes in (single, mixed):
        axes.legend(frameon=False, fontsize=8.5)
    return figure


def _draw(axes: Axes, x: Sequence[int], kinds: Sequence[Attribution], name: str, colour: str) -> None:
    shares = [100 * (kind.source_named or 0.0) for kind in kinds]
    axes.plot(x, shares, color=colour, marker="o", markersize=4, label=name)
