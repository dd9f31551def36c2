"""The one release of errors on held-out ratings: planned, paid for, unbiased, and nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liberate.data.ratings import Ratings
from liberate.errors import InsufficientCohort, PrivacyError, SettingsError
from liberate.federation.coordinator.aggregate import UploadAggregate
from liberate.federation.terms import ParticipationTerms
from liberate.ledger.verification.verify import verify_ledger
from liberate.model.model import Model
from liberate.model.private.evaluation import (
    CENTRE,
    EVALUATION_NORM,
    REACH,
    ErrorRelease,
    OwnErrors,
    people_error,
)
from liberate.model.private.statistics import initial_features
from liberate.model.profiles import fit_devices, predict
from liberate.model.registry import statistic_of
from liberate.model.solvers import AggregatedStatistics
from liberate.privacy.gaussian import DistributedGaussian
from liberate.privacy.gaussian_tradeoff import gaussian_calibration
from liberate.report import write
from liberate.runs.budget import allocate_budget
from liberate.runs.federation_access import participation_terms
from liberate.runs.folder import load_run
from liberate.runs.plan import Plan, plan_run
from liberate.runs.privacy_forecast import forecast
from liberate.runs.privacy_report import privacy_report
from liberate.runs.train import train
from liberate.settings import Settings, resolve
from liberate.tracing.recompute import recompute
from liberate.units import to_nano
from tests.runs.test_distributed import camps
from tests.service.replaying import replaying
from tests.worlds import write_csv

Configure = Callable[..., Settings]
SCALE = ("data.rating_min=1", "data.rating_max=5")


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    data = write_csv(tmp_path / "ratings.csv", camps(n_users=30, n_items=12))

    def build(*assignments: str) -> Settings:
        fixed = [f"data.source={data}", *SCALE, "privacy.mode=distributed", "privacy.evaluation=true"]
        return resolve(None, [*fixed, *assignments], environment={})

    return build


def model_for(ratings: Ratings) -> Model:
    """Return a model of biases that asks for people's own errors."""
    model = initial_features(np.zeros((ratings.n_items, 0), np.float32), 1, 5, statistic="bias")
    return Model.of(3, "evaluation", 1, 5, model.arrays)


def parts_of(ratings: Ratings) -> tuple[Ratings, Ratings]:
    """Return what is learned from, and what is held out: of some people nothing."""
    is_held_out = (np.arange(ratings.n_ratings) % 4 == 0) & (ratings.users() % 5 != 0)
    return ratings.where(~is_held_out), ratings.where(is_held_out)


def mean_squares(model: Model, learned: Ratings, held_out: Ratings) -> list[float]:
    """Return the mean squared error of each person who holds something out, the plain way."""
    profiles, squares = fit_devices(model, learned), []
    for user in range(learned.n_users):
        items = held_out.items[held_out.indptr[user] : held_out.indptr[user + 1]]
        values = held_out.values[held_out.indptr[user] : held_out.indptr[user + 1]]
        predicted = predict(model, profiles, np.full(len(items), user, np.int32), items)
        if len(items):
            squares.append(float(np.mean((predicted.astype(np.float64) - values) ** 2)))
    return squares


def test_nobody_adds_more_than_the_norm_and_whoever_holds_nothing_out_adds_nothing() -> None:
    learned, held_out = parts_of(camps())
    wild = replace(held_out, values=np.where(np.arange(held_out.n_ratings) % 2, 1, 5).astype(np.float32))

    rows = OwnErrors().measure(model_for(learned), learned, wild).rows

    norms = np.linalg.norm(rows, axis=1)
    assert norms.max() <= EVALUATION_NORM + 1e-6
    assert (norms == 0).tolist() == (np.diff(held_out.indptr) == 0).tolist()
    assert OwnErrors().compute(model_for(learned), learned).rows.any() == np.False_


def test_figure_without_noise_is_the_error_over_people() -> None:
    learned, held_out = parts_of(camps())
    model = model_for(learned)

    total = OwnErrors().measure(model, learned, held_out).rows.sum(axis=0, dtype=np.float64)
    figure = people_error(ErrorRelease(0).solve(model, AggregatedStatistics(total[None], np.zeros(0), learned.n_users)))

    wanted = math.sqrt(np.mean(np.minimum(mean_squares(model, learned, held_out), CENTRE + REACH)))
    assert figure is not None
    assert figure.rmse == pytest.approx(wanted, abs=1e-6)
    assert figure.deviation == 0


def test_figure_is_off_by_no_more_than_the_deviation_it_states(configure: Configure) -> None:
    """By the mechanism's own clip and noise, on the sum of 160 people, over and over."""
    learned, held_out = parts_of(camps())
    model, batch = model_for(learned), OwnErrors().measure(model_for(learned), learned, held_out)
    mechanism = plan_run(configure("privacy.epsilon=8"), learned.n_users, 40).stages[-1].stage.mechanism
    assert isinstance(mechanism, DistributedGaussian)
    exact = mechanism.clip(batch).rows.sum(axis=0, dtype=np.int64)[None]

    figures = []
    for index in range(1, 1_001):
        total = UploadAggregate(exact.copy(), np.zeros(0, np.int64), n_uploads=learned.n_users)
        mechanism.add_to_sum(total.rows, total.tail, learned.n_users, index.to_bytes(32, "big"), False)
        release = ErrorRelease(to_nano(mechanism.client_noise))
        figures.append(people_error(release.solve(model, total.total(mechanism.fraction_bits))))

    told = [figure for figure in figures if figure is not None]
    errors = np.array([figure.rmse for figure in told]) - math.sqrt(
        np.minimum(mean_squares(model, learned, held_out), CENTRE + REACH).mean()
    )
    deviation = float(np.mean([figure.deviation for figure in told]))
    assert len(told) == len(figures)
    assert errors.std() == pytest.approx(deviation, rel=0.1)
    assert abs(errors.mean()) < deviation / 5


def test_figure_that_noise_has_drowned_is_none() -> None:
    model = model_for(camps())

    drowned = ErrorRelease(10**9).solve(model, AggregatedStatistics(np.array([[1.0, 5.0]]), np.zeros(0), 9))

    assert people_error(drowned) is None
    assert people_error(model) is None


def test_plan_pays_for_the_evaluation_from_the_budget(configure: Configure) -> None:
    settings = configure("privacy.epsilon=8")

    plan = plan_run(settings, 943, 1_000)

    assert [planned.stage.statistic.name for planned in plan.stages][-2:] == ["residuals", "evaluation"]
    assert plan.stages[-1].rounds == 1
    squares = []
    for planned in plan.stages:
        mechanism = planned.stage.mechanism
        assert isinstance(mechanism, DistributedGaussian)
        squares.append(planned.rounds * (mechanism.clip_units / mechanism.share_units) ** 2 / mechanism.honest)
    assert sum(squares) <= gaussian_calibration(8, 1e-5) ** 2
    assert sum(squares) == pytest.approx(gaussian_calibration(8, 1e-5) ** 2, rel=1e-3)
    spent = plan.spent().epsilon
    assert spent is not None
    assert spent <= 8


def test_precision_and_price_are_those_of_the_design() -> None:
    """943 people, 10 % whose noise is lost and 10 % who drop out: within 0.01 for about 2 % of the budget of 8."""
    chosen = allocate_budget(
        "explicit",
        n_participants=943,
        n_items=1_682,
        n_features=19,
        epsilon=8,
        delta=1e-5,
        honest=754,
        evaluated=True,
    )

    assert chosen.shares["evaluation"] == pytest.approx(0.024, abs=0.002)
    assert "by at most 0.010 of a quarter of the scale in 95 of 100 runs" in chosen.reasons[-1]
    assert sum(chosen.shares.values()) == pytest.approx(1)


def test_too_few_people_have_no_evaluation(configure: Configure) -> None:
    with pytest.raises(PrivacyError, match="an evaluation by 12 people would deviate"):
        plan_run(configure("privacy.epsilon=8"), 12, 20)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["privacy.mode=plain"], "evaluation is for mode distributed"),
        (["privacy.mode=local"], "evaluation is for mode distributed"),
        (["model.objective=implicit"], "for explicit ratings"),
        (["data.test_fraction=0"], "none are held out"),
        (["run.simulated=false"], "none are held out"),
    ],
)
def test_evaluation_of_nothing_is_refused(configure: Configure, assignments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        plan_run(configure("privacy.epsilon=8", *assignments), 30, 12)


@pytest.mark.parametrize("how", ["run.noise_placement=on_sum", "privacy.secure_aggregation=true"])
def test_simulation_tells_the_error_within_what_it_states(tmp_path: Path, configure: Configure, how: str) -> None:
    settings = configure("privacy.epsilon=40", "ledger.keep_uploads=true", how)

    result = train(settings, tmp_path / "run")

    run = load_run(tmp_path / "run")
    model, split = run.model(), run.split(run.dataset())
    squares = np.array(mean_squares(model, split.train, split.test))
    wanted = math.sqrt(np.minimum(squares, CENTRE + REACH).mean())
    assert result.evaluation is not None
    assert abs(result.evaluation.rmse - wanted) < 4 * result.evaluation.deviation
    assert result.evaluation.deviation < 0.15
    assert run.result == result
    assert forecast(settings).stages[-1].statistic == "evaluation"
    assert verify_ledger(run.ledger_folder, key=run.verifier_key).ok
    assert not recompute(run).findings


def test_real_run_tells_this_figure_and_no_other(tmp_path: Path, configure: Configure) -> None:
    with replaying(tmp_path / "run") as witness:
        settings = configure("privacy.epsilon=40", "run.simulated=false", "data.test_fraction=0.2", *witness)
        result = train(settings, tmp_path / "run")

    run = load_run(tmp_path / "run")
    assert result.evaluation is not None
    assert result.evaluation == people_error(run.model()) == run.result.evaluation
    assert 0 < result.evaluation.rmse < 3
    assert math.isnan(result.rmse)
    assert f"RMSE over people, each with the same weight: {result.evaluation.rmse:.3f}" in write(run).read_text("utf-8")
    spent = privacy_report(run).epsilon_pld
    assert spent is not None
    assert spent <= 40


def test_a_release_of_errors_that_nobody_agreed_to_is_refused(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_if_without(plan: Plan) -> ParticipationTerms:
        return replace(participation_terms(plan), evaluation=False)

    monkeypatch.setattr("liberate.runs.train.participation_terms", as_if_without)

    with pytest.raises(InsufficientCohort, match="policy"):
        train(configure("privacy.epsilon=40"), tmp_path / "run")


def test_run_without_an_evaluation_has_no_figure(tmp_path: Path, configure: Configure) -> None:
    result = train(configure("privacy.epsilon=40", "privacy.evaluation=false"), tmp_path / "run")

    assert result.evaluation is None


def test_a_model_that_asks_for_errors_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="no statistic"):
        statistic_of(model_for(camps()), noisy=False)
