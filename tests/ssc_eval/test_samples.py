"""Samples from datasets on disk: what a sample holds, subsets, mixing by weight, balanced draws, faults."""

import dataclasses
import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.datasets import kitti_360
from pipeline.datasets.image_files import read_image, write_image
from pipeline.datasets.manifest import Manifest, write_manifest
from pipeline.datasets.semantic_kitti import open_root, read_camera
from pipeline.datasets.statistics import dataset_statistics
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng as seeded
from pipeline.scene.taxonomy import load_taxonomy
from ssc_eval.lifting import projection
from ssc_eval.losses import frustum_tiles
from ssc_eval.monoscene import MonoSceneConfig
from ssc_eval.samples import SampleConfig, Source, SscDataset, draw_chances, slots
from ssc_eval.views import Projections, fitted
from tests.ssc_eval.toy_root import GRID, SIZE, toy_camera, write_toy_root

NETWORK = MonoSceneConfig(encoder="tiny", decoder=32, feature=8, depth=1, dilations=(1,), scales=(2, 4))
PLAIN = SampleConfig(width_px=SIZE[0], height_px=SIZE[1])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    splits = {"train": ["00", "01"], "val": ["08"], "test": ["11"]}
    return write_toy_root(folder, {"00": 12, "01": 8, "08": 2, "11": 2}, splits)


def dataset(root: Path, config: SampleConfig = PLAIN, seed: int = 0, **source: object) -> SscDataset:
    return SscDataset((Source.model_validate({"root": root, **source}),), config, seed, NETWORK)


class TestSample:
    def test_it_holds_the_frame_as_it_lies_on_disk(self, root: Path) -> None:
        found = dataset(root)
        number = next(n for n, key in enumerate(found.keys) if key[1:] == ("01", "000003"))
        sample = found[number]
        labels = open_root(root).scene("01", "000003").labels
        image = read_image(root / "sequences/01/image_2/000003.png")
        camera = read_camera(root, "01", "000003")
        fine = projection(camera, GRID)
        assert np.array_equal(sample["labels"].numpy(), labels)
        assert sample["labels"].dtype == torch.uint8
        assert torch.allclose(sample["image"], torch.from_numpy(image).permute(2, 0, 1) / 255, atol=1e-6)
        assert np.array_equal(sample["pixels"].numpy(), projection(camera, GRID, 2).pixels)
        assert torch.equal(sample["tiles"], frustum_tiles(torch.from_numpy(fine.pixels), *SIZE))
        assert np.array_equal(found.in_view(number), fine.in_view)
        assert fine.in_view.any()
        assert sample["coarse"].shape == (4, 4, 2)
        assert {name: value.dtype for name, value in sample.items() if name in ("pixels", "tiles")} == {
            "pixels": torch.int16,
            "tiles": torch.int16,
        }

    def test_a_mirrored_draw_shows_every_voxel_the_same_pixel(self, root: Path) -> None:
        plain, mirror = (
            dataset(root, PLAIN.model_copy(update={"jitter": 0.0, "mirror": p})).draw(3, np.random.default_rng(0))
            for p in (0.0, 1.0)
        )
        seen = plain["pixels"][..., 0] >= 0
        assert torch.equal(seen, mirror["pixels"][..., 0] >= 0)
        assert seen.any()
        assert torch.equal(mirror["image"], plain["image"].flip(-1))
        at = [sample["pixels"][seen].long().unbind(-1) for sample in (plain, mirror)]
        colours = [sample["image"][:, v, u] for sample, (u, v) in zip((plain, mirror), at, strict=True)]
        assert torch.equal(*colours)
        assert not torch.equal(at[0][0], at[1][0])
        assert torch.equal(plain["labels"], mirror["labels"])
        # 64 px in 8 tiles: the flip maps whole tiles onto tiles
        row, column = plain["tiles"] // 8, plain["tiles"] % 8
        assert torch.equal(mirror["tiles"], torch.where(plain["tiles"] < 0, -1, row * 8 + 7 - column).short())

    def test_a_draw_depends_on_its_generator_alone(self, root: Path) -> None:
        config = PLAIN.model_copy(update={"jitter": 0.4, "mirror": 0.5})
        draws = [dataset(root, config).draw(5, seeded(1, "data draw", n))["image"] for n in (7, 7, 8)]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

    def test_unlabelled_frames_have_views(self, root: Path) -> None:
        found = SscDataset((Source(root=root, split="test"),), PLAIN, 0, NETWORK, labelled=False)
        assert [key[1:] for key in found.keys] == [("11", "000000"), ("11", "000001")]
        assert found.view(0, None)["image"].shape == (3, SIZE[1], SIZE[0])
        with pytest.raises(InputError, match="labelled frames in split test"):
            dataset(root, split="test")


class TestImageSize:
    def test_resizing_moves_projections_with_the_image(self) -> None:
        """A bright square stays on the voxels that see it."""
        camera = toy_camera(0.0, (128, 64))
        image = np.zeros((64, 128, 3), np.uint8)
        image[24:32, 80:96] = 255
        small, scaled = fitted(image, camera, PLAIN.model_copy(update={"fit": "resize"}), "image")
        assert small.shape == (32, 64, 3)
        assert small[13:15, 41:47].min() > 200
        assert small[:10].max() == 0
        points, depth = camera.project(GRID.centres())
        scaled_points, _ = scaled.project(GRID.centres())
        inside = camera.sees(points, depth)
        assert np.allclose((points[inside] + 0.5) / 2, scaled_points[inside] + 0.5)

    def test_a_crop_keeps_the_top_left_part_and_its_pixels(self) -> None:
        camera = toy_camera(0.0, (80, 40))
        image = np.arange(40 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 80, 3)
        cut, cropped = fitted(image, camera, PLAIN, "image")
        assert np.array_equal(cut, image[:32, :64])
        assert (cropped.width_px, cropped.height_px) == SIZE
        assert np.array_equal(cropped.K, camera.K)

    def test_an_image_too_small_to_be_cropped_is_refused(self, root: Path) -> None:
        with pytest.raises(InputError, match=r"at least 96x32, found 64x32; .*fit=resize"):
            dataset(root, PLAIN.model_copy(update={"width_px": 96}))[0]

    def test_projections_are_kept_a_calibration(self) -> None:
        projections = Projections(GRID, 2)
        first = projections(toy_camera())
        assert projections(toy_camera()) is first
        assert projections(toy_camera(0.2)) is not first


class TestSubsets:
    def test_smaller_fractions_lie_inside_larger_ones(self, root: Path) -> None:
        parts = [set(dataset(root, fraction=f).keys) for f in (0.05, 0.1, 0.25, 0.5, 1.0)]
        assert [len(part) for part in parts] == [1, 2, 5, 10, 20]
        assert all(small < large for small, large in itertools.pairwise(parts))

    def test_they_depend_on_the_seed_alone(self, root: Path) -> None:
        chosen = [dataset(root, seed=seed, fraction=0.25).keys for seed in (0, 0, 1)]
        assert chosen[0] == chosen[1] != chosen[2]

    def test_a_number_of_frames_is_the_same_order_cut(self, root: Path) -> None:
        assert dataset(root, frames=5).keys == dataset(root, fraction=0.25).keys
        assert len(dataset(root, frames=50).keys) == 20

    def test_classes_are_counted_in_the_chosen_frames_alone(self, root: Path) -> None:
        part = dataset(root, fraction=0.1)
        scenes = [open_root(root).scene(*key[1:]).labels for key in part.keys]
        expected = np.bincount(np.stack(scenes).ravel(), minlength=256)[:20]
        assert part.class_voxels().tolist() == expected.tolist()
        whole = dataset_statistics(open_root(root), "train").class_voxels
        assert dataset(root).class_voxels().tolist() == list(whole)


class TestMixing:
    def mixed(self, root: Path, *sources: dict[str, object]) -> SscDataset:
        return SscDataset([Source.model_validate({"root": root, **s}) for s in sources], PLAIN, 0, NETWORK)

    def test_one_source_is_a_plain_pass(self, root: Path) -> None:
        found = dataset(root)
        draws = [found.key_of(slot, np.random.default_rng(0)) for slot in range(len(found))]
        assert sorted(draws) == list(range(20))

    def test_draws_have_the_sources_shares(self, root: Path) -> None:
        found = self.mixed(root, {"weight": 1.0}, {"weight": 3.0, "fraction": 0.25}, {"split": "val", "weight": 0.5})
        keys = [found.key_of(slot, np.random.default_rng(slot)) for slot in range(len(found))]
        drawn = np.bincount([found.keys[key].source for key in keys])
        assert drawn.tolist() == found.slots.tolist()
        assert np.allclose(drawn / drawn.sum(), np.array([1, 3, 0.5]) / 4.5, atol=1 / len(found))

    def test_all_frames_of_a_source_come_equally_often(self, root: Path) -> None:
        """The leftover slots of a round, too: 20 draws of 7 frames are 2 rounds and 6 draws at random."""
        found = self.mixed(root, {"frames": 7}, {"fraction": 0.65, "weight": 1.0})
        times = np.zeros(7)
        for epoch in range(200):
            for slot in range(int(found.slots[0])):
                times[found.key_of(slot, seeded(0, "test", slot, epoch))] += 1
        assert np.allclose(times / times.mean(), 1, atol=0.15)

    @pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0], [0.001, 1.0], [2.0, 3.0, 5.0]])
    def test_slots_add_up_and_none_is_left_out(self, weights: list[float]) -> None:
        found = slots(weights, 37)
        assert found.sum() >= 37
        assert found.min() >= 1
        assert np.abs(found - found.sum() * np.array(weights) / sum(weights)).max() < 1

    def test_class_voxels_follow_the_draws(self, root: Path) -> None:
        one, other = dataset(root, frames=2), dataset(root, split="val")
        both = self.mixed(root, {"frames": 2, "weight": 1.0}, {"split": "val", "weight": 3.0})
        shares = [found.class_voxels() / found.class_voxels().sum() for found in (one, other)]
        got = both.class_voxels() / both.class_voxels().sum()
        assert np.allclose(got, 0.25 * shares[0] + 0.75 * shares[1])

    def test_draw_weights_are_what_is_drawn(self, root: Path) -> None:
        assert dataset(root).draw_weights().tolist() == [1.0] * 20
        found = self.mixed(root, {"frames": 3, "weight": 3.0, "balanced": True}, {"split": "val", "weight": 1.0})
        times = np.zeros(len(found.keys))
        for epoch in range(800):
            for slot in range(len(found)):
                times[found.key_of(slot, seeded(0, "test", slot, epoch))] += 1
        assert np.allclose(times / times.mean(), found.draw_weights(), atol=0.15)
        assert found.draw_weights()[:3].sum() > found.draw_weights()[3:].sum()

    def test_another_grid_is_refused(self, root: Path, tmp_path: Path) -> None:
        grid = dataclasses.replace(GRID, voxel_size_m=0.2)
        other = write_toy_root(tmp_path / "fine", {"00": 1}, {"train": ["00"]}, grid=grid)
        with pytest.raises(InputError, match=r"fine: expected the grid of .*voxel_size_m=0.4"):
            SscDataset((Source(root=root), Source(root=other)), PLAIN, 0, NETWORK)


class TestBalance:
    def test_a_class_in_one_of_50_frames_brings_it_five_times_as_often(self) -> None:
        presence = np.zeros((50, 3), bool)
        presence[:, 0] = True
        presence[7, 2] = True
        chances = draw_chances(presence)
        assert chances.sum() == pytest.approx(1)
        assert chances[7] / chances[0] == pytest.approx(5)  # sqrt(0.5 / 0.02)
        assert np.unique(np.delete(chances, 7)).size == 1

    def test_draws_follow_the_chances(self, root: Path) -> None:
        found = dataset(root, balanced=True)
        cars = np.array([bool((found.labels(n) == 1).any()) for n in range(20)])
        draws = np.array([found.key_of(0, seeded(0, "test", n)) for n in range(1000)])
        assert 0 < cars.mean() < 0.5, "the toy root has cars in some frames"
        expected = draw_chances(np.stack([np.ones(20, bool), cars], 1))[cars].sum()
        assert cars[draws].mean() == pytest.approx(expected, abs=0.05)
        assert expected > cars.mean() + 0.05


class TestRenders:
    def test_they_are_found_beside_the_images(self, root: Path, tmp_path: Path) -> None:
        both = write_toy_root(tmp_path / "both", {"00": 1}, {"train": ["00"]})
        write_toy_root(both, {"00": 1}, {"train": ["00"]}, folder="render_2")
        other = both / "sequences/00/render_2/000000.png"
        other.write_bytes((root / "sequences/01/image_2/000005.png").read_bytes())
        found = dataset(both, image="render")[0]["image"]
        assert torch.equal(found, torch.from_numpy(read_image(other)).permute(2, 0, 1) / 255)
        assert not torch.equal(found, dataset(both)[0]["image"])

    def test_a_builds_manifest_may_say_that_its_images_are_renders(self, tmp_path: Path) -> None:
        build = write_toy_root(tmp_path / "build", {"00": 1}, {"train": ["00"]})
        about = Manifest(recipe={"images": {"kind": "render"}}, recipe_digest="", build_seed=0, samples=(), files=())
        write_manifest(build, about)
        assert torch.equal(dataset(build, image="render")[0]["image"], dataset(build)[0]["image"])
        write_manifest(build, about.model_copy(update={"recipe": {"images": {"kind": "diffusion"}}}))
        with pytest.raises(InputError, match="expected a shaded render"):
            dataset(build, image="render")[0]

    def test_without_renders_it_says_so(self, root: Path) -> None:
        with pytest.raises(InputError, match=r"render_2/000000.png: expected a shaded render"):
            dataset(root, image="render")[0]


def test_kitti_360_is_a_source_as_well(tmp_path: Path) -> None:
    drive, labels = kitti_360.drive_name(0), np.zeros(GRID.shape, np.uint8)
    labels[:, :, 1] = 7
    frame = Frame(drive, "000005", GRID, load_taxonomy("kitti_360"), labels=labels, invalid=labels == 255)
    kitti_360.write_frame(tmp_path, frame)
    kitti_360.write_layout(tmp_path, GRID, {"train": [drive]})
    kitti_360.write_calibration(tmp_path, kitti_360.calibration_of(toy_camera()))
    write_image(kitti_360.image_path(tmp_path, drive, "000005"), np.full((SIZE[1], SIZE[0], 3), 51, np.uint8))
    sample = dataset(tmp_path)[0]
    assert np.array_equal(sample["labels"].numpy(), labels)
    assert torch.allclose(sample["image"], torch.tensor(0.2))
    assert np.array_equal(sample["pixels"].numpy(), projection(toy_camera(), GRID, 2).pixels)


def test_it_goes_to_loading_processes_whole(root: Path) -> None:
    """Loaders' processes are spawned: the data set crosses pickled."""
    here = dataset(root, balanced=True)
    there = pickle.loads(pickle.dumps(here))
    draws = [found.draw(4, np.random.default_rng(3)) for found in (here, there)]
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in draws[0])


@pytest.mark.parametrize("fault", [{"fraction": 0.0}, {"fraction": 1.5}, {"weight": 0.0}, {"image": "depth"}, {"x": 1}])
def test_bad_sources_are_refused(fault: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Source.model_validate({"root": "x", **fault})


def test_damaged_labels_are_named(root: Path, tmp_path: Path) -> None:
    broken = write_toy_root(tmp_path / "broken", {"00": 1}, {"train": ["00"]})
    path = broken / "sequences/00/voxels/000000.label"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"000000.label: expected uint16 labels"):
        dataset(broken)[0]


def test_the_grid_file_decides(root: Path) -> None:
    assert json.loads((root / "grid.json").read_text())["voxel_size_m"] == dataset(root).grid.voxel_size_m == 0.4
