"""A build's held-out scenes: whole scenes in sequences of their own, and nothing else moved."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.layout import place_of, sequence_of, split_runs
from flows.recipes import BuildRecipe, SplitSource, SscStep, TownSource, load_recipe
from flows.sources import source_length
from pipeline.scene.errors import InputError


def recipe_of(**fields: object) -> BuildRecipe:
    return BuildRecipe(**{"name": "some", "source": TownSource(frames_per_sequence=2), "samples": 20, **fields})


@given(
    samples=st.integers(8, 60),
    frames=st.integers(1, 3),
    images=st.integers(1, 2),
    sequences=st.integers(1, 30),
    val=st.sampled_from([0.0, 0.01, 0.2, 0.4]),
    test=st.sampled_from([0.0, 0.1, 0.3]),
)
@settings(max_examples=60, deadline=None)
def test_no_scene_is_in_two_splits_and_every_sample_has_a_place(samples, frames, images, sequences, val, test) -> None:
    shares = {"val_share": val, "test_share": test, "sequences": sequences}
    source = TownSource(frames_per_sequence=frames)
    recipe = recipe_of(source=source, samples=samples, images_per_scene=images, **shares)
    try:
        split_runs(recipe)
    except InputError:
        assert -(-samples // (frames * images)) <= 3  # too few scenes
        return
    places = [place_of(recipe, index) for index in range(samples)]
    assert len({place.name for place in places}) == samples
    scenes, members = defaultdict(set), defaultdict(list)
    for index, place in enumerate(places):
        scenes[index // (frames * images)].add(place.split)
        members[place.sequence].append(place)
    assert all(len(splits) == 1 for splits in scenes.values())
    assert {place.split for place in places} == {"train", *["val"] * bool(val), *["test"] * bool(test)}
    for found in members.values():
        assert len({place.split for place in found}) == 1
        assert [place.frame for place in found] == [f"{k:06d}" for k in range(len(found))]
    numbers = [sequence_of(recipe, index)[0] for index in range(samples)]
    assert sorted(set(numbers)) == list(range(len(members)))  # a camera of its own each


def test_without_shares_places_are_as_ever() -> None:
    places = [place_of(recipe_of(samples=5, sequences=2), index).name for index in range(5)]
    assert places == ["00/000000", "00/000001", "00/000002", "01/000000", "01/000001"]


def test_names_are_semantic_kittis() -> None:
    recipe = recipe_of(samples=10, sequences=4, val_share=0.2, test_share=0.2)
    found = [(place_of(recipe, index).split, place_of(recipe, index).name) for index in range(10)]
    assert found[5:] == [
        ("train", "03/000000"),
        ("val", "08/000000"),
        ("val", "08/000001"),
        ("test", "11/000000"),
        ("test", "11/000001"),
    ]


def test_what_cannot_be_held_out_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="some are left to train on"):
        split_runs(recipe_of(samples=2, val_share=0.5))
    with pytest.raises(ValidationError, match="stay in their split"):
        recipe_of(source=SplitSource(root=tmp_path), val_share=0.2)
    with pytest.raises(ValidationError, match="scenes to test on"):
        recipe_of(ssc=SscStep())


def test_what_comes_after_the_dataset_is_no_part_of_its_digest(tmp_path) -> None:
    plain = load_recipe("demo_town")
    other = load_recipe("demo_town", changes=("ssc.steps=7", f"ssc.real={tmp_path}", "gallery_samples=3"))
    assert other.ssc is not None
    assert (other.ssc.steps, other.ssc.real) == (7, tmp_path)
    assert other.digest() == plain.digest()
    assert load_recipe("demo_town", changes=("val_share=0.3",)).digest() != plain.digest()
    assert load_recipe("town_tiny", changes=("val_share=0.4", "ssc.recipe=tiny")).ssc == SscStep(recipe="tiny")
    assert source_length(plain) == 32
