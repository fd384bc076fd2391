"""What may make synthetic data worth more, in a build's recipe: a real dataset's cameras, scenes that go on beyond
their grid, masks or none. Recipes without them keep their digests."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.build import STAGES, build_dataset
from flows.cli import app
from flows.consistency import contradictions
from flows.generator_recipes import comp_d3pm_tiny
from flows.inspect import verify_dataset
from flows.recipes import BuildRecipe, GeneratorSource, GridConfig, load_recipe, weights_digest
from flows.shards import Plan, identity
from flows.sources import draw, shown_grid
from flows.view_recipe import CameraConfig
from flows.viewing import cameras_of, real_cameras
from pipeline.datasets.image_files import read_depth, write_depth
from pipeline.datasets.kitti_calibration import calibration_of, write_calibration
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.semantic_kitti import open_root, read_camera, read_frame
from pipeline.generators.comp_d3pm import CompD3PM
from pipeline.generators.edit import place_in
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from renderers.shading import render
from tests.flows.street_root import street_camera, write_street_root

SMALL = ("samples=1", "shard_samples=1", "gallery_samples=1", "source.grid.shape=[32,32,16]", "source.mask_poses=2")
PLACE = ("source.grid.origin_m=[0.0,-6.4,-2.0]", "views.width_px=96", "views.height_px=32")


def town(*changes: str) -> BuildRecipe:
    return load_recipe("town_tiny", changes=(*SMALL, *PLACE, *changes))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(town(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(town("source.extend_m=6.3"), tmp_path_factory.mktemp("extended"))


def built(recipe: BuildRecipe, out: Path) -> Path:
    build_dataset(recipe, out, "none", 1)
    return out


class TestExtension:
    def test_more_is_seen_beyond_the_grid_and_the_scene_stays(self, plain: Path, extended: Path) -> None:
        folder = Path("sequences/00")
        for name in ("voxels/000000.label", "voxels/000000.invalid", "voxels/000000.bin", "calib.txt"):
            assert (plain / folder / name).read_bytes() == (extended / folder / name).read_bytes()
        near, far = (read_depth(root / folder / "depth_2/000000.png") for root in (plain, extended))
        assert np.array_equal(far[near > 0], near[near > 0])
        assert (far > 0).sum() > (near > 0).sum()
        assert near.max() < 14 < far.max()  # m

    def test_it_is_sound_until_something_stands_in_the_voxels_that_is_not_there(
        self, extended: Path, tmp_path: Path
    ) -> None:
        assert verify_dataset(extended) == []
        manifest, folder = read_manifest(extended), extended / "sequences/00"
        depth = read_depth(folder / "depth_2/000000.png")
        missed = render(read_frame(open_root(extended), "00", "000000").scene(), read_camera(extended, "00", "000000"))
        v, u = np.argwhere((depth > 0) & (missed.depth == 0))[0]
        assert [fault for _, fault in contradictions(extended, manifest)] == [None]
        before = (folder / "depth_2/000000.png").read_bytes()
        depth[v, u] = 5.0  # inside the grid, where the voxels have nothing
        write_depth(folder / "depth_2/000000.png", depth)
        ((_, fault),) = contradictions(extended, manifest)
        (folder / "depth_2/000000.png").write_bytes(before)
        assert fault is not None
        assert "in 1 of 3072 pixels" in fault

    def test_grids_grow_ahead_and_to_both_sides(self) -> None:
        recipe = town("source.extend_m=6.3")
        assert shown_grid(recipe) == VoxelGrid((48, 64, 16), 0.4, (0.0, -12.8, -2.0))
        assert shown_grid(town()) == VoxelGrid((32, 32, 16), 0.4, (0.0, -6.4, -2.0))

    def test_a_generators_scenes_are_held_while_it_outpaints(self, tmp_path: Path) -> None:
        generator = CompD3PM(comp_d3pm_tiny())
        generator.frequency = np.full(len(generator.taxonomy.classes), 0.05)
        generator.save(tmp_path / "tiny")
        grid = GridConfig(shape=(16, 16, 8), voxel_size_m=0.4, origin_m=(0.0, -3.2, -2.0))
        fields = {"weights": tmp_path / "tiny", "weights_digest": weights_digest(tmp_path / "tiny"), "grid": grid}
        sources = [GeneratorSource(**fields, overlap_m=1.6, extend_m=metres) for metres in (0.0, 2.0)]
        recipes = [BuildRecipe(name="a", samples=2, source=source) for source in sources]
        (first, _), (drawn, other) = (list(draw(recipe, range(2))) for recipe in recipes)
        assert np.array_equal(first.scene.labels, drawn.scene.labels)
        assert first.beyond is None
        assert drawn.beyond is not None
        assert drawn.beyond.shape == (21, 26, 8)
        assert other.beyond is not None
        inner = place_in(grid.grid(), shown_grid(recipes[1]))
        assert np.array_equal(drawn.beyond[inner], drawn.scene.labels)
        assert drawn.beyond.max() < len(generator.taxonomy.classes)
        assert not np.array_equal(drawn.beyond, other.beyond)


class TestMasks:
    def test_without_them_every_voxel_is_known(self, plain: Path, tmp_path: Path) -> None:
        whole = built(town("masks=none"), tmp_path)
        masked, known = (read_frame(open_root(root), "00", "000000") for root in (plain, whole))
        assert known.invalid is not None
        assert masked.invalid is not None
        assert not known.invalid.any()
        assert masked.invalid.mean() > 0.02
        assert known.scene().valid.all()
        same = ~masked.invalid
        assert np.array_equal(known.scene().labels[same], masked.scene().labels[same])
        assert verify_dataset(whole) == []


class TestRealCameras:
    def test_sequences_take_them_in_turn(self, tmp_path: Path) -> None:
        root = write_street_root(tmp_path, train=1, val=1)
        other = street_camera().resized(40, 20)
        write_calibration(root / "sequences/01/calib.txt", calibration_of(CameraConfig.of(other).camera()))
        found = real_cameras(root)
        assert found == (CameraConfig.of(read_camera(root, "00", "000000")),)  # 08 is held out, 01 of no split
        recipe = town(f"views.real={root}", "views.jitter_m=0", "views.jitter_deg=0", "samples=4", "sequences=2")
        (camera,) = cameras_of(recipe, 0).values()
        assert (camera.width_px, camera.height_px) == (40, 20)
        np.testing.assert_array_equal(camera.K, street_camera().K)
        assert str(root) not in recipe.model_dump_json()
        again = BuildRecipe.model_validate_json(recipe.model_dump_json())  # the numbers stand in the recipe
        assert again.digest() == recipe.digest() != town("samples=4", "sequences=2").digest()
        two = (found[0], found[0].model_copy(update={"width_px": 32}))
        turns = recipe.model_copy(update={"views": recipe.views.model_copy(update={"real": two})})
        assert [cameras_of(turns, index)["front"].width_px for index in (0, 2)] == [40, 32]

    def test_jitter_of_the_lens_is_seeded_and_changes_nothing_else(self) -> None:
        plain, wide = (town("sequences=40", "samples=80", *more) for more in ((), ("views.jitter_focal=0.1",)))
        pairs = [(cameras_of(plain, i)["front"], cameras_of(wide, i)["front"]) for i in range(0, 80, 2)]
        factors = [b.K[0, 0] / a.K[0, 0] for a, b in pairs]
        assert 0.07 < np.std(np.log(factors)) < 0.13
        for (before, after), factor in zip(pairs, factors, strict=True):
            assert after.K[1, 1] == pytest.approx(factor * before.K[1, 1])
            assert np.array_equal(before.K[:2, 2], after.K[:2, 2])
            assert np.array_equal(before.camera_from_world, after.camera_from_world)


def test_recipes_without_switches_keep_digests_and_identities(tmp_path: Path) -> None:
    recipe = town()
    table = recipe.model_dump(mode="json")
    assert "masks" not in table
    assert {"real", "jitter_focal"} & table["views"].keys() == set()
    assert "extend_m" not in table["source"]
    changes = ("masks=none", "source.extend_m=2", "views.jitter_focal=0.1")
    stages = [stage.name for stage in STAGES]
    for change, first in zip(changes, ("masks", "scenes", "views"), strict=True):
        plans = [Plan("build", STAGES, found, tmp_path, 1) for found in (recipe, town(change))]
        same = [identity(plans[0], index, 0) == identity(plans[1], index, 0) for index in range(len(STAGES))]
        assert same.index(False) == stages.index(first)
        assert not any(same[stages.index(first) :])
        assert plans[0].recipe.digest() != plans[1].recipe.digest()


def test_a_recipe_is_shown_with_them() -> None:
    result = CliRunner().invoke(app, ["recipes", "town_tiny"])
    shown = json.loads(result.stdout)
    assert (shown["masks"], shown["source"]["extend_m"], shown["views"]["real"]) == ("simulated", 0.0, [])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("semantic_kitti", ("masks=none",), "a split's frames keep their own masks"),
        ("semantic_kitti", ("source.extend_m=5",), "a field of the recipe"),
        ("semantic_kitti", ("views.jitter_focal=0.1",), "no jitter"),
        ("town_tiny", ("source.extend_m=-1",), "greater than or equal to 0"),
        ("town_tiny", ("views.real=[{}]",), "Field required"),
        ("town_tiny", ("views.real=/nowhere",), "/nowhere"),
    ],
)
def test_bad_ones_are_refused_in_one_line(name: str, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(name, Path("/x") if name == "semantic_kitti" else None, changes)
    assert "\n" not in str(caught.value)
