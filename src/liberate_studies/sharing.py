"""What sharing brings to those who share nothing: by how many share, how much of it, how openly, and to whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.arrays import Int64Array
from liberate.model.metrics import rmse
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, predict
from liberate.runs.folder import Run
from liberate_studies.cells import Cell, measure_cells
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, name_beside, panels
from liberate_studies.rungs import FIRST_PARTICIPANT
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import header, number, table
from liberate_studies.worlds import Job, World, on_levels

_FULL = ((0.0, 0.01, 0.05, 0.1, 0.2), (0.1, 0.25, 0.5, 1.0), 0.1, (1, 2, 4), 8)
_QUICK = ((0.0, 0.2), (0.25, 1.0), 0.2, (2,), 4)
"""Parts of the people; parts of their ratings, and of the people where these are varied; epsilons; rounds."""

_DEVICE = ("privacy.mode=device",)
_DISTRIBUTED = ("privacy.mode=distributed", "privacy.epsilon=4")
_GRADIENT = ("privacy.mode=plain", "model.statistic=gradient", "model.n_factors=4", "model.tolerance=0")
_LAPLACE = ("privacy.mode=local", "privacy.epsilon=16", 'privacy.mechanism="laplace"', "model.n_factors=4")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingCase:
    """One federation that the study asks for.

    Attributes:
        name: How people learn besides what is shared.
        users: Part of the people who share.
        ratings: Part of their ratings that each of them shares.
        epsilon: Of each shared rating; None: open.
        recipients: Who gets the copies.
        settings: `section.key=value` each.
    """

    name: str = "device"
    users: float
    ratings: float = 1.0
    epsilon: int | None = None
    recipients: str = "pool"
    settings: tuple[str, ...] = _DEVICE

    def job(self, world: World) -> Job:
        shared = [f"sharing.user_fraction={self.users}", f"sharing.rating_fraction={self.ratings}"]
        shared += [f'sharing.recipients="{self.recipients}"'] if self.users else []
        shared += [] if self.epsilon is None else [f"sharing.epsilon={self.epsilon}"]
        return world.job(*self.settings, *shared)

    @property
    def words(self) -> str:
        how = "open" if self.epsilon is None else f"epsilon {self.epsilon}"
        return f"{self.name}, {self.users:.0%} of people, {self.ratings:.0%} of ratings, {how}, {self.recipients}"

    @property
    def sharers(self) -> str:
        """Who shares with whom, in words."""
        to = "the pool" if self.recipients == "pool" else "peers"
        return f"{self.users:.0%} share with {to}" if self.users else "nobody shares"


@dataclass(frozen=True, slots=True)
class SharingRun:
    """What one federation reached.

    Attributes:
        case: Who shared what.
        errors: RMSE of those who share nothing, by version of the model; of everybody where nobody or everybody shares.
        people: How many that are.
    """

    case: SharingCase
    errors: Sequence[float]
    people: int

    @property
    def rounds(self) -> Sequence[float]:
        """Errors from the model on that the first answers start from: a pool teaches one before them."""
        return self.errors[1:] if self.case.users and self.case.recipients == "pool" else self.errors


_Runs = Mapping[SharingCase, SharingRun]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cases:
    """What is compared.

    Attributes:
        by_users: For each way of learning, a case per part of the people.
        by_ratings: A case per part of the ratings.
        by_epsilon: Everybody shares: a case per epsilon, open last.
        by_round: For each statistic, cases that differ in who shares with whom.
    """

    by_users: Mapping[str, Sequence[SharingCase]]
    by_ratings: Sequence[SharingCase]
    by_epsilon: Sequence[SharingCase]
    by_round: Mapping[str, Sequence[SharingCase]]

    @classmethod
    def of(cls, is_quick: bool) -> _Cases:
        users, ratings, some, epsilons, n_rounds = _QUICK if is_quick else _FULL
        rounds = f"federation.rounds={n_rounds}"

        return cls(
            by_users={
                "nothing else leaves a device": [SharingCase(users=part) for part in users],
                "the same, ε = 2 of a shared rating": [
                    SharingCase(users=part, epsilon=2 if part else None) for part in users
                ],
                "`distributed` beside it, ε = 4": [
                    SharingCase(name="distributed", users=part, settings=_DISTRIBUTED) for part in users
                ],
            },
            by_ratings=[SharingCase(users=some, ratings=part) for part in ratings],
            by_epsilon=[SharingCase(users=1.0, epsilon=epsilon) for epsilon in (*epsilons, None)],
            by_round={
                name: [
                    SharingCase(name=name, users=part, recipients=recipients, settings=(*settings, rounds))
                    for part, recipients in ((0.0, "pool"), (0.05, "peers"), (0.05, "pool"), (0.2, "pool"))
                ]
                for name, settings in (("gradient", _GRADIENT), ("gradient with Laplace noise, ε = 16", _LAPLACE))
            },
        )

    def __iter__(self) -> Iterator[SharingCase]:
        for group in (*self.by_users.values(), self.by_ratings, self.by_epsilon, *self.by_round.values()):
            yield from group


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    world, cases = on_levels(study.world, study.out / "levels.parquet"), _Cases.of(study.is_quick)
    jobs = {case: case.job(world) for case in cases}
    cells = [Cell(case.words, job, partial(_read, case, job)) for case, job in jobs.items()]
    runs = measure_cells(study, cells, SharingRun)

    by_case = {run.case: run for run in runs}
    return StudyResults(
        rows={"federations": runs},
        page=_page(world, cases, by_case),
        figure=_figure(cases, by_case),
        alt="Left: the more people share, the better those predict who share nothing. Right: round by round, learning "
        "that starts from a pool is ahead of learning that starts from nothing, and stays there under noise.",
    )


def _read(case: SharingCase, job: Job, run: Run) -> SharingRun:
    people = _people_judged(run, job.split.train.n_users)
    errors = [_error(job, run.model(version), people) for version in range(run.result.rounds + 1)]
    return SharingRun(case, errors, len(people))


def _people_judged(run: Run, n_users: int) -> Int64Array:
    """Return those who share nothing; everybody where nobody or everybody shares."""
    with closing(run.open_ledger()) as ledger:
        senders = [share.record.author - FIRST_PARTICIPANT for share in ledger.state.sharing.shares.values()]
    others = np.setdiff1d(np.arange(n_users), senders)
    return others if len(others) else np.arange(n_users)


def _error(job: Job, model: Model, participants: Int64Array) -> float:
    """Return the RMSE of some people's held-out ratings."""
    held_out = job.split.test.select(participants)
    sides = fit_devices(model, job.split.train.select(participants))
    return rmse(predict(model, sides, held_out.users(), held_out.items), held_out.values)


# --- page -------------------------------------------------------------------------------------------------------------

_WANTED: Mapping[str, Mapping[float, float]] = {"ml-1m": {0.01: 0.948, 0.05: 0.905, 0.1: 0.886, 0.2: 0.871}}
"""What we set out to reach with open sharing and nothing else, by data set and part of the people."""


def _page(world: World, cases: _Cases, runs: _Runs) -> Sequence[str]:
    def last(name: str, group: Sequence[SharingCase]) -> list[str]:
        return [name, *(number(runs[case].errors[-1]) for case in group)]

    parts = [case.users for case in next(iter(cases.by_users.values()))]
    lines = [last(name, group) for name, group in cases.by_users.items()]
    wanted = _WANTED.get(world.name)
    if wanted is not None:
        lines.append(["wanted of the first", *(number(wanted.get(part), 3) for part in parts)])

    shares = [f"{case.ratings:.0%} of ratings" for case in cases.by_ratings]
    return [
        header("What sharing brings", world),
        "Some people hand copies of their ratings to the coordinator's pool or to ten peers each, marked by "
        "recipient, under a consent on the ledger.\n"
        "Every figure is the RMSE of people who share nothing (of everybody, where nobody or everybody shares): a "
        "device predicts the held-out ratings from its user's ratings and the public model.",
        "## By how many share",
        table(["RMSE of the others", *(f"{part:.0%}" for part in parts)], lines),
        "## By how much each of them shares",
        table(
            [f"{cases.by_ratings[0].users:.0%} of people share", *shares],
            [last("nothing else leaves a device", cases.by_ratings)],
        ),
        "## Everybody shares, each rating perturbed once",
        table(
            ["", *("open" if case.epsilon is None else f"ε = {case.epsilon}" for case in cases.by_epsilon)],
            [last("nothing else leaves a device", cases.by_epsilon)],
        ),
        "ε is each rating's here, not each person's, and which items a person rated stays visible.",
        "## Round by round",
        *(_rounds_table(name, [runs[case] for case in group]) for name, group in cases.by_round.items()),
        "The paper reports that a larger shared part speeds convergence, also under noise.\n"
        "With a pool learning starts from what its copies teach: that is the column after 0 rounds.\n"
        "Peers learn from copies as if these were further people, so those who share count more than others.",
    ]


def _rounds_table(name: str, runs: Sequence[SharingRun]) -> str:
    n_rounds = max(len(run.rounds) for run in runs) - 1
    shown = sorted({count for count in (0, 1, 2, 4, 8, n_rounds) if count <= n_rounds})
    return table(
        [name, *(f"after {count}" for count in shown)],
        [[run.case.sharers, *(number(run.rounds[count]) for count in shown)] for run in runs],
    )


# --- figure -----------------------------------------------------------------------------------------------------------


def _figure(cases: _Cases, runs: _Runs) -> Figure:
    figure, (left, right) = panels(3.4, 1, 2)
    left.set_title("By part of the people who share")
    right.set_title("Round by round")

    names = []
    short = ("open", "ε = 2 of a rating", "open, distributed")
    for text, group, colour in zip(short, cases.by_users.values(), (OPEN, RECORDED, PRIVATE), strict=True):
        errors = [runs[case].errors[-1] for case in group]
        left.plot([100 * case.users for case in group], errors, color=colour, marker="o", markersize=4)
        names.append((errors[-1], text, colour))
    left.set(xlabel="% of people who share", ylabel="RMSE of the others")
    name_beside(left, names)

    _draw_rounds(right, [[runs[case] for case in group] for group in cases.by_round.values()])
    return figure


def _draw_rounds(axes: Axes, groups: Sequence[Sequence[SharingRun]]) -> None:
    colours = (FREE, RECORDED, PRIVATE, OPEN)
    for group, style in zip(groups, ("-", "--"), strict=True):
        for run, colour in zip(group, colours, strict=True):
            axes.plot(range(len(run.rounds)), run.rounds, style, color=colour, linewidth=1.4)

    axes.set(xlabel="rounds (dashed: with Laplace noise)")
    short = [run.case.sharers.replace(" share with the", ",").replace(" share with", ",") for run in groups[0]]
    ends = zip(groups[0], short, colours, strict=True)
    name_beside(axes, [(run.rounds[-1], name, colour) for run, name, colour in ends])
