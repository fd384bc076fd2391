"""The baselines, with and without a coarse stage, at a tiny size."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.generators.comp_d3pm import CompD3PM
from pipeline.generators.protocol import Generator, Known, Refiner
from pipeline.generators.whole_scene import WholeScene
from pipeline.learning.checkpoint import load_part
from pipeline.scene.downsample import pool
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy
from tests.generators.tiny_methods import CAR, GRID, ROAD, TAXONOMY, enliven, scene, whole

SCENES = [scene(seed) for seed in range(4)]
NOTHING = np.full(GRID.shape, IGNORE, np.uint8)


@pytest.fixture(scope="module", params=[False, True], ids=["one_stage", "two_stages"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights fitted for two steps and then made lively."""
    out = tmp_path_factory.mktemp("whole")
    generator = WholeScene(whole(two_stage=request.param))
    generator.fit(SCENES, out)
    enliven(generator)
    generator.save(out / "lively")
    return out


@pytest.fixture
def generator(folder: Path) -> WholeScene:
    return WholeScene.load(folder / "lively")


def drawn(generator: WholeScene, seeds: list[int], known: list[Known] | None = None) -> np.ndarray:
    return np.stack([found.labels for found in generator.sample(len(seeds), seeds, known)])


def test_keeps_the_protocol(generator: WholeScene) -> None:
    assert isinstance(generator, Generator)
    assert not isinstance(generator, Refiner)
    assert (generator.grid, generator.taxonomy) == (GRID, TAXONOMY)


def test_fit_save_load_gives_equal_samples(generator: WholeScene, folder: Path, tmp_path: Path) -> None:
    fitted = WholeScene(generator.config)
    fitted.fit(SCENES, folder)
    fitted.save(tmp_path / "again")
    expected = drawn(fitted, [1, 2])
    for weights in (folder / "weights", tmp_path / "again"):
        loaded = WholeScene.load(weights)
        assert np.array_equal(drawn(loaded, [1, 2]), expected)
        assert (loaded.config, loaded.provenance) == (fitted.config, fitted.provenance)
    assert [dict(s.provenance) for s in fitted.sample(1, [4])] == [{"source": "whole_scene", "seed": 4}]


def test_a_run_is_taken_up_where_it_stopped(folder: Path, generator: WholeScene, tmp_path: Path) -> None:
    longer = whole(steps=4, two_stage="coarse" in generator.stages)
    WholeScene(longer).fit(SCENES, tmp_path / "straight")
    for name in generator.stages:
        shutil.copytree(folder / name, tmp_path / "resumed" / name)  # two steps of four
    WholeScene(longer).fit(SCENES, tmp_path / "resumed")
    for name in generator.stages:
        one, other = (load_part(tmp_path / run / "weights", name) for run in ("straight", "resumed"))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_the_stages_learn_from(generator: WholeScene) -> None:
    labels = np.stack([s.labels for s in SCENES])
    fine = generator.training_data(labels, "fine")
    assert np.array_equal(fine.target, labels)
    assert np.array_equal(fine.filled[labels != IGNORE], labels[labels != IGNORE])
    assert (fine.filled != IGNORE).all()
    assert len(fine.conditions) == ("coarse" in generator.stages)
    if fine.conditions:
        coarse = generator.training_data(labels, "coarse")
        assert np.array_equal(fine.conditions[0], coarse.filled)
        assert generator.frequency is not None
        for volume, pooled in zip(labels, coarse.target, strict=True):
            assert np.array_equal(pooled, pool(volume, (4, 4, 2), generator.frequency, generator.config.threshold))
        assert {CAR, ROAD} <= set(np.unique(coarse.target))  # foreground and background together


def test_a_sample_depends_on_its_seed_alone(generator: WholeScene) -> None:
    three = drawn(generator, [5, 6, 7])
    assert np.array_equal(drawn(generator, [7, 5]), three[[2, 0]])
    assert np.array_equal(drawn(generator, [6])[0], three[1])
    assert len({volume.tobytes() for volume in three}) == 3
    assert three.max() < len(TAXONOMY.classes)


def test_known_voxels_are_exact_and_classes_respected(generator: WholeScene) -> None:
    free = np.random.default_rng(0).random(GRID.shape) < 0.5
    known = [
        Known(np.where(free, np.uint8(IGNORE), s.labels), classes)
        for s, classes in zip(SCENES[:2], [None, (CAR,)], strict=True)
    ]
    found = drawn(generator, [1, 2, 3], [*known, Known(NOTHING, (ROAD,))])
    for volume, held in zip(found, known, strict=False):
        assert np.array_equal(volume[held.labels != IGNORE], held.labels[held.labels != IGNORE])
    assert set(np.unique(found[1][known[1].labels == IGNORE])) == {EMPTY, CAR}
    assert set(np.unique(found[2])) == {EMPTY, ROAD}
    assert np.array_equal(drawn(generator, [2, 1], known[::-1]), found[[1, 0]])
    whole_scene = np.where(SCENES[3].labels == IGNORE, np.uint8(EMPTY), SCENES[3].labels)
    assert np.array_equal(drawn(generator, [1], [Known(whole_scene)])[0], whole_scene)


def test_faults(generator: WholeScene, folder: Path, tmp_path: Path) -> None:
    for n, seeds, known in (
        (2, [1], None),
        (1, [1], [Known(NOTHING[:8])]),
        (1, [1], [Known(np.full(GRID.shape, 20, np.uint8))]),
        (1, [1], [Known(NOTHING, (20,))]),
    ):
        with pytest.raises(InputError):
            generator.sample(n, seeds, known)
    with pytest.raises(InputError, match="training scene"):
        WholeScene(whole()).fit([Scene(NOTHING, GRID, load_taxonomy("carla_sc"))], tmp_path / "run")
    with pytest.raises(InputError, match="fitted or loaded"):
        WholeScene(whole()).save(tmp_path / "weights")
    for act in (CompD3PM.load, lambda path: WholeScene.load(path / "fine")):
        with pytest.raises(InputError):
            act(folder / "lively")
    cut, foreign = (Path(shutil.copytree(folder / "lively", tmp_path / name)) for name in ("cut", "foreign"))
    content = (cut / "fine.safetensors").read_bytes()
    (cut / "fine.safetensors").write_bytes(content[:-4])
    card = json.loads((foreign / "card.json").read_text())
    (foreign / "card.json").write_text(json.dumps(card | {"config": {}}))
    for bad, words in ((cut, r"fine\.safetensors"), (foreign, "weights of whole_scene")):
        with pytest.raises(InputError, match=words) as caught:
            WholeScene.load(bad)
        assert "\n" not in str(caught.value)
