"""Comp-D3PM whole, at a tiny size: what its stages learn from, what its draws depend on, what they hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.generators.comp_d3pm import STAGES, CompD3PM
from pipeline.generators.protocol import Generator, Known, Refiner
from pipeline.learning.checkpoint import load_part
from pipeline.scene.downsample import pool
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.split import split
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy
from tests.generators.tiny_methods import BUILDING, CAR, GRID, POLE, ROAD, TAXONOMY, comp, enliven, scene

SCENES = [scene(seed) for seed in range(4)]
THINGS = TAXONOMY.is_foreground()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights fitted for two steps and then made lively."""
    out = tmp_path_factory.mktemp("comp")
    generator = CompD3PM(comp())
    generator.fit(SCENES, out)
    enliven(generator)
    generator.save(out / "lively")
    return out


@pytest.fixture
def generator(folder: Path) -> CompD3PM:
    return CompD3PM.load(folder / "lively")


def drawn(generator: CompD3PM, seeds: list[int], known: list[Known] | None = None) -> np.ndarray:
    return np.stack([found.labels for found in generator.sample(len(seeds), seeds, known)])


def test_keeps_the_protocols(generator: CompD3PM) -> None:
    assert isinstance(generator, Generator)
    assert isinstance(generator, Refiner)
    assert generator.grid == GRID
    assert generator.taxonomy is TAXONOMY


def test_scenes_are_whole_and_say_where_they_come_from(generator: CompD3PM) -> None:
    found = generator.sample(3, [5, 2**62, 7])
    assert [dict(s.provenance) for s in found] == [{"source": "comp_d3pm", "seed": k} for k in (5, 2**62, 7)]
    for one in found:
        assert one.labels.dtype == np.uint8
        assert one.grid == GRID
        assert one.labels.max() < len(TAXONOMY.classes)
    assert generator.sample(0, []) == []


def test_fit_save_load_gives_equal_samples(folder: Path, tmp_path: Path) -> None:
    fitted = CompD3PM(comp())
    fitted.fit(SCENES, folder)  # already done: the run's end is taken up
    fitted.save(tmp_path / "again")
    expected = drawn(fitted, [1, 2])
    for weights in (folder / "weights", tmp_path / "again"):
        loaded = CompD3PM.load(weights)
        assert np.array_equal(drawn(loaded, [1, 2]), expected)
        assert loaded.config == fitted.config
        assert loaded.provenance == fitted.provenance
        assert np.array_equal(loaded.frequency, fitted.frequency)  # type: ignore[arg-type]
    card = json.loads((folder / "weights" / "card.json").read_text())
    assert card["scenes"] == 4
    assert len(card["data_digest"]) == 64


def test_a_run_is_taken_up_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    straight, resumed = CompD3PM(comp(steps=4)), CompD3PM(comp(steps=4))
    straight.fit(SCENES, tmp_path / "straight")
    for name in STAGES:
        shutil.copytree(folder / name, tmp_path / "resumed" / name)  # two steps of four
    resumed.fit(SCENES, tmp_path / "resumed")
    for name in STAGES:
        one, other = (load_part(tmp_path / run / "weights", name) for run in ("straight", "resumed"))
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert any(not torch.equal(one[key], value) for key, value in load_part(folder / "weights", name).items())


def test_other_scenes_in_a_runs_folder_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="data_digest"):
        CompD3PM(comp()).fit([scene(9), *SCENES[1:]], folder)


def test_stages_may_be_trained_apart(folder: Path, tmp_path: Path) -> None:
    for name in reversed(STAGES):
        CompD3PM(comp()).fit(SCENES, tmp_path / "run", stages=(name,))
    assert not (tmp_path / "run" / "weights").exists()
    CompD3PM(comp()).fit(SCENES, tmp_path / "run")
    for name in STAGES:
        one, other = (load_part(run / "weights", name) for run in (folder, tmp_path / "run"))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_the_stages_learn_from(generator: CompD3PM) -> None:
    labels = np.stack([s.labels for s in SCENES])
    data = generator.training_data(labels, STAGES)
    back, front, fusion = (data[name] for name in STAGES)
    assert generator.frequency is not None
    counts = np.bincount(labels[labels != IGNORE], minlength=20)
    assert np.allclose(generator.frequency, np.maximum(counts, 1) / counts.sum())
    for i, volume in enumerate(labels):
        foreground, background = split(volume, THINGS)
        settings = generator.config
        coarse = pool(background, (4, 4, 2), generator.frequency, settings.background_threshold)
        assert np.array_equal(back.target[i], coarse)
        coarse = pool(foreground, (4, 4, 2), generator.frequency, settings.foreground_threshold)
        assert np.array_equal(front.target[i], coarse)
    assert np.array_equal(fusion.target, labels)
    for part in data.values():
        known = part.target != IGNORE
        assert np.array_equal(part.filled[known], part.target[known])
        assert (part.filled != IGNORE).all()
    assert front.conditions[0] is back.filled
    assert fusion.conditions[0] is back.filled
    assert fusion.conditions[1] is front.filled
    assert {CAR, POLE} <= set(np.unique(front.target)) <= {EMPTY, CAR, POLE, IGNORE}
    assert {ROAD, BUILDING} <= set(np.unique(back.target)) <= {EMPTY, ROAD, BUILDING, IGNORE}
    assert back.filled[:, :, :, 0].min() == ROAD  # the ground goes on under a car


def test_a_sample_depends_on_its_seed_alone(generator: CompD3PM) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    three = drawn(generator, [5, 6, 7])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(drawn(generator, [7, 5]), three[[2, 0]])
    assert np.array_equal(drawn(generator, [6])[0], three[1])
    assert np.array_equal(drawn(generator, [9, 6])[1], three[1])
    assert len({volume.tobytes() for volume in three}) == 3


def test_known_voxels_are_exact_and_depend_on_no_company(generator: CompD3PM) -> None:
    rng = np.random.default_rng(0)
    known = []
    for one in SCENES[:3]:
        free = rng.random(GRID.shape) < 0.5
        known.append(Known(np.where(free, np.uint8(IGNORE), one.labels)))
    found = drawn(generator, [1, 2, 3], known)
    for volume, held in zip(found, known, strict=True):
        assert np.array_equal(volume[held.labels != IGNORE], held.labels[held.labels != IGNORE])
        assert (volume != IGNORE).all()
    assert np.array_equal(drawn(generator, [3, 1], [known[2], known[0]]), found[[2, 0]])
    assert not np.array_equal(drawn(generator, [3], [known[1]])[0], found[2])


def test_a_scene_known_whole_comes_back(generator: CompD3PM) -> None:
    whole = np.where(SCENES[0].labels == IGNORE, np.uint8(EMPTY), SCENES[0].labels)
    assert np.array_equal(drawn(generator, [1], [Known(whole)])[0], whole)
    coarse, exact = generator.draw_coarse([1, 1], [Known(whole)] * 2), generator.coarse(whole[None])
    seen = exact.background[0] != IGNORE
    assert np.array_equal(coarse.background[0][seen], exact.background[0][seen])
    assert np.array_equal(coarse.foreground[0], exact.foreground[0])


def test_half_known_blocks_are_held_and_others_drawn(generator: CompD3PM) -> None:
    labels = np.full(GRID.shape, IGNORE, np.uint8)
    labels[:2, :, :2] = ROAD  # half of the first blocks' voxels
    labels[4:5, :, :2] = ROAD  # a quarter of the second's
    pairs = [generator.draw_coarse([a, a + 1], [Known(labels)] * 2).background for a in range(0, 16, 2)]
    found = np.concatenate(pairs)
    assert (found[:, 0, :, 0] == ROAD).all()
    assert len(np.unique(found[:, 1, :, 0])) > 3


def test_coarse_volumes_keep_to_their_own_classes(generator: CompD3PM) -> None:
    coarse = generator.draw_coarse([3, 4])
    assert not THINGS[coarse.background].any()
    assert (THINGS[coarse.foreground] | (coarse.foreground == EMPTY)).all()
    assert THINGS[coarse.foreground].any()


def test_classes_are_respected(generator: CompD3PM) -> None:
    nothing = np.full(GRID.shape, IGNORE, np.uint8)
    found = drawn(generator, [1, 2, 3], [Known(nothing, (ROAD, CAR)), Known(nothing, ()), Known(nothing)])
    assert set(np.unique(found[0])) == {EMPTY, ROAD, CAR}
    assert set(np.unique(found[1])) == {EMPTY}
    assert len(np.unique(found[2])) > 10
    coarse = generator.draw_coarse([1, 2], [Known(nothing, (ROAD, CAR))] * 2)
    assert set(np.unique(coarse.background)) <= {EMPTY, ROAD}
    assert set(np.unique(coarse.foreground)) <= {EMPTY, CAR}


def test_editing_the_foreground_alone_keeps_the_background(generator: CompD3PM) -> None:
    before = np.where(SCENES[1].labels == IGNORE, np.uint8(EMPTY), SCENES[1].labels)
    labels = np.where(THINGS[before] | (before == EMPTY), np.uint8(IGNORE), before)
    after = drawn(generator, [8], [Known(labels, tuple(sorted(TAXONOMY.foreground)))])[0]
    _, background = split(before, THINGS)
    solid = (background != EMPTY) & (background != IGNORE)
    assert np.array_equal(after[solid], before[solid])
    assert (THINGS[after] | (after == EMPTY))[~solid].all()
    first, second = (
        generator.draw_coarse([a, a + 1], [Known(labels, tuple(sorted(TAXONOMY.foreground)))] * 2) for a in (3, 5)
    )
    assert np.array_equal(first.background, second.background)  # held, whatever the seed
    assert not np.array_equal(first.foreground, second.foreground)


def test_refining_makes_each_scene_again_from_its_own_coarse_form(generator: CompD3PM) -> None:
    found = generator.refine(SCENES[:3], [1, 2, 3])
    assert [s.provenance["seed"] for s in found] == [1, 2, 3]
    assert all((s.labels < IGNORE).all() for s in found)
    (alone,) = generator.refine(SCENES[2:3], [3])
    assert np.array_equal(alone.labels, found[2].labels)
    (other,) = generator.refine(SCENES[:1], [3])
    assert not np.array_equal(other.labels, alone.labels)
    labels = SCENES[2].labels.copy()
    spot = np.argwhere((labels == ROAD).reshape(4, 4, 4, 4, 4, 2).all((1, 3, 5)))[0] * [4, 4, 2]
    labels[tuple(spot)] = IGNORE  # one voxel of a block of road: its coarse form is the same
    (same,) = generator.refine([Scene(labels, GRID, TAXONOMY)], [3])
    assert np.array_equal(same.labels, alone.labels)


def test_another_foreground_set() -> None:
    fewer = CompD3PM(comp(foreground_classes=TAXONOMY.classes[1:9]))
    assert np.flatnonzero(fewer.is_foreground).tolist() == list(range(1, 9))
    assert np.array_equal(CompD3PM(comp()).is_foreground, THINGS)
    with pytest.raises(InputError, match="'cart'"):
        _ = CompD3PM(comp(foreground_classes=("cart",))).is_foreground


def test_initial_weights_are_the_seeds_and_differ_from_stage_to_stage() -> None:
    def first(seed: int, name: str) -> torch.Tensor:
        return CompD3PM(comp(seed=seed)).stages[name].network.time[0].weight  # type: ignore[index,union-attr,return-value]

    assert torch.equal(first(1, "fusion"), first(1, "fusion"))
    assert not torch.equal(first(1, "fusion"), first(2, "fusion"))
    assert not torch.equal(first(1, "fusion"), first(1, "foreground"))


def test_faults_of_callers(generator: CompD3PM, tmp_path: Path) -> None:
    nothing = np.full(GRID.shape, IGNORE, np.uint8)
    bad_label, bad_class = Known(np.full(GRID.shape, 20, np.uint8)), Known(nothing, (20,))
    for n, seeds, known in (
        (2, [1], None),
        (1, [1], []),
        (1, [1], [Known(nothing[:8])]),
        (1, [1], [bad_label]),
        (1, [1], [bad_class]),
    ):
        with pytest.raises(InputError):
            generator.sample(n, seeds, known)
    other_grid = VoxelGrid(GRID.shape, 0.2, GRID.origin_m)
    for wrong in (
        Scene(nothing, other_grid, TAXONOMY),
        Scene(nothing, GRID, load_taxonomy("carla_sc")),
    ):
        with pytest.raises(InputError, match="scene"):
            generator.refine([wrong], [1])
        with pytest.raises(InputError, match="scene"):
            CompD3PM(comp()).fit([SCENES[0], wrong], tmp_path)
    with pytest.raises(InputError, match="seeds"):
        generator.refine(SCENES[:2], [1])
    with pytest.raises(InputError, match="at least one scene"):
        CompD3PM(comp()).fit([], tmp_path)


def test_a_new_generator_has_nothing_to_save_or_draw_from(tmp_path: Path) -> None:
    fresh = CompD3PM(comp())
    for act in (
        lambda: fresh.save(tmp_path / "w"),
        lambda: fresh.sample(1, [1]),
        lambda: fresh.refine(SCENES, [1] * 4),
    ):
        with pytest.raises(InputError, match="fitted or loaded"):
            act()


def test_a_grid_that_blocks_do_not_divide() -> None:
    with pytest.raises(InputError, match="pooling block"):
        CompD3PM(comp(block_m=(1.6, 1.6, 2.0)))


def test_damaged_or_foreign_weights(folder: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(folder / "weights", tmp_path / name))

    def changed(name: str, **fields: object) -> Path:
        path = copy(name) / "card.json"
        card = {k: v for k, v in (json.loads(path.read_text()) | fields).items() if v is not None}
        path.write_text(json.dumps(card))
        return path.parent

    cut, gone = copy("cut"), copy("gone")
    weights = (cut / "fusion.safetensors").read_bytes()
    (cut / "fusion.safetensors").write_bytes(weights[:-4] + b"abcd")
    (gone / "background.safetensors").unlink()
    wider = json.loads((folder / "weights" / "card.json").read_text())["config"]
    wider["fusion"]["width"] = 64
    checkpoint = next((folder / "fusion" / "checkpoints").iterdir())
    foreign = [changed("no frequency", frequency=None), changed("other", config={"method": "whole_scene"})]
    for bad in (cut, gone, tmp_path / "nothing", changed("wider", config=wider), checkpoint, *foreign):
        with pytest.raises(InputError) as caught:
            CompD3PM.load(bad)
        assert "\n" not in str(caught.value)
