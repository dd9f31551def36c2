"""What an adversary recovers from what leaves the devices, mode by mode, and audits that try to refute each claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liberate.privacy.auditing import AuditResult
from liberate.timing import Progress
from liberate_studies.audits import CLAIMS, AuditTrial, misuse, trials
from liberate_studies.drawing import FREE, PRIVATE, RECORDED, WIDTH_INCH
from liberate_studies.findings import Row, Study, StudyResults, header, number, table
from liberate_studies.recovery import ROUND_EPSILON, Averaged, RecoveredRatings, averages, leaks
from liberate_studies.worlds import World

_PEOPLE, _QUICK_PEOPLE = 200, 40
"""Participants whose uploads are attacked."""

_CANARIES, _QUICK_CANARIES = 20_000, 4_000


def _run(world: World, is_quick: bool, scratch: Path, progress: Progress) -> StudyResults:
    n_canaries = _QUICK_CANARIES if is_quick else _CANARIES
    progress("recovering ratings and items from uploads")
    recovered = leaks(world, _QUICK_PEOPLE if is_quick else _PEOPLE)
    progress("averaging over rounds")
    averaged = averages(world, n_canaries // 4)
    audited = trials(world, n_canaries, progress)
    progress("looking for misused noise")
    misused = misuse(world, _QUICK_PEOPLE)
    return StudyResults(
        rows=_rows(recovered, averaged, audited),
        page=_page(world, recovered, averaged, audited, misused),
        figure=_figure(recovered, averaged, audited),
        alt="Above: what plain uploads give away, and private ones do not. Below left: a canary is told apart more "
        "surely with each round. Below right: no audit exceeds its claim (line), every planted bug does; dotted: the "
        "most an audit can show; of two marks the upper is one round, the lower ten.",
    )


def _rows(leaks: Sequence[RecoveredRatings], averaged: Sequence[Averaged], trials: Sequence[AuditTrial]) -> list[Row]:
    rows: list[Row] = [
        {"series": "recovery", "name": leak.name, "ratings_recovered": leak.ratings, "item_auc": leak.items}
        for leak in leaks
    ]
    rows += [
        {
            "series": "averaging",
            "rounds": each.rounds,
            "relative_error": each.error,
            "canary_auc": each.auc,
            "epsilon_basic": each.basic,
            "epsilon_pld": each.tight,
        }
        for each in averaged
    ]
    rows += [
        {
            "series": "audit",
            "name": trial.name,
            "bug": bug,
            "rounds": trial.rounds,
            "canary_auc": trial.membership if bug == "none" else None,
            "claim": float(trial.claim),
            "guesses": found.guesses,
            "correct": found.correct,
            "bound": found.bound,
            "ceiling": found.ceiling,
            "verdict": found.verdict(trial.claim),
        }
        for trial in trials
        for bug, found in (("none", trial.honest), ("noise / 4", trial.quiet), ("no clip", trial.unclipped))
    ]
    return rows


def _page(
    world: World,
    recovered: Sequence[RecoveredRatings],
    averaged: Sequence[Averaged],
    audited: Sequence[AuditTrial],
    misused: Mapping[str, int],
) -> str:
    first, last = audited[0].honest, audited[-1].honest
    found = "\n".join(f"- {name}: {count}" for name, count in misused.items() if name != "participants")
    return "\n\n".join(
        [
            header("Attacks and audits", world),
            "## What uploads give away",
            table(
                ["", "ratings recovered", "rated items, AUC"],
                [[leak.name, _share(leak.ratings), number(leak.items, 3)] for leak in recovered],
            ),
            "The adversary is the coordinator, who holds uploads and the public model.\n"
            "To recover ratings it is told for free which items they are of.\n"
            "AUC is how well an upload tells rated items from others; 0.5 is a coin.\n"
            "One plain upload is enough: the device's own side follows from the errors in it and from a public prior.\n"
            "An upload of `distributed` has little noise of its own, and would show what was rated were it not masked.",
            "## Averaging over rounds",
            table(
                ["rounds", "error of the mean", "1 / √rounds", "canary told apart, AUC", "ε basic", "ε PLD"],
                [_averaged(each) for each in averaged],
            ),
            f"One person's statistic is sent again and again with fresh noise, each time at ε = {ROUND_EPSILON}.\n"
            "The error of the mean falls with the square root of the rounds: that is why every round is paid for, and "
            "what the accounts add up.",
            "## Audits",
            table(
                ["claim", "rounds", "told apart, AUC", "ε at least", "verdict", "noise / 4", "no clip"],
                [_audited(trial) for trial in audited],
            ),
            f"{first.canaries:,} canaries are participants whose data a coin decides; without noise every one is told "
            "apart.\n"
            f"What was released about them is used to guess {first.guesses:,} of the coins, and the number of right "
            "guesses bounds ε from below with 95 % confidence (Steinke, Nasr, Jagielski 2023).\n"
            f"So many guesses show {first.ceiling:.1f} at most, {last.ceiling:.1f} where a claim has a δ: a larger one "
            "is not refutable by this audit.\n"
            "The last two columns are audits of planted bugs: noise four times too small, and a clip left out.\n"
            "A bound above the claim refutes it; that happens to a true claim in one of twenty audits at most.",
            "## Misused noise",
            f"What an auditor finds in the uploads of {misused['participants']} people to three rounds:",
            found,
            "A repeated request must get the same bytes, and uploads to two rounds must differ by more than any two "
            "clipped statistics do.",
        ]
    )


def _averaged(each: Averaged) -> list[str]:
    return [
        str(each.rounds),
        number(each.error, 3),
        number(each.rounds**-0.5, 3),
        number(each.auc, 3),
        number(each.basic, 1),
        number(each.tight, 2),
    ]


def _audited(trial: AuditTrial) -> list[str]:
    return [
        f"{trial.name}, ε = {trial.claim}",
        str(trial.rounds),
        number(trial.membership, 3),
        number(trial.honest.bound, 2),
        trial.honest.verdict(trial.claim),
        _bug(trial.quiet, trial.claim),
        _bug(trial.unclipped, trial.claim),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _bug(found: AuditResult, claim: int) -> str:
    return f"{found.bound:.2f}, {found.verdict(claim)}" if claim <= found.ceiling else "-"


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
        share = 0.0 if leak.ratings is None else 100 * leak.ratings
        axes.barh(place, share, color=leak.colour, height=0.62)
        axes.text(share + 1, place, _share(leak.ratings), va="center", fontsize=8.5)
        axes.text(1.02, place, number(leak.items, 2), va="center", transform=beside, fontsize=8.5)
    axes.text(1.02, 1.055, "items, AUC", transform=axes.transAxes, fontsize=9, fontweight="bold")
    axes.set_yticks(range(len(leaks)), [leak.name for leak in leaks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()
    axes.set(title="Ratings recovered from uploads", xlabel="% of ratings, exactly", xlim=(0, 116))
    axes.set_xticks(range(0, 101, 20))


def _draw_averages(axes: Axes, averaged: Sequence[Averaged]) -> None:
    rounds = [each.rounds for each in averaged]
    axes.plot(rounds, [each.auc for each in averaged], color=PRIVATE, marker="o", markersize=4)
    axes.plot(rounds, [each.error for each in averaged], color=FREE, marker="o", markersize=4)
    axes.text(rounds[-1], averaged[-1].auc + 0.06, "canary told apart, AUC", color=PRIVATE, ha="right", fontsize=8.5)
    axes.text(rounds[2], averaged[2].error + 0.05, " error of the mean", color=FREE, fontsize=8.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(rounds, [f"{each.rounds}\n{each.basic:.3g}" for each in averaged])
    axes.minorticks_off()
    axes.set(title="The same, sent again and again", xlabel="rounds, and ε spent below", ylim=(0, 1.08))


def _draw_audits(axes: Axes, audited: Sequence[AuditTrial]) -> None:
    """Draw what audits of one claim showed: a row for each mechanism, its bugs above the claim."""
    names = list(dict.fromkeys(trial.name for trial in audited))
    claim, ceiling = audited[0].claim, audited[0].honest.ceiling
    axes.axvline(claim, color=FREE, linewidth=0.9, zorder=0)
    axes.axvline(ceiling, color=FREE, linewidth=0.9, linestyle=":", zorder=0)
    for index, trial in enumerate(audited):
        place = names.index(trial.name) + (0.14 if trial.rounds > 1 else -0.14)
        for name, found, marker, colour, fill in (
            ("as it is", trial.honest, "o", RECORDED, "full"),
            ("noise / 4", trial.quiet, "v", PRIVATE, "none"),
            ("no clip", trial.unclipped, "s", PRIVATE, "none"),
        ):
            label = name if index == 0 else None
            axes.plot(found.bound, place, marker, color=colour, fillstyle=fill, markersize=5, label=label)
    axes.set_yticks(range(len(names)), [name.replace(", ", "\n") for name in names])
    axes.tick_params(axis="y", length=0)
    axes.set(
        title=f"Audits of ε = {claim}", xlabel="ε at least", xlim=(-0.3, ceiling + 0.5), ylim=(len(names) - 0.5, -0.5)
    )


STUDY = Study(default_source="ml-100k", run=_run)
