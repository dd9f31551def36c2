"""What sharing brings to those who share nothing: by how many share, how much of it, how openly, and to whom."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.arrays import Int64Array
from liberate.model.metrics import rmse
from liberate.model.model import Model
from liberate.model.profiles import fit_devices, predict
from liberate.runs.folder import Run, load_run
from liberate.runs.train import train
from liberate.settings import to_toml
from liberate.timing import Progress
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, name_beside, panels
from liberate_studies.findings import RESULTS, Row, Study, StudyResults, header, load_rows, number, save_rows, table
from liberate_studies.worlds import Job, World, on_levels

_FIRST_PARTICIPANT = 3
"""On a new ledger the founder, the log and the coordinator have the numbers below."""

_USERS, _QUICK_USERS = (0.0, 0.01, 0.05, 0.1, 0.2), (0.0, 0.2)
_RATINGS, _QUICK_RATINGS = (0.1, 0.25, 0.5, 1.0), (0.25, 1.0)
_SOME, _QUICK_SOME = 0.1, 0.2
"""Part of the people who share where the part of their ratings is varied."""

_EPSILONS, _QUICK_EPSILONS = (1, 2, 4), (2,)
_ROUNDS, _QUICK_ROUNDS = 8, 4

_DEVICE = ("privacy.mode=device",)
_DISTRIBUTED = ("privacy.mode=distributed", "privacy.epsilon=4")
_GRADIENT = ("privacy.mode=plain", "model.statistic=gradient", "model.n_factors=4", "model.tolerance=0")
_LAPLACE = ("privacy.mode=local", "privacy.epsilon=16", 'privacy.mechanism="laplace"', "model.n_factors=4")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One federation that the study asks for.

    Attributes:
        name: How people learn besides what is shared.
        users: Part of the people who share.
        ratings: Part of their ratings that each of them shares.
        epsilon: Of each shared rating; None: open.
        recipients: Who gets the copies.
        settings: `section.key=value` each.
    """

    name: str
    users: float
    ratings: float = 1.0
    epsilon: int | None = None
    recipients: str = "pool"
    settings: tuple[str, ...]

    def job(self, world: World) -> Job:
        shared = [f"sharing.user_fraction={self.users}", f"sharing.rating_fraction={self.ratings}"]
        shared += [f'sharing.recipients="{self.recipients}"'] if self.users else []
        shared += [] if self.epsilon is None else [f"sharing.epsilon={self.epsilon}"]
        return world.job(*self.settings, *shared)

    @property
    def words(self) -> str:
        how = "open" if self.epsilon is None else f"epsilon {self.epsilon}"
        return f"{self.name}, {self.users:.0%} of people, {self.ratings:.0%} of ratings, {how}, {self.recipients}"


_Found = Mapping[_Case, Sequence[float]]
"""RMSE of those who share nothing, by version of the model; of everybody where nobody or everybody shares."""


def _run(world: World, is_quick: bool, folder: Path, progress: Progress) -> StudyResults:
    world = on_levels(world, folder / "levels.parquet")
    cases = _Cases.of(is_quick)
    found, rows = _measure(world, list(dict.fromkeys(cases)), folder, progress)
    return StudyResults(
        rows=rows,
        page=_page(world, cases, found),
        figure=_figure(cases, found),
        alt="Left: the more people share, the better those predict who share nothing. Right: round by round, learning "
        "that starts from a pool is ahead of learning that starts from nothing, and stays there under noise.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cases:
    """What is compared.

    Attributes:
        by_users: For each way of learning, a case per part of the people.
        by_ratings: A case per part of the ratings.
        by_epsilon: Everybody shares: a case per epsilon, open last.
        by_round: For each statistic, cases that differ in who shares with whom.
    """

    by_users: Mapping[str, Sequence[_Case]]
    by_ratings: Sequence[_Case]
    by_epsilon: Sequence[_Case]
    by_round: Mapping[str, Sequence[_Case]]

    @classmethod
    def of(cls, is_quick: bool) -> _Cases:
        users = _QUICK_USERS if is_quick else _USERS
        some = _QUICK_SOME if is_quick else _SOME
        rounds = f"federation.rounds={_QUICK_ROUNDS if is_quick else _ROUNDS}"
        return cls(
            by_users={
                "nothing else leaves a device": [_Case(name="device", users=part, settings=_DEVICE) for part in users],
                "the same, ε = 2 of a shared rating": [
                    _Case(name="device", users=part, epsilon=2 if part else None, settings=_DEVICE) for part in users
                ],
                "`distributed` beside it, ε = 4": [
                    _Case(name="distributed", users=part, settings=_DISTRIBUTED) for part in users
                ],
            },
            by_ratings=[
                _Case(name="device", users=some, ratings=part, settings=_DEVICE)
                for part in (_QUICK_RATINGS if is_quick else _RATINGS)
            ],
            by_epsilon=[
                _Case(name="device", users=1.0, epsilon=epsilon, settings=_DEVICE)
                for epsilon in (*(_QUICK_EPSILONS if is_quick else _EPSILONS), None)
            ],
            by_round={
                name: [
                    _Case(name=name, users=part, recipients=recipients, settings=(*settings, rounds))
                    for part, recipients in ((0.0, "pool"), (0.05, "peers"), (0.05, "pool"), (0.2, "pool"))
                ]
                for name, settings in (("gradient", _GRADIENT), ("gradient with Laplace noise, ε = 16", _LAPLACE))
            },
        )

    def __iter__(self) -> Iterator[_Case]:
        for group in (*self.by_users.values(), self.by_ratings, self.by_epsilon, *self.by_round.values()):
            yield from group


def _measure(
    world: World, cases: Sequence[_Case], folder: Path, progress: Progress
) -> tuple[dict[_Case, list[float]], list[Row]]:
    """Train what the folder's results do not have yet; they are saved after every federation."""
    known: dict[str, list[Row]] = {}
    for row in load_rows(folder / RESULTS):
        known.setdefault(str(row["key"]), []).append(row)
    found: dict[_Case, list[float]] = {}
    rows: list[Row] = []
    for count, case in enumerate(cases, start=1):
        job = case.job(world)
        key = sha256((to_toml(job.settings) + job.dataset.digest).encode()).hexdigest()[:16]
        if key not in known:
            progress(f"{count} of {len(cases)}: {case.words}")
            known[key] = [{"key": key, **row} for row in _trained(case, job, folder / "run")]
            save_rows([row for each in known.values() for row in each], folder / RESULTS)
        found[case] = [float(row["rmse_of_others"] or 0.0) for row in known[key]]
        rows += known[key]
    return found, rows


def _trained(case: _Case, job: Job, out: Path) -> list[Row]:
    """Train a federation and give a row per version of its model."""
    shutil.rmtree(out, ignore_errors=True)
    result = train(job.settings, out)
    run = load_run(out)
    judged = _judged(run, job.split.train.n_users)
    errors = [_error(job, run.model(version), judged) for version in range(result.rounds + 1)]
    shutil.rmtree(out)
    return [
        {
            "series": case.name,
            "users": case.users,
            "ratings": case.ratings,
            "epsilon": None if case.epsilon is None else float(case.epsilon),
            "recipients": case.recipients,
            "version": version,
            "rmse_of_others": error,
            "people": len(judged),
        }
        for version, error in enumerate(errors)
    ]


def _judged(run: Run, n_users: int) -> Int64Array:
    """Give those who share nothing; everybody where nobody or everybody shares."""
    with closing(run.open_ledger()) as ledger:
        senders = {share.record.author - _FIRST_PARTICIPANT for share in ledger.state.sharing.shares.values()}
    others = np.setdiff1d(np.arange(n_users), list(senders))
    return others if len(others) else np.arange(n_users)


def _error(job: Job, model: Model, participants: Int64Array) -> float:
    """Give the RMSE of some people's held-out ratings."""
    held_out = job.split.test.select(participants)
    sides = fit_devices(model, job.split.train.select(participants))
    return rmse(predict(model, sides, held_out.users(), held_out.items), held_out.values)


# --- page -------------------------------------------------------------------------------------------------------------

_WANTED: Mapping[str, Mapping[float, float]] = {"ml-1m": {0.01: 0.948, 0.05: 0.905, 0.1: 0.886, 0.2: 0.871}}
"""What we set out to reach with open sharing and nothing else, by data set and part of the people."""


def _page(world: World, cases: _Cases, found: _Found) -> str:
    parts = [case.users for case in next(iter(cases.by_users.values()))]
    lines = [[name, *(_last(found, case) for case in group)] for name, group in cases.by_users.items()]
    wanted = _WANTED.get(world.name)
    if wanted is not None:
        lines.append(["wanted of the first", *(number(wanted.get(part), 3) for part in parts)])
    some = cases.by_ratings[0].users
    return "\n\n".join(
        [
            header("What sharing brings", world),
            "Some people hand copies of their ratings to the coordinator's pool or to ten peers each, marked by "
            "recipient, under a consent on the ledger.\n"
            "Every figure is the RMSE of people who share nothing (of everybody, where nobody or everybody shares): a "
            "device predicts the held-out ratings from its own ones and the public model.",
            "## By how many share",
            table(["RMSE of the others", *(f"{part:.0%}" for part in parts)], lines),
            "## By how much each of them shares",
            table(
                [f"{some:.0%} of people share", *(f"{case.ratings:.0%} of ratings" for case in cases.by_ratings)],
                [["nothing else leaves a device", *(_last(found, case) for case in cases.by_ratings)]],
            ),
            "## Everybody shares, each rating perturbed once",
            table(
                ["", *("open" if case.epsilon is None else f"ε = {case.epsilon}" for case in cases.by_epsilon)],
                [["nothing else leaves a device", *(_last(found, case) for case in cases.by_epsilon)]],
            ),
            "ε is each rating's here, not each person's, and which items a person rated stays visible.",
            "## Round by round",
            "\n\n".join(_rounds_table(name, group, found) for name, group in cases.by_round.items()),
            "The paper reports that a larger shared part speeds convergence, also under noise.\n"
            "With a pool learning starts from what its copies teach: that is the column after 0 rounds.\n"
            "Peers learn from copies as if these were further people, so those who share count more than others.",
        ]
    )


def _last(found: _Found, case: _Case) -> str:
    return number(found[case][-1])


def _rounds_table(name: str, group: Sequence[_Case], found: _Found) -> str:
    n_rounds = max(len(found[case]) - (case.recipients == "pool" and case.users > 0) for case in group) - 1
    shown = sorted({round for round in (0, 1, 2, 4, 8, n_rounds) if round <= n_rounds})
    return table([name, *(f"after {count}" for count in shown)], [_rounds_line(case, found, shown) for case in group])


def _rounds_line(case: _Case, found: _Found, shown: Sequence[int]) -> list[str]:
    curve = _after_pool(case, found)
    return [_sharers(case), *(number(curve[count]) for count in shown)]


def _after_pool(case: _Case, found: _Found) -> Sequence[float]:
    """Give the errors from the model that the first answers start from."""
    return found[case][1:] if case.users and case.recipients == "pool" else found[case]


def _sharers(case: _Case) -> str:
    return (
        f"{case.users:.0%} share with {'the pool' if case.recipients == 'pool' else 'peers'}"
        if case.users
        else "nobody shares"
    )


# --- figure -----------------------------------------------------------------------------------------------------------


def _figure(cases: _Cases, found: _Found) -> Figure:
    figure, (left, right) = panels(3.4, 1, 2)
    left.set_title("By part of the people who share")
    right.set_title("Round by round")
    names = []
    short = ("open", "ε = 2 of a rating", "open, distributed")
    for text, group, colour in zip(short, cases.by_users.values(), (OPEN, RECORDED, PRIVATE), strict=True):
        errors = [found[case][-1] for case in group]
        left.plot([100 * case.users for case in group], errors, color=colour, marker="o", markersize=4)
        names.append((errors[-1], text, colour))
    left.set(xlabel="% of people who share", ylabel="RMSE of the others")
    name_beside(left, names)
    _draw_rounds(right, cases, found)
    return figure


def _draw_rounds(axes: Axes, cases: _Cases, found: _Found) -> None:
    names = []
    for group, style in zip(cases.by_round.values(), ("-", "--"), strict=True):
        for case, colour in zip(group, (FREE, RECORDED, PRIVATE, OPEN), strict=True):
            curve = _after_pool(case, found)
            axes.plot(range(len(curve)), curve, style, color=colour, linewidth=1.4)
            if style == "-":
                names.append(
                    (curve[-1], _sharers(case).replace(" share with the", ",").replace(" share with", ","), colour)
                )
    axes.set(xlabel="rounds (dashed: with Laplace noise)")
    name_beside(axes, names)


STUDY = Study(default_source="ml-1m", run=_run, resumes=True)
