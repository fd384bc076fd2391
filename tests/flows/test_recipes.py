"""Recipes: whole, frozen, changeable by field, refused in one line, and free of this machine's paths."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.recipes import RECIPES, load_recipe
from pipeline.scene.errors import InputError


def test_every_recipe_loads_and_is_frozen() -> None:
    weights = {"generated", "demo", "town_images", "town_images_tiny"}  # test_generated_build.py, test_image_build.py
    for name in RECIPES.keys() - weights:
        recipe = load_recipe(name, Path("/data") if name == "semantic_kitti" else None)
        assert recipe.name == name
        with pytest.raises(ValidationError):
            recipe.seed = 3  # type: ignore[misc]


def test_changes_reach_nested_fields_and_the_digest() -> None:
    plain = load_recipe("town_tiny")
    changed = load_recipe("town_tiny", changes=("samples=3", "views.width_px=640", "source.grid.voxel_size_m=0.2"))
    assert (changed.samples, changed.views.width_px, changed.source.grid.voxel_size_m) == (3, 640, 0.2)
    assert changed.digest() != plain.digest() == load_recipe("town_tiny").digest()


def test_a_machines_path_is_no_part_of_the_digest() -> None:
    here, there = load_recipe("semantic_kitti", Path("/here")), load_recipe("semantic_kitti", Path("/there"))
    assert here.digest() == there.digest()
    assert "/here" not in here.model_dump_json()
    assert load_recipe("semantic_kitti", Path("/here"), ("samples=2",)).source.root == Path("/here")


@pytest.mark.parametrize(
    ("name", "root", "changes", "message"),
    [
        ("nonsense", None, (), "one of town_demo"),
        ("semantic_kitti", None, (), "a dataset ROOT"),
        ("town_tiny", Path("/x"), (), "no ROOT"),
        ("town_tiny", None, ("samples",), "FIELD=VALUE"),
        ("town_tiny", None, ("sample=3",), "a field of the recipe"),
        ("town_tiny", None, ("views.width.x=3",), "a field of the recipe"),
        ("town_tiny", None, ("samples=-1",), "greater than or equal to 1"),
        ("town_tiny", None, ("samples=many",), "valid integer"),
        ("town_tiny", None, ("views.cameras=[]",), "at least 1"),
        ("semantic_kitti", Path("/x"), ("views.jitter_m=1",), "front camera alone and no jitter"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(name, root, changes, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(name, root, changes)
    assert "\n" not in str(caught.value)
