"""Prompts: order and threshold by area, draws as functions of the seed, the vocabulary, and word files' faults."""

import re

import numpy as np
import pytest

from pipeline.images.base import TINY, new_pipeline
from pipeline.images.prompts import PromptConfig, load_words, named_classes, prompt, vocabulary
from pipeline.images.synthesis import check_words
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import load_taxonomy
from tests.images.town_view import BUILDING, CAR, ROAD, labelled, street_view

KITTI = load_taxonomy("semantic_kitti")
EXTRAS = ("weather", "time_of_day", "camera")


def test_named_by_area():
    """Road 112 px, building 80 px, car 48 px."""
    text = prompt(street_view(), KITTI, PromptConfig(), 0).text
    assert text == "a traffic scene with: road, building, car"


def test_order_and_limits():
    view = street_view()
    assert named_classes(view, KITTI, PromptConfig(order="taxonomy")) == [CAR, ROAD, BUILDING]
    assert named_classes(view, KITTI, PromptConfig(max_classes=1)) == [ROAD]
    assert named_classes(view, KITTI, PromptConfig(max_classes=2, order="taxonomy")) == [ROAD, BUILDING]
    share = 48 / view.semantics.size
    assert named_classes(view, KITTI, PromptConfig(min_share=share)) == [ROAD, BUILDING, CAR]
    assert named_classes(view, KITTI, PromptConfig(min_share=share * 1.01)) == [ROAD, BUILDING]


def test_equal_areas_are_named_by_id():
    labels = np.zeros((4, 4), np.uint8)
    labels[0], labels[1], labels[2] = BUILDING, CAR, ROAD
    assert named_classes(labelled(labels), KITTI, PromptConfig()) == [CAR, ROAD, BUILDING]


def test_plain_words_and_nothing():
    labels = np.full((4, 4), KITTI.id_of("other-vehicle"), np.uint8)
    view = labelled(labels)
    assert prompt(view, KITTI, PromptConfig(), 0).text == "a traffic scene with: bus or trailer"
    view = labelled(np.where(np.eye(4) > 0, 255, 0).astype(np.uint8))
    assert prompt(view, KITTI, PromptConfig(), 0).text == "a traffic scene with: open space"


def test_draws_depend_on_the_seed_alone():
    config, view = PromptConfig(extras=EXTRAS), street_view()
    texts = [prompt(view, KITTI, config, seed).text for seed in range(60)]
    assert texts == [prompt(view, KITTI, config, seed).text for seed in range(60)]
    for name in EXTRAS:
        for word in load_words("traffic").lists[name]:
            assert any(word in text for text in texts), word


def test_a_switch_leaves_other_draws_alone():
    view = street_view()
    for seed in range(10):
        full = prompt(view, KITTI, PromptConfig(extras=EXTRAS), seed).text
        part = prompt(view, KITTI, PromptConfig(extras=("camera",)), seed).text
        assert full.split(", ")[-1] == part.split(", ")[-1]


def test_given_words_replace_drawn_ones():
    config = PromptConfig(extras=("weather",))
    texts = {prompt(street_view(), KITTI, config, seed, {"weather": "fog"}).text for seed in range(8)}
    assert texts == {"a traffic scene with: road, building, car, fog"}
    with pytest.raises(InputError, match="prompt's weather: expected one of clear sky"):
        prompt(street_view(), KITTI, config, 0, {"weather": "frogs"})
    with pytest.raises(InputError, match="a list of weather, time_of_day, camera"):
        prompt(street_view(), KITTI, config, 0, {"mood": "fog"})


def test_dropout_is_a_share_of_seeds():
    view, config = street_view(), PromptConfig(dropout=0.25)
    empty = [prompt(view, KITTI, config, seed).text == "" for seed in range(400)]
    assert empty == [prompt(view, KITTI, config, seed).text == "" for seed in range(400)]
    assert 70 <= sum(empty) <= 130  # 100 +- 3.5 deviations
    assert not any(prompt(view, KITTI, PromptConfig(), seed).text == "" for seed in range(40))


def test_negative():
    assert "blurry" in prompt(street_view(), KITTI, PromptConfig(), 0).negative
    assert prompt(street_view(), KITTI, PromptConfig(negative=False), 0).negative == ""


@pytest.mark.parametrize("name", ["semantic_kitti", "carla_sc", "occ3d", "kitti_360"])
def test_vocabulary_holds_every_word(name):
    """A pipeline built on the vocabulary knows the words of any prompt, every class named."""
    taxonomy, config = load_taxonomy(name), PromptConfig(extras=EXTRAS, min_share=0, max_classes=99)
    words = vocabulary(config, taxonomy)
    assert len(set(words)) == len(words)
    labels = np.arange(len(taxonomy.classes), dtype=np.uint8)[None]
    view = labelled(labels)
    for seed in range(20):
        for text in prompt(view, taxonomy, config, seed):
            assert set(re.findall(r"[\w\-]+", text.lower())) <= set(words)


def test_vocabulary_suits_the_small_pipeline():
    config = PromptConfig(extras=EXTRAS)
    tokenizer = new_pipeline(TINY, vocabulary(config, KITTI), 5).tokenizer
    for text in prompt(street_view(), KITTI, config, 3):
        check_words(tokenizer, text)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('template = "a street"', "a template with {classes}"),
        ("weather = []", "a list of texts 'weather'"),
        ("camera = [3]", "a list of texts 'camera'"),
        ("negative = 1", "a text 'negative'"),
        ("wether = 1", "found 'wether'"),
        ("= 1", "words for prompts in TOML"),
    ],
)
def test_bad_word_files(tmp_path, line, fault):
    good = (
        'template = "{classes}"\nnothing = "n"\nnegative = "b"\nweather = ["w"]\ntime_of_day = ["t"]\ncamera = ["c"]\n'
    )
    key = line.split(" ")[0]
    lines = [row for row in good.splitlines() if not key or not row.startswith(key)]
    path = tmp_path / "words.toml"
    path.write_text("\n".join([*lines, line]))
    with pytest.raises(InputError, match=re.escape(fault)):
        load_words(str(path))


def test_own_word_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'template="photo of {classes}"\nnothing="n"\nnegative="b"\nweather=["w"]\ntime_of_day=["t"]\ncamera=["c"]'
    )
    assert prompt(street_view(), KITTI, PromptConfig(words=str(path)), 0) == ("photo of road, building, car", "b")
    with pytest.raises(InputError, match=r"prompts/none\.toml"):
        load_words("none")


def test_labels_of_another_taxonomy_are_refused():
    view = street_view()
    view.semantics[0, 0] = 99
    with pytest.raises(InputError, match="labels of semantic_kitti, found 99"):
        prompt(view, KITTI, PromptConfig(), 0)
