"""Edits with a toy generator: known voxels survive, batching changes nothing, shapes and places are right."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffusion.stage import StageConfig
from pipeline.generators.comp_d3pm import CompConfig, CompD3PM
from pipeline.generators.edit import (
    box_mask,
    class_mask,
    foreground_known,
    inpaint,
    known_outside,
    outpaint,
    outpaint_all,
    outpainted,
    regenerate,
    tile,
)
from pipeline.generators.protocol import Generator, Known, Refiner
from pipeline.generators.volumes import SamplingConfig
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.downsample import class_frequency
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy
from tests.generators.toy_generator import GRID, ToyGenerator

TAXONOMY = load_taxonomy("semantic_kitti")


def random_scene(seed: int, grid: VoxelGrid = GRID, invalid: float = 0.25) -> Scene:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 20, grid.shape).astype(np.uint8)
    labels[rng.random(grid.shape) < invalid] = IGNORE
    return Scene(labels, grid, TAXONOMY, {"source": "random"})


def wider(x: int, y: int) -> VoxelGrid:
    return VoxelGrid((x, y, GRID.shape[2]), GRID.voxel_size_m, GRID.origin_m)


def test_the_toy_keeps_the_protocol() -> None:
    assert isinstance(ToyGenerator(), Generator)
    assert isinstance(ToyGenerator(), Refiner)


# --- masks


def test_a_box_takes_the_voxels_whose_centres_it_holds() -> None:
    mask = box_mask(GRID, (0.25, -1.5, -1.0), (1.25, -0.5, -0.5))  # x centres .25 .75 (1.25 is outside), y -1.25 -.75
    assert np.argwhere(mask).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]
    with pytest.raises(InputError, match=r"a box inside 0,-1\.5,-1 to 4,1\.5,1 m"):
        box_mask(GRID, (10, 0, 0), (12, 1, 1))


def test_classes_and_their_neighbourhood() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[3, 2, 0], labels[7, 5, 3] = 1, 2
    scene = Scene(labels, GRID, TAXONOMY)
    assert np.argwhere(class_mask(scene, [1])).tolist() == [[3, 2, 0]]
    near = class_mask(scene, {1}, dilation=1)
    assert near.sum() == 3 * 3 * 2
    assert near[2:5, 1:4, 0:2].all()
    assert class_mask(scene, [2], dilation=1).sum() == 2 * 2 * 2  # cut at the grid's corner
    assert not class_mask(scene, [5], dilation=2).any()
    with pytest.raises(InputError, match="ids of semantic_kitti"):
        class_mask(scene, [20])


def test_foreground_alone_keeps_the_background() -> None:
    scene = random_scene(0)
    known = foreground_known(scene)
    background = ~np.isin(scene.labels, [0, IGNORE, *TAXONOMY.foreground])
    assert (known.labels[background] == scene.labels[background]).all()
    assert (known.labels[~background] == IGNORE).all()
    edited = regenerate(ToyGenerator(), [scene], [known], [1])[0]
    assert (edited.labels[background] == scene.labels[background]).all()
    assert set(np.unique(edited.labels[~background])) <= {0, *TAXONOMY.foreground}
    assert (edited.labels != scene.labels)[~background & (scene.labels != IGNORE)].any()


# --- inpainting


@settings(max_examples=25)
@given(seed=st.integers(0, 2**63 - 1), share=st.floats(0, 1), size=st.sampled_from([(8, 6), (13, 6), (11, 14)]))
def test_known_voxels_survive_inpainting(seed: int, share: float, size: tuple[int, int]) -> None:
    scene = random_scene(seed % 1000, wider(*size))
    mask = np.random.default_rng(seed).random(scene.labels.shape) < share
    edited = inpaint(ToyGenerator(), scene, mask, seed, classes=[1, 9])
    held = ~mask & scene.valid
    assert (edited.labels[held] == scene.labels[held]).all()
    assert np.isin(edited.labels[~held], [0, 1, 9]).all()
    assert edited.grid == scene.grid
    assert (scene.labels == random_scene(seed % 1000, wider(*size)).labels).all()  # the old scene is left alone


def test_inpainting_depends_on_the_seed_and_not_on_its_company() -> None:
    scenes, generator = [random_scene(k) for k in range(5)], ToyGenerator()
    known = [known_outside(scene, np.ones(GRID.shape, bool)) for scene in scenes]
    together = regenerate(generator, scenes, known, range(5))
    assert generator.calls == [5]
    for k, scene in enumerate(scenes):
        alone = inpaint(ToyGenerator(), scene, np.ones(GRID.shape, bool), k)
        assert (alone.labels == together[k].labels).all()
        assert alone.provenance["edits"] == [{"edit": "inpaint", "seed": k}]
    assert (together[0].labels != together[1].labels).any()


def test_nothing_to_do_asks_nothing_of_the_generator() -> None:
    scene, generator = random_scene(3, invalid=0), ToyGenerator()
    assert (inpaint(generator, scene, np.zeros(GRID.shape, bool), 0).labels == scene.labels).all()
    assert generator.calls == []


# --- outpainting


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**63 - 1),
    direction=st.sampled_from(["+x", "-x", "+y", "-y"]),
    overlap=st.integers(0, 5),
    size=st.sampled_from([(8, 6), (13, 6), (11, 14)]),
)
def test_outpainting_leaves_the_old_part_alone(seed: int, direction: str, overlap: int, size: tuple[int, int]) -> None:
    scene = random_scene(seed % 1000, wider(*size))
    larger = outpaint(ToyGenerator(), scene, direction, overlap * 0.5, seed)
    axis, growth = "xy".index(direction[1]), GRID.shape["xy".index(direction[1])] - overlap
    assert larger.labels.shape[axis] == scene.labels.shape[axis] + growth
    corner = larger.grid.index(scene.grid.centre(np.zeros(3, int)))
    assert corner[axis] == (growth if direction[0] == "-" else 0)
    old = tuple(slice(c, c + n) for c, n in zip(corner, scene.labels.shape, strict=True))
    assert (larger.labels[old] == scene.labels).all()  # invalid voxels included
    new = np.ones(larger.labels.shape, bool)
    new[old] = False
    assert (larger.labels[new] < 20).all()


def test_the_strip_conditions_the_new_part() -> None:
    """Far voxels don't reach it; those of the strip do."""
    scene = random_scene(1, wider(14, 6), invalid=0)
    first = outpaint(ToyGenerator(), scene, "+x", 1.0, 5).labels[14:]  # the strip: x = 12, 13
    for x, reaches in ((3, False), (11, False), (12, True), (13, True)):
        labels = scene.labels.copy()
        labels[x, 2, 1] ^= 1
        changed = outpaint(ToyGenerator(), replace(scene, labels=labels), "+x", 1.0, 5).labels[14:]
        assert (changed != first).any() == reaches


def test_outpainting_many_is_outpainting_each() -> None:
    scenes, generator = [random_scene(k) for k in range(3)], ToyGenerator()
    together = outpaint_all(generator, scenes, "-y", 1.0, [7, 8, 9])
    assert generator.calls == [3]
    for scene, seed, larger in zip(scenes, (7, 8, 9), together, strict=True):
        assert (outpaint(ToyGenerator(), scene, "-y", 1.0, seed).labels == larger.labels).all()


def test_where_outpainting_began() -> None:
    grid, planes = outpainted(GRID, GRID, ["+x", "-x", "+y"], 2)  # 8 x 6 columns, growing by 6, 6 and 4
    assert (grid.shape, grid.origin_m) == ((20, 10, 4), (-3.0, -1.5, -1.0))
    assert planes == ((0, 14), (0, 6), (1, 6))
    scene = random_scene(0)
    for direction in ("+x", "-x", "+y"):
        scene = outpaint(ToyGenerator(), scene, direction, 1.0, 0)
    assert scene.grid == grid


# --- tiling


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**63 - 1),
    size=st.tuples(st.integers(8, 30), st.integers(6, 26)),
    overlap=st.integers(0, 5),
    started=st.booleans(),
)
def test_tiles_do_not_depend_on_batching(seed: int, size: tuple[int, int], overlap: int, started: bool) -> None:
    grid = wider(*size)
    start = random_scene(seed % 100) if started else None
    fronts, raster = ToyGenerator(), ToyGenerator()
    scene = tile(fronts, grid, seed, overlap * 0.5, start)
    twin = tile(raster, grid, seed, overlap * 0.5, start, batched=False)
    assert (scene.labels == twin.labels).all()
    assert sum(fronts.calls) == sum(raster.calls)
    assert set(raster.calls) <= {1}
    assert scene.grid == grid
    assert (scene.labels < 20).all()
    if start is not None:
        assert (scene.labels[:8, :6][start.valid] == start.labels[start.valid]).all()


def test_a_district_is_sampled_by_anti_diagonals() -> None:
    generator, told = ToyGenerator(), []
    tile(generator, wider(8 + 2 * 6, 6 + 2 * 4), 0, 1.0, advance=lambda done, total: told.append((done, total)))
    assert generator.calls == [1, 2, 3, 2, 1]
    assert told == [(1, 9), (3, 9), (6, 9), (8, 9), (9, 9)]


def test_a_longer_street_begins_as_the_shorter_one() -> None:
    short = tile(ToyGenerator(), wider(14, 6), 4, 1.0).labels
    long = tile(ToyGenerator(), wider(26, 6), 4, 1.0).labels
    assert (long[:14] == short).all()
    assert (tile(ToyGenerator(), wider(14, 6), 5, 1.0).labels != short).any()


def test_a_start_may_lie_anywhere_on_whole_voxels() -> None:
    grid, start = wider(20, 12), random_scene(2, invalid=0)
    moved = replace(start, grid=replace(GRID, origin_m=(2.5, 0.0, -1.0)))  # 5 voxels ahead, 3 to the left
    scene = tile(ToyGenerator(), grid, 0, 1.0, moved)
    assert (scene.labels[5:13, 3:9] == start.labels).all()
    for origin in ((2.6, 0.0, -1.0), (8.0, 0.0, -1.0), (-0.5, 0.0, -1.0)):
        with pytest.raises(InputError, match="voxels that are the larger grid's"):
            tile(ToyGenerator(), grid, 0, 1.0, replace(start, grid=replace(GRID, origin_m=origin)))


# --- the method itself, with random weights


def random_method() -> CompD3PM:
    training = TrainConfig(steps=1, batch_size=1, learning_rate=1e-3, schedule=Schedule(kind="constant"))
    stage = StageConfig(width=16, depth=1, training=training)
    generator = CompD3PM(
        CompConfig(
            grid=VoxelGrid((16, 16, 4), 0.4, (0.0, -3.2, -2.0)),
            background=stage.model_copy(update={"self_condition": True}),
            foreground=stage,
            fusion=stage.model_copy(update={"patch": 4}),
            sampling=SamplingConfig(steps=3, fine_steps=2, batch=3, threads=1, device="cpu"),
        )
    )
    generator.frequency = class_frequency(np.ones(20, np.int64))
    draws = torch.Generator().manual_seed(0)
    for stage_ in generator.stages.values():  # at its first weights a network's answer doesn't depend on its input
        for weight in stage_.network.parameters():
            weight.data.normal_(0, 0.1, generator=draws)
    return generator


def test_comp_d3pm_holds_what_is_known_whatever_the_batch() -> None:
    generator = random_method()
    grid = VoxelGrid((29, 28, 4), 0.4, generator.grid.origin_m)
    start = random_scene(0, generator.grid)
    fronts, raster = (tile(generator, grid, 3, 1.6, start, batched=batched).labels for batched in (True, False))
    assert (fronts == raster).all()
    assert (fronts[:16, :16][start.valid] == start.labels[start.valid]).all()
    cars = inpaint(generator, start, box_mask(generator.grid, (1, -1, -2), (4, 1, 0)), 1, classes=[1])
    assert np.isin(cars.labels[~start.valid], [0, 1]).all()


# --- faults


def test_faults_are_one_line() -> None:
    generator, scene = ToyGenerator(), random_scene(0)
    with pytest.raises(InputError, match="bool of shape"):
        inpaint(generator, scene, np.ones((2, 2, 2), bool), 0)
    with pytest.raises(InputError, match=r"one of \+x, -x, \+y, -y"):
        outpaint(generator, scene, "up", 1.0, 0)
    with pytest.raises(InputError, match="less than the generator's 3 m"):
        outpaint(generator, scene, "+x", 3.0, 0)
    with pytest.raises(InputError, match="at least the generator's 8 x 6 columns"):
        tile(generator, wider(8, 5), 0, 1.0)
    with pytest.raises(InputError, match="levels of"):
        tile(generator, VoxelGrid((8, 6, 5), 0.5, GRID.origin_m), 0, 1.0)
    carla = Scene(np.zeros(GRID.shape, np.uint8), GRID, load_taxonomy("carla_sc"))
    with pytest.raises(InputError, match="the generator's classes, semantic_kitti"):
        inpaint(generator, carla, np.ones(GRID.shape, bool), 0)


class Careless(ToyGenerator):
    """Ignores what it was told."""

    def sample(self, n: int, seeds, known=None) -> list[Scene]:
        return super().sample(n, seeds)


class Lazy(ToyGenerator):
    """Leaves voxels without a label."""

    def _scene(self, seed: int, known: Known) -> Scene:
        return Scene(known.labels.copy(), self.grid, self.taxonomy)


def test_a_generator_that_breaks_its_word_is_found_out() -> None:
    with pytest.raises(RuntimeError, match="told to hold"):
        inpaint(Careless(), random_scene(0), box_mask(GRID, (0, -1, -1), (1, 1, 1)), 0)
    with pytest.raises(RuntimeError, match="without a label"):
        tile(Lazy(), wider(14, 6), 0, 1.0)
