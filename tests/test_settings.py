"""Settings: four sources in one order, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from liberate.errors import SettingsError
from liberate.settings import from_tree, resolve, to_toml, to_tree


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[model]\nn_factors = 3\nlearning_rate = 0.5\n[run]\nseed = 1\n")

    settings = resolve(
        file, ["run.seed=3"], environment={"LIBERATE_RUN_SEED": "2", "LIBERATE_MODEL_LEARNING_RATE": "4.5", "HOME": "/"}
    )

    assert settings.model.n_factors == 3
    assert settings.model.learning_rate == 4.5
    assert settings.run.seed == 3
    assert settings.data.split_seed == 42


def test_settings_are_read_back_from_toml(tmp_path: Path) -> None:
    settings = resolve(None, ["privacy.mode=local", "privacy.epsilon=8", "data.columns={user='who'}"], environment={})
    file = tmp_path / "run.toml"
    file.write_text(to_toml(settings))

    assert resolve(file, environment={}) == settings
    assert from_tree(to_tree(settings)) == settings


@pytest.mark.parametrize("text", ["ml-100k", '"ml-100k"', " ml-100k "])
def test_text_needs_no_quotes(text: str) -> None:
    assert resolve(None, [f"data.source={text}"], environment={}).data.source == "ml-100k"


@pytest.mark.parametrize(
    ("assignment", "message", "hint"),
    [
        ("privacy.epsilom=8", "unknown setting privacy.epsilom", "did you mean privacy.epsilon?"),
        ("privcy.epsilon=8", "unknown section 'privcy'", "did you mean privacy?"),
        ("epsilon=8", "section.key=value was wanted", ""),
        ("privacy.epsilon", "section.key=value was wanted", ""),
        ("privacy.epsilon=-1", r"^\[privacy\] epsilon is -1", ""),
        ("privacy.mode=local", r"^\[privacy\] mode local needs an epsilon", ""),
        ("privacy.mode=secret", "privacy.mode = 'secret'", ""),
        ("federation.rounds=0", "rounds is 0", ""),
        ("federation.rounds=many", "federation.rounds = 'many'", ""),
        ("data.test_fraction=1", "data.test_fraction = 1", ""),
        ("model.n_factors=999", "n_factors is 999", ""),
    ],
)
def test_mistakes_are_named(assignment: str, message: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        resolve(None, [assignment], environment={})

    assert hint in caught.value.hint


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[model\n")
    odd = tmp_path / "odd.toml"
    odd.write_text("model = 3\n")

    with pytest.raises(SettingsError, match="no such file"):
        resolve(tmp_path / "none.toml", environment={})
    with pytest.raises(SettingsError, match=r"broken\.toml"):
        resolve(broken, environment={})
    with pytest.raises(SettingsError, match="must hold key = value"):
        resolve(odd, environment={})


def test_misspelt_environment_is_named() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting run\.sed"):
        resolve(environment={"LIBERATE_RUN_SED": "1"})


@pytest.mark.parametrize(
    ("said", "is_masked", "noise_placement"),
    [
        ([], False, "on_sum"),
        (["run.noise_placement=per_upload"], False, "per_upload"),
        (["privacy.secure_aggregation=true"], True, "per_upload"),
        (["run.simulated=false"], True, "per_upload"),
        (["run.simulated=false", "privacy.secure_aggregation=true"], True, "per_upload"),
    ],
)
def test_masks_are_left_out_of_simulations_only(said: list[str], is_masked: bool, noise_placement: str) -> None:
    settings = resolve(None, said, environment={})

    assert (settings.is_masked, settings.noise_placement) == (is_masked, noise_placement)


@pytest.mark.parametrize(
    "said",
    [
        ["run.simulated=false", "privacy.secure_aggregation=false"],
        ["privacy.secure_aggregation=true", "run.noise_placement=on_sum"],
    ],
)
def test_a_run_whose_masks_would_be_missing_is_refused(said: list[str]) -> None:
    with pytest.raises(SettingsError, match="mask"):
        resolve(None, said, environment={})
