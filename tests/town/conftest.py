"""Towns that several tests look at, planned once."""

from __future__ import annotations

import pytest

from pipeline.town.plan import Town, plan_town


@pytest.fixture(
    scope="session", params=[("train", 0), ("train", 3), ("val", 1), ("test", 2)], ids=lambda p: f"{p[0]}-{p[1]}"
)
def town(request: pytest.FixtureRequest) -> Town:
    split, seed = request.param
    return plan_town(split, seed, 60)
