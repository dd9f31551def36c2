"""What a plan refuses before anything is learned."""

from __future__ import annotations

import pytest

from liberate.errors import SettingsError
from liberate.model.model import packed_size
from liberate.runs.plan import plan_run
from liberate.settings import resolve

IMPLICIT = "model.objective=implicit"
PRIVATE = "privacy.epsilon=4"
PEERS = ("sharing.recipients=peers",)


@pytest.mark.parametrize(
    "settings",
    [
        ("privacy.mode=distributed", PRIVATE, "model.statistic=gradient"),
        ("privacy.mode=distributed", PRIVATE, IMPLICIT, "model.statistic=gram"),
        ("privacy.mode=local", PRIVATE, IMPLICIT, "model.statistic=normal"),
        ("privacy.mode=device", "model.statistic=normal"),
    ],
)
def test_a_statistic_without_effect_is_refused(settings: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"model\.statistic is .* leaves no choice") as caught:
        plan_run(resolve(None, settings, environment={}), 100, 50)

    assert "plain" in caught.value.hint
    others = [text for text in settings if "statistic" not in text]
    assert plan_run(resolve(None, others, environment={}), 100, 50).n_items == 50


@pytest.mark.parametrize("settings", [("privacy.mode=plain",), ("privacy.mode=local", PRIVATE)])
def test_a_statistic_with_effect_is_taken(settings: tuple[str, ...]) -> None:
    plan = plan_run(resolve(None, [*settings, "model.statistic=normal"], environment={}), 100, 50)

    assert plan.stages[0].stage.statistic.name == "normal"


@pytest.mark.parametrize("settings", [("privacy.mode=plain",), ("privacy.mode=local", PRIVATE)])
def test_a_trimmed_sum_is_of_gradients_and_every_round_says_so(settings: tuple[str, ...]) -> None:
    plan = plan_run(resolve(None, [*settings, "federation.trimmed_fraction=0.1"], environment={}), 100, 50)

    stage = plan.stages[0].stage
    assert stage.statistic.name == "gradient"
    assert stage.mechanism.parameters["trimmed_nano"] == 100_000_000
    assert plan.settings.model.statistic == "gradient"


def test_without_trimming_rounds_say_nothing_of_it() -> None:
    plan = plan_run(resolve(None, ["privacy.mode=plain"], environment={}), 100, 50)

    assert plan.stages[0].stage.mechanism.parameters == {}


@pytest.mark.parametrize(
    "settings",
    [
        ("privacy.mode=distributed", PRIVATE),
        ("privacy.mode=device",),
        ("privacy.mode=plain", IMPLICIT),
        ("privacy.mode=plain", "model.statistic=normal"),
    ],
)
def test_a_sum_that_cannot_be_trimmed_is_refused(settings: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"federation\.trimmed_fraction is for"):
        plan_run(resolve(None, [*settings, "federation.trimmed_fraction=0.1"], environment={}), 100, 50)


@pytest.mark.parametrize("trim", ["-0.1", "0.5"])
def test_a_trim_that_leaves_nothing_is_refused(trim: str) -> None:
    with pytest.raises(SettingsError, match=r"wanted 0 <= trimmed_fraction < 0\.5"):
        resolve(None, [f"federation.trimmed_fraction={trim}"], environment={})


@pytest.mark.parametrize(
    ("users", "settings", "follows", "statistics"),
    [
        (0.1, ("privacy.mode=device",), "nothing", []),
        (0.1, ("privacy.mode=plain",), "normal", ["normal"]),
        (0.1, ("privacy.mode=local", PRIVATE), "gradient", ["gradient"]),
        (0.01, ("privacy.mode=distributed", PRIVATE), "bias", ["bias", "gram", "moments", "residuals"]),
        (0.1, ("privacy.mode=distributed", PRIVATE), "moments", ["moments", "residuals"]),
        (0.0, ("privacy.mode=distributed", PRIVATE), "bias", ["bias", "gram", "moments", "residuals"]),
        (0.1, (*PEERS, "privacy.mode=distributed", PRIVATE), "bias", ["bias", "gram", "moments", "residuals"]),
    ],
)
def test_what_follows_a_pool_is_what_the_stages_begin_with(
    users: float, settings: tuple[str, ...], follows: str, statistics: list[str]
) -> None:
    shared = (*settings, f"sharing.user_fraction={users}")

    plan = plan_run(resolve(None, shared, environment={}), 6_000, 3_000, 20, pool_levels=5)

    assert plan.pool is not None
    assert plan.pool.follows == follows
    assert [planned.stage.statistic.name for planned in plan.stages] == statistics
    assert plan.rounds == 1 + sum(planned.rounds for planned in plan.stages)


def test_moments_that_follow_a_pool_have_a_number_for_each_column_of_its_model() -> None:
    shared = ("privacy.mode=distributed", PRIVATE, "sharing.user_fraction=0.1")

    plan = plan_run(resolve(None, shared, environment={}), 6_000, 3_000, 20, pool_levels=5)

    assert plan.pool is not None
    assert plan.pool.moments_rounds == plan.stages[0].rounds
    assert plan.stages[0].stage.statistic.shape[0] == packed_size(20 + plan.pool.n_factors + 1)
