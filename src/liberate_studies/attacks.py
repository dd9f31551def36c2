"""What an adversary recovers from what leaves the devices, mode by mode, and audits that try to refute each claim."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.privacy.auditing import AuditResult
from liberate_studies.audits import CLAIMS, AuditTrial, misuse, trials
from liberate_studies.drawing import FREE, OPEN, PRIVATE, RECORDED, WIDTH_INCH, name_bars
from liberate_studies.recovery import ROUND_EPSILON, Averaged, RecoveredRatings, averages, leaks
from liberate_studies.study import StudyResults, StudyRun
from liberate_studies.tables import header, number, percent, table_of

_PEOPLE, _QUICK_PEOPLE = 200, 40
"""Participants whose uploads are attacked."""

_CANARIES, _QUICK_CANARIES = 20_000, 4_000

_COLOURS = {"plain": OPEN, "local": PRIVATE, "distributed": RECORDED}
"""By the mode whose uploads are attacked."""


def run(study: StudyRun) -> StudyResults:
    """Measure, and say what was found."""
    world, n_canaries = study.world, _QUICK_CANARIES if study.is_quick else _CANARIES
    study.progress("recovering ratings and items from uploads")
    recovered = leaks(world, _QUICK_PEOPLE if study.is_quick else _PEOPLE)
    study.progress("averaging over rounds")
    averaged = averages(world, n_canaries // 4)
    audited = trials(world, n_canaries, study.progress)
    study.progress("looking for misused noise")
    misused = misuse(world, _QUICK_PEOPLE)

    return StudyResults(
        rows={"recovery": recovered, "averaging": averaged, "audits": audited, "misused noise": misused},
        page=[
            header("Attacks and audits", world),
            *_recovery(recovered),
            *_averaging(averaged),
            *_audits(audited),
            "## Misused noise",
            f"What an auditor finds in the uploads of {misused[0].people} people to three rounds:",
            "\n".join(f"- {each.name}: {each.findings}" for each in misused),
            "A repeated request must get the same bytes, and uploads to two rounds must differ by more than any two "
            "clipped statistics do.",
        ],
        figure=_figure(recovered, averaged, audited),
        alt="Above: what plain uploads give away, and private ones do not. Below left: a canary is told apart more "
        "surely with each round. Below right: no audit exceeds its claim (line), every planted bug does; dotted: the "
        "most an audit can show; of two marks the upper is one round, the lower ten.",
    )


def _recovery(recovered: Sequence[RecoveredRatings]) -> Sequence[str]:
    return [
        "## What uploads give away",
        table_of(
            recovered,
            ("", lambda kind: kind.name),
            ("ratings recovered", lambda kind: percent(kind.ratings, 1)),
            ("rated items, AUC", lambda kind: number(kind.item_auc, 3)),
        ),
        "The adversary is the coordinator, who holds uploads and the public model.\n"
        "To recover ratings it is told for free which items they are of.\n"
        "AUC is how well an upload tells rated items from others; 0.5 is a coin.\n"
        "One plain upload is enough: the device's own side follows from the errors in it and from a public prior.\n"
        "An upload of `distributed` has little noise of its own, and would show what was rated were it not masked.",
    ]


def _averaging(averaged: Sequence[Averaged]) -> Sequence[str]:
    return [
        "## Averaging over rounds",
        table_of(
            averaged,
            ("rounds", lambda mean: str(mean.rounds)),
            ("error of the mean", lambda mean: number(mean.relative_error, 3)),
            ("1 / √rounds", lambda mean: number(mean.rounds**-0.5, 3)),
            ("canary told apart, AUC", lambda mean: number(mean.canary_auc, 3)),
            ("ε basic", lambda mean: number(mean.epsilon_basic, 1)),
            ("ε PLD", lambda mean: number(mean.epsilon_pld, 2)),
        ),
        f"One person's statistic is sent again and again with fresh noise, each time at ε = {ROUND_EPSILON}.\n"
        "The error of the mean falls with the square root of the rounds: that is why every round is paid for, and "
        "what the accounts add up.",
    ]


def _audits(audited: Sequence[AuditTrial]) -> Sequence[str]:
    first, last = audited[0].honest, audited[-1].honest

    return [
        "## Audits",
        table_of(
            audited,
            ("claim", lambda trial: f"{trial.name}, ε = {trial.claim}"),
            ("rounds", lambda trial: str(trial.rounds)),
            ("told apart, AUC", lambda trial: number(trial.canary_auc, 3)),
            ("ε at least", lambda trial: number(trial.honest.bound, 2)),
            ("verdict", lambda trial: trial.honest.verdict(trial.claim)),
            ("noise / 4", lambda trial: _bug(trial.quiet, trial.claim)),
            ("no clip", lambda trial: _bug(trial.unclipped, trial.claim)),
        ),
        f"{first.canaries:,} canaries are participants whose data a coin decides; without noise every one is told "
        "apart.\n"
        f"What was released about them is used to guess {first.guesses:,} of the coins, and the number of right "
        "guesses bounds ε from below with 95 % confidence (Steinke, Nasr, Jagielski 2023).\n"
        f"So many guesses show {first.ceiling:.1f} at most, {last.ceiling:.1f} where a claim has a δ: a larger one "
        "is not refutable by this audit.\n"
        "The last two columns are audits of planted bugs: noise four times too small, and a clip left out.\n"
        "A bound above the claim refutes it; that happens to a true claim in one of twenty audits at most.",
    ]


def _bug(result: AuditResult, claim: int) -> str:
    return f"{result.bound:.2f}, {result.verdict(claim)}" if claim <= result.ceiling else "-"


def _figure(
    recovered: Sequence[RecoveredRatings], averaged: Sequence[Averaged], audited: Sequence[AuditTrial]
) -> Figure:
    figure = Figure(figsize=(WIDTH_INCH, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.15, 1.2], hspace=0.04)[:, 0]
    _draw_leaks(above.subplots(), recovered)

    averages_axes, *audit_axes = below.subplots(1, 3, width_ratios=[1.35, 1, 1])
    _draw_averages(averages_axes, averaged)
    for axes, claim in zip(audit_axes, CLAIMS, strict=False):
        _draw_audits(axes, [trial for trial in audited if trial.claim == claim])
    audit_axes[1].set_yticklabels([])
    below.legend(
        *audit_axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False, fontsize=8.5
    )
    return figure


def _draw_leaks(axes: Axes, leaks: Sequence[RecoveredRatings]) -> None:
    beside = axes.get_yaxis_transform()
    for place, leak in enumerate(leaks):
        share, colour = 100 * (leak.ratings or 0.0), _COLOURS.get(leak.name.partition(",")[0], FREE)
        axes.barh(place, share, color=colour, height=0.62)
        axes.text(share + 1, place, percent(leak.ratings, 1), va="center", fontsize=8.5)
        axes.text(1.02, place, number(leak.item_auc, 2), va="center", transform=beside, fontsize=8.5)

    axes.text(1.02, 1.055, "items, AUC", transform=axes.transAxes, fontsize=9, fontweight="bold")
    name_bars(axes, [leak.name for leak in leaks])
    axes.set(
        title="Ratings recovered from uploads", xlabel="% of ratings, exactly", xlim=(0, 116), xticks=range(0, 101, 20)
    )


def _draw_averages(axes: Axes, averaged: Sequence[Averaged]) -> None:
    rounds = [mean.rounds for mean in averaged]
    aucs, errors = [mean.canary_auc for mean in averaged], [mean.relative_error for mean in averaged]
    axes.plot(rounds, aucs, color=PRIVATE, marker="o", markersize=4)
    axes.plot(rounds, errors, color=FREE, marker="o", markersize=4)
    axes.text(rounds[-1], aucs[-1] + 0.06, "canary told apart, AUC", color=PRIVATE, ha="right", fontsize=8.5)
    axes.text(rounds[2], errors[2] + 0.05, " error of the mean", color=FREE, fontsize=8.5)

    axes.set_xscale("log", base=2)
    axes.set_xticks(rounds, [f"{mean.rounds}\n{mean.epsilon_basic:.3g}" for mean in averaged])
    axes.minorticks_off()
    axes.set(title="The same, sent again and again", xlabel="rounds, and ε spent below", ylim=(0, 1.08))


def _draw_audits(axes: Axes, audited: Sequence[AuditTrial]) -> None:
    """Draw what audits of one claim showed: a row for each mechanism, its bugs above the claim."""
    names = list(dict.fromkeys(trial.name for trial in audited))
    claim, ceiling = audited[0].claim, audited[0].honest.ceiling
    axes.axvline(claim, color=FREE, linewidth=0.9, zorder=0)
    axes.axvline(ceiling, color=FREE, linewidth=0.9, linestyle=":", zorder=0)

    places = [names.index(trial.name) + (0.14 if trial.rounds > 1 else -0.14) for trial in audited]
    for label, results, marker, colour, fill in (
        ("as it is", [trial.honest for trial in audited], "o", RECORDED, "full"),
        ("noise / 4", [trial.quiet for trial in audited], "v", PRIVATE, "none"),
        ("no clip", [trial.unclipped for trial in audited], "s", PRIVATE, "none"),
    ):
        bounds = [result.bound for result in results]
        axes.plot(bounds, places, marker, color=colour, fillstyle=fill, markersize=5, label=label)

    axes.set_yticks(range(len(names)), [name.replace(", ", "\n") for name in names])
    axes.tick_params(axis="y", length=0)
    axes.set(
        title=f"Audits of ε = {claim}", xlabel="ε at least", xlim=(-0.3, ceiling + 0.5), ylim=(len(names) - 0.5, -0.5)
    )
