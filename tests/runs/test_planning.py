"""What a plan refuses before anything is learned."""

from __future__ import annotations

import pytest

from liberate.errors import SettingsError
from liberate.runs.planning import plan
from liberate.settings import resolve

IMPLICIT = "model.objective=implicit"
PRIVATE = "privacy.epsilon=4"


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
        plan(resolve(None, settings, environment={}), 100, 50)

    assert "plain" in caught.value.hint
    others = [text for text in settings if "statistic" not in text]
    assert plan(resolve(None, others, environment={}), 100, 50).n_items == 50


@pytest.mark.parametrize("settings", [("privacy.mode=plain",), ("privacy.mode=local", PRIVATE)])
def test_a_statistic_with_effect_is_taken(settings: tuple[str, ...]) -> None:
    agenda = plan(resolve(None, [*settings, "model.statistic=normal"], environment={}), 100, 50)

    assert agenda.stages[0].stage.statistic.name == "normal"
