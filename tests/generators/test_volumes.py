"""Scenes into training volumes and seeds into batches, by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.generators.protocol import Known
from pipeline.generators.volumes import (
    SamplingConfig,
    batches_of,
    check_draws,
    digest_of_labels,
    filled,
    held_of,
    label_counts,
    stack,
    tensor,
    threads,
)
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

GRID = VoxelGrid((4, 3, 2), 0.4, (0.0, 0.0, 0.0))
CPU = torch.device("cpu")


def scene(value: int, grid: VoxelGrid = GRID, taxonomy: str = "semantic_kitti") -> Scene:
    return Scene(np.full(grid.shape, value, np.uint8), grid, load_taxonomy(taxonomy))


def test_stack_and_its_faults() -> None:
    assert stack([scene(1), scene(2)], GRID, "semantic_kitti")[:, 0, 0, 0].tolist() == [1, 2]
    moved = VoxelGrid(GRID.shape, 0.4, (0.0, 0.4, 0.0))
    for wrong in ([scene(1), scene(1, moved)], [scene(1, taxonomy="carla_sc")], []):
        with pytest.raises(InputError, match="training"):
            stack(wrong, GRID, "semantic_kitti")


def test_counts_leave_255_out_and_digests_tell_shapes_apart() -> None:
    labels = np.array([[0, 0, 3, 255, 2, 3]], np.uint8)
    assert label_counts(labels[None, None], 5).tolist() == [2, 0, 1, 2, 0]
    one = digest_of_labels(labels.reshape(1, 2, 3, 1))
    assert one == digest_of_labels(np.asfortranarray(labels.reshape(1, 2, 3, 1)))
    assert one != digest_of_labels(labels.reshape(1, 3, 2, 1))
    assert one != digest_of_labels(np.where(labels == 2, np.uint8(1), labels).reshape(1, 2, 3, 1))


def test_filled_takes_the_nearest_label_sooner_aside_than_above() -> None:
    labels = np.full((3, 1, 3), IGNORE, np.uint8)
    labels[0, 0, 1], labels[2, 0, 0] = 7, 9
    out = filled(labels)
    assert out[1, 0, 1] == 7  # one step aside
    assert out[2, 0, 1] == 7  # two aside rather than one down
    assert out[0, 0, 0] == 9  # two aside rather than one up
    assert labels[1, 0, 1] == IGNORE  # what was given stays as it was
    assert not filled(np.full((2, 2, 2), IGNORE, np.uint8)).any()


@given(st.integers(0, 2**32 - 1))
def test_filled_keeps_what_is_known_and_each_volume_to_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 5, 9, IGNORE, IGNORE], np.uint8), (2, 3, 4, 2))
    out = filled(labels)
    assert (out != IGNORE).all()
    assert np.array_equal(out[labels != IGNORE], labels[labels != IGNORE])
    assert np.array_equal(out[1], filled(labels[1]))
    for volume, full in zip(labels, out, strict=True):
        assert set(np.unique(full)) <= ({*np.unique(volume)} - {IGNORE} or {0})


def test_short_batches_are_padded_with_their_last_draw() -> None:
    assert list(batches_of([1, 2, 3], None, 2)) == [([1, 2], None, 2), ([3, 3], None, 1)]
    known = [Known(np.full(GRID.shape, k, np.uint8)) for k in range(3)]
    (first, second) = batches_of([1, 2, 3], known, 2)
    assert first[1] == known[:2]
    assert second == ([3, 3], [known[2], known[2]], 1)
    assert list(batches_of([], None, 2)) == []


@pytest.mark.parametrize(("n", "seeds", "known"), [(2, [1], None), (1, [1, 2], None), (1, [1], []), (0, [1], None)])
def test_as_many_seeds_and_known_scenes_as_draws(n: int, seeds: list[int], known: list[Known] | None) -> None:
    with pytest.raises(InputError, match=f"sample: expected {n} seeds"):
        check_draws(n, seeds, known, GRID, 20)


def test_known_scenes_on_another_grid() -> None:
    with pytest.raises(InputError, match="known voxels"):
        check_draws(1, [1], [Known(np.zeros((4, 3, 3), np.uint8))], GRID, 20)


@pytest.mark.parametrize(("label", "classes"), [(20, None), (254, None), (0, (1, 20)), (0, (-1,))])
def test_known_scenes_of_another_taxonomy(label: int, classes: tuple[int, ...] | None) -> None:
    with pytest.raises(InputError, match=r"class ids of 0\.\.19"):
        check_draws(1, [1], [Known(np.full(GRID.shape, label, np.uint8), classes)], GRID, 20)
    for fine in (19, IGNORE):
        check_draws(1, [1], [Known(np.full(GRID.shape, fine, np.uint8), (0, 19))], GRID, 20)


def test_what_the_networks_take() -> None:
    labels = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    assert tensor(labels.transpose(0, 3, 2, 1), CPU).tolist() == labels.transpose(0, 3, 2, 1).tolist()
    held = held_of(labels, np.ones((1, 5), bool), CPU)
    assert held.labels.dtype == torch.int64
    assert held.allowed.dtype == torch.bool


def test_threads_are_set_inside_alone() -> None:
    before, inside = torch.get_num_threads(), []
    with threads(before + 1):
        inside.append(torch.get_num_threads())
    assert (inside, torch.get_num_threads()) == ([before + 1], before)


def test_sampling_is_exact_unless_asked_otherwise() -> None:
    assert (SamplingConfig().draws().min_p, SamplingConfig().draws().evidence) == (0.0, 1.0)
    assert SamplingConfig(min_p=0.1, evidence=0.5).draws().min_p == 0.1
    assert SamplingConfig(held_at=0.25).draws().held_at == 0.25
    assert SamplingConfig().draws().self_condition
    assert not SamplingConfig(self_condition=False).draws().self_condition
    assert SamplingConfig(device="cpu").torch_device() == CPU
