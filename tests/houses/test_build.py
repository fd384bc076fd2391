"""The procedural builder: within its limits, of its seed alone, with all that a house has; data values by hand."""

from collections import Counter

import numpy as np
import pytest

from pipeline.houses.build import build_house
from pipeline.houses.check import check_house, rates
from pipeline.houses.materials import ROOF_KINDS, STYLES, minecraft, roof_kinds
from pipeline.houses.plan import Body, Limits
from pipeline.houses.roofs import NONE, roof_heights
from pipeline.scene.errors import InputError

COUNT = 60
HOUSES = [build_house(seed) for seed in range(COUNT)]
BLOCK = {name: k for k, name in enumerate(minecraft().classes)}


def test_houses_have_the_structure_that_the_checker_counts() -> None:
    found = rates(check_house(canvas.ids) for _, canvas in HOUSES)
    some = {"has_chimney": (0.4, 1.0), "floors_reached": (0.99, 1.0), "windows_in_walls": (0.99, 1.0)}
    for name, rate in found.items():
        low, high = some.get(name, (0.995, 1.0))
        assert low <= rate <= high, (name, rate)


def test_limits_are_kept_and_a_house_is_its_seeds() -> None:
    for seed, (plan, canvas) in enumerate(HOUSES):
        assert canvas.ids.shape == (32, 32, 32)
        assert 150 <= canvas.count <= 1024
        if seed < 5:
            again, other = build_house(seed)
            assert again == plan
            assert np.array_equal(other.ids, canvas.ids)
            assert np.array_equal(other.data, canvas.data)
    assert len({canvas.ids.tobytes() for _, canvas in HOUSES}) == COUNT
    few = [build_house(seed, Limits(32, 400))[1].count for seed in range(10)]
    assert max(few) <= 400
    larger = [build_house(seed, Limits(64, 4096))[1] for seed in range(10)]
    assert max(canvas.count for canvas in larger) > 1024
    with pytest.raises(InputError, match="edge of at least 24"):
        build_house(0, Limits(16, 1024))


def test_variety() -> None:
    plans = [plan for plan, _ in HOUSES]
    assert {plan.style.name for plan in plans} == {style.name for style in STYLES}
    assert {body.roof for plan in plans for body in plan.bodies} == set(ROOF_KINDS)
    assert {plan.main.storeys for plan in plans} == {1, 2, 3}
    assert {len(plan.bodies) for plan in plans} == {1, 2}
    assert {plan.chimney for plan in plans} == {None, "inside", "outside"}
    ids = Counter(np.concatenate([np.unique(canvas.ids) for _, canvas in HOUSES]).tolist())
    for name in ("ladder", "bed", "chest", "torch", "fence_gate", "grass", "leaves", "red_flower", "glass_pane"):
        assert ids[BLOCK[name]], name


def test_styles_and_roofs_of_the_test_split_are_its_own() -> None:
    pairs = {kept: {(s, k) for s in range(len(STYLES)) for k in roof_kinds(s, kept)} for kept in (False, True)}
    assert not pairs[False] & pairs[True]
    assert all(roof_kinds(style, False) for style in range(len(STYLES)))
    by_name = {style.name: place for place, style in enumerate(STYLES)}
    for seed in range(30):
        plan, _ = build_house(seed, reserved=True)
        assert (by_name[plan.style.name], plan.main.roof) in pairs[True]
    assert all((by_name[plan.style.name], plan.main.roof) in pairs[False] for plan, _ in HOUSES)


@pytest.mark.parametrize(
    ("roof", "expected"),
    [
        ("gable", [3, 4, 5, 6, 5, 4, 3]),
        ("hip", [3, 4, 5, 6, 5, 4, 3]),
        ("flat", [NONE, 5, 4, 4, 4, 5, NONE]),
        ("shed", [NONE, 4, 4, 5, 5, 6, NONE]),
        ("mansard", [NONE, 4, 6, 8, 6, 4, NONE]),
    ],
)
def test_roof_heights_by_hand(roof: str, expected: list[int]) -> None:
    """A body of five by seven blocks and one storey, across its ridge."""
    body = Body(2, 2, 5, 7, 1, roof, 1)  # type: ignore[arg-type]
    heights = roof_heights(body, 12)
    assert heights[1:8, 5].tolist() == expected
    assert heights[0].max() == NONE


def test_doors_stairs_and_chimneys_say_where_they_look() -> None:
    """A door in the front, walked through along +X (east), is 0 below and 8 above; roofs rise to the ridge."""
    for plan, canvas in HOUSES[:20]:
        x, y = plan.main.x, plan.main.y + plan.door
        assert canvas.ids[x, y, 1] == canvas.ids[x, y, 2] == plan.style.door.id
        assert canvas.data[x, y, [1, 2]].tolist() == [0, 8]
        assert (canvas.ids[x - 1, y, 1:3] == 0).all()
    gabled = [(p, c) for p, c in HOUSES if p.main.roof == "gable" and p.main.along == 1 and len(p.bodies) == 1]
    plan, canvas = gabled[0]
    body, y = plan.main, plan.main.y + 1
    assert canvas.data[body.x + 1, y, body.eaves + 1] == 0  # ascends east
    assert canvas.data[body.x_end - 1, y, body.eaves + 1] == 1  # ascends west
