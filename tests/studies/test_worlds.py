"""What studies learn from: corners chosen by counting, made-up ratings with a known answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liberate_studies.worlds import World, corner, free, made_up, open_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Items a and b are rated by all five users, c and d by two each; u2 and u5 rated most of a, b and c."""
    rated = {"u1": "ab", "u2": "abcd", "u3": "abd", "u4": "ab", "u5": "abc"}
    lines = [f"{user},{item},{i % 4 + 1}" for i, (user, items) in enumerate(rated.items()) for item in items]
    (tmp_path / "four.csv").write_text("user,item,rating\n" + "\n".join(lines) + "\n", "utf-8")
    return open_world(str(tmp_path / "four.csv"))


def ids(world: World) -> tuple[set[str], set[str]]:
    return set(world.dataset.user_ids), set(world.dataset.item_ids)


def test_corner_keeps_most_rated_items_then_the_users_who_rated_most_of_them(world: World, tmp_path: Path) -> None:
    found = corner(world, 3, 3, tmp_path / "corner.parquet")

    assert ids(found) == ({"u2", "u5", "u1"}, {"a", "b", "c"}), "of equals the first: c before d, u1 before u3"


def test_corner_keeps_ratings_and_scale(world: World, tmp_path: Path) -> None:
    found = corner(world, 5, 4, tmp_path / "corner.parquet").dataset
    triples = {
        (found.user_ids[u], found.item_ids[i], float(v))
        for u, i, v in zip(found.users, found.items, found.values, strict=True)
    }

    assert triples == {
        (world.dataset.user_ids[u], world.dataset.item_ids[i], float(v))
        for u, i, v in zip(world.dataset.users, world.dataset.items, world.dataset.values, strict=True)
    }
    assert (found.low, found.high) == (world.dataset.low, world.dataset.high)


def test_made_up_world_is_the_same_each_time_and_its_truth_fits(tmp_path: Path) -> None:
    one, other = (made_up(tmp_path / name / "ratings.parquet") for name in ("one", "other"))
    data = one.dataset

    assert data.digest == other.dataset.digest
    assert one.truth is not None
    assert one.truth.shape == (len(data.user_ids), len(data.item_ids))
    assert np.corrcoef(one.truth[data.users, data.items], data.values)[0, 1] > 0.85
    assert free(one, one.job())["the world's own truth"].rmse < 0.5


def test_jobs_do_not_depend_on_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.job().settings
    monkeypatch.setenv("LIBERATE_PRIVACY_MODE", "device")

    assert world.job().settings == before


def test_world_says_what_it_is_with_its_notes(world: World) -> None:
    assert world.sentence.startswith("four: 5 users, 4 items, 14 ratings. Note: the scale")
