"""Being forgotten: how much of people stays in a model that goes on without them, and what it costs to go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.runs.folder import load_run
from liberate.runs.train import train
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, name_bars, panels
from liberate_studies.forgetting import (
    WANTED_SHARE,
    WANTED_SPEED,
    Alone,
    Course,
    Lists,
    UnlearningMethod,
    forget_all,
    forget_alone,
    forget_in_lists,
    plant_canaries,
)
from liberate_studies.rungs import TIMES
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import header, number, percent, table_of
from liberate_studies.worlds import World

_PEOPLE, _QUICK_PEOPLE = 10, 3
"""Who are forgotten: so many of those with most ratings, and so many canaries."""

_COLOURS = {
    "nothing": FREE,
    "estimate: all rounds followed": OPEN,
    "fast: all but the last followed": OPEN,
    "exact": RECORDED,
}


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    n_people = _QUICK_PEOPLE if study.is_quick else _PEOPLE
    planted, names = plant_canaries(study, n_people)
    job = planted.job("privacy.mode=plain")
    canaries = np.array([job.dataset.user_ids.index(name) for name in names])
    counts = np.diff(job.split.train.indptr)
    counts[canaries] = 0
    leavers = np.concatenate([np.argsort(-counts, kind="stable")[:n_people], canaries])

    study.progress("learning with everybody")
    train(job.settings, study.scratch / "run", progress=study.progress)
    run = load_run(study.scratch / "run")
    course = Course.of(job, job.split.train, run.model(0), run.result.rounds)

    alone = []
    for count, user in enumerate(leavers.tolist(), start=1):
        study.progress(f"forgetting person {count} of {len(leavers)} alone")
        alone.append(forget_alone(job, course, user, is_canary=user in canaries))
    methods = forget_all(study, job, course, run, leavers, canaries)
    study.progress("forgetting all in lists")
    lists = forget_in_lists(planted, leavers)

    return StudyResults(
        rows={"all at once": methods, "alone": alone, "lists": [lists]},
        page=_page(study.world, n_people, methods, alone, lists),
        figure=_figure(methods, alone),
        alt="Left: going on without the people leaves most of their trace, following the rounds without them little. "
        "Right: the same for each person alone; following the rounds goes wrong most for who moved the model most.",
    )


def _page(
    world: World, n_people: int, methods: Sequence[UnlearningMethod], alone: Sequence[Alone], lists: Lists
) -> Sequence[str]:
    return [
        header("Being forgotten", world),
        f"The {n_people} people with most ratings and {n_people} canaries withdraw from a run that has learned "
        "ratings by normal equations, and are forgotten.\n"
        "Canaries are added people; each rates items of its own that not many rate, the lowest or the highest as a "
        "coin falls.\n"
        "The distance is the root mean square difference between predictions of the others' held-out ratings, in "
        "rating points, and those of a model learned again without these people from the same start.",
        *_all_at_once(methods),
        "## Each alone",
        _alone_table(alone),
        "## Lists",
        "Lists (`model.objective` implicit) are learned in one round, so the sum less the part of "
        "these people is that of the others.\n"
        f"Of the places in the others' lists of ten, {100 * lists.before:.2f} % hold another item before, and "
        f"{100 * lists.after:.2f} % after; it takes {lists.seconds:.2f} s of arithmetic in one place instead of "
        f"{lists.again:.2f} s.",
    ]


def _all_at_once(methods: Sequence[UnlearningMethod]) -> Sequence[str]:
    return [
        "## All at once",
        table_of(
            methods,
            ("", lambda method: method.name),
            ("rounds", lambda method: str(method.rounds)),
            ("distance", lambda method: number(method.distance)),
            ("left", lambda method: percent(method.share_left, 1)),
            ("arithmetic, s", lambda method: number(method.arithmetic_s, 2)),
            ("times faster", lambda method: number(method.arithmetic_speed, 1)),
            ("on a ledger, s", lambda method: number(method.ledger_s, 1)),
            ("times faster", lambda method: number(method.ledger_speed, 1)),
            ("coins, by the model", lambda method: number(method.told_by_model, 3)),
            ("by all else", lambda method: number(method.told_by_all, 3)),
            ("", lambda method: method.verdict),
        ),
        f"Wanted of a fast way: at most {100 * WANTED_SHARE:.0f} % of the distance left, {WANTED_SPEED:.0f} times "
        "faster than learning again, on a ledger where there is one.\n"
        "Arithmetic is what a federation computes without messages and ledger; for the estimate the sum of each "
        "round and what the others had fitted in it are kept, and everything else counts.\n"
        "On a ledger it is `liberate unlearn` from its beginning to the last model, without proofs and figures, "
        "sums and fits made again; a round asks everybody.\n"
        "An exact run ends when it has converged, which may be a round before or after the one it is compared to.\n"
        f"{TIMES}\n"
        "The last columns are how surely a canary's coins are told (AUC; 0.5 is chance): from what the model "
        "predicts on average, and by an adversary who has all other ratings and learns the exact model from them.\n"
        f"So many coins give 0.5 ± {methods[0].by_chance:.3f} by chance in 19 of 20 cases.",
    ]


def _alone_table(alone: Sequence[Alone]) -> str:
    groups = [[person for person in alone if person.is_canary == is_canary] for is_canary in (False, True)]
    return table_of(
        groups,
        ("", lambda group: "canaries" if group[0].is_canary else "heavy raters"),
        ("people", lambda group: str(len(group))),
        ("distance before", lambda group: number(float(np.median([person.before for person in group])))),
        ("last round: left, median", lambda group: percent(float(np.median([p.last_round for p in group])), 1)),
        ("worst", lambda group: percent(max(person.last_round for person in group), 1)),
        ("estimate: left, median", lambda group: percent(float(np.median([p.estimate for p in group])), 1)),
        ("worst", lambda group: percent(max(person.estimate for person in group), 1)),
    )


def _figure(methods: Sequence[UnlearningMethod], alone: Sequence[Alone]) -> Figure:
    figure, (together, single) = panels(2.9, 1, 2, width_ratios=[1.2, 1])
    _draw_methods(together, methods)
    _draw_alone(single, alone)
    together.axvline(100 * WANTED_SHARE, color=FREE, linewidth=0.9, linestyle=":")
    single.axhline(100 * WANTED_SHARE, color=FREE, linewidth=0.9, linestyle=":")
    return figure


def _draw_methods(axes: Axes, methods: Sequence[UnlearningMethod]) -> None:
    shares = [100 * method.share_left for method in methods]
    for place, (method, share) in enumerate(zip(methods, shares, strict=True)):
        axes.barh(place, share, color=_COLOURS.get(method.name, PRIVATE), height=0.62)
        axes.text(share + 2, place, f"{share:.0f} %", va="center", fontsize=8.5)

    name_bars(axes, [method.name.replace(": ", ":\n").replace(", ", ",\n") for method in methods])
    axes.set(title="All at once", xlabel="% of the distance left", xlim=(0, max(shares) * 1.25))


def _draw_alone(axes: Axes, alone: Sequence[Alone]) -> None:
    for is_canary, name, marker in ((False, "heavy rater", "o"), (True, "canary", "^")):
        people = [person for person in alone if person.is_canary == is_canary]
        before = [person.before for person in people]
        last, estimate = [100 * p.last_round for p in people], [100 * p.estimate for p in people]
        axes.plot(before, last, marker, color=PRIVATE, markersize=4, label=f"{name}, last round")
        axes.plot(before, estimate, marker, color=OPEN, markersize=4, label=f"{name}, estimate")

    axes.set(
        title="Each alone",
        xlabel="distance before, rating points",
        ylabel="% of the distance left",
        xlim=(0, None),
        ylim=(0, 145),
        yticks=range(0, 101, 20),
    )
    axes.legend(frameon=False, fontsize=7.5, loc="upper left", handletextpad=0.1, labelspacing=0.2)
