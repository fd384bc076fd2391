"""First surfaces: hand-worked scenes, lines of sight against geometry, evidence and losses against plain loops."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from pipeline.learning.checkpoint import load_model
from pipeline.learning.journal import read_losses
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, VoxelGrid
from ssc_eval.lifting import projection
from ssc_eval.losses import LossWeights
from ssc_eval.monoscene import LOGITS, SURFACE_LOGITS, MonoSceneConfig, Surfaces, build
from ssc_eval.samples import SampleConfig, Source, SscDataset
from ssc_eval.surface import (
    UNSCORED,
    depth_bins,
    evidence,
    first_surface,
    sight_lines,
    sight_of,
    surface_losses,
)
from ssc_eval.training import SscConfig, train_ssc
from ssc_eval.weights import load_ssc
from tests.ssc_eval.test_training import config as training_config
from tests.ssc_eval.toy_root import GRID, SIZE, write_toy_root

FORWARD = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # camera_from_world: looks along +X
BINS = 64
VIEW = Camera(np.array([[200.0, 0, 191.5], [0, 200.0, 63.5], [0, 0, 1]]), FORWARD, 384, 128)
NETWORK = MonoSceneConfig(
    encoder="tiny", decoder=32, feature=8, depth=1, dilations=(1,), scales=(2, 4), depth_bins=8
)  # as training_config's, with surfaces
NOISE = torch.Generator().manual_seed(0)


def bins_of_voxels() -> np.ndarray:
    return sight_of(VIEW, COMPARISON_GRID, projection(VIEW, COMPARISON_GRID), BINS)[..., 2]


class TestTargets:
    def test_a_wall_is_met_at_its_depth_and_what_is_above_it_at_none(self) -> None:
        labels = np.zeros(COMPARISON_GRID.shape, np.uint8)
        labels[25, :, :6] = 13  # x 10.0 to 10.4 m, z -2.0 to 0.4 m
        found = first_surface(labels, sight_lines(VIEW, COMPARISON_GRID, False), bins_of_voxels(), BINS)
        assert found.depth.shape == (32, 96)
        # at 10 m a metre is 20 px: the wall spans rows 55.5 to 103.5, so the centres of cells 14 (57.5) to 25 (101.5)
        met = np.isin(np.arange(32), np.arange(14, 26))
        assert (found.depth == np.where(met, 25, BINS)[:, None]).all()
        assert (found.class_id == np.where(met, 13, 255)[:, None]).all()

    def test_the_nearer_hides_the_farther_and_the_unlabelled_is_not_scored(self) -> None:
        labels = np.zeros(COMPARISON_GRID.shape, np.uint8)
        labels[40], labels[20, :32], labels[20, 32:] = 13, 1, 255  # y < 0, the right half, is a car
        found = first_surface(labels, sight_lines(VIEW, COMPARISON_GRID, False), bins_of_voxels(), BINS)
        assert (found.depth[16, 50:90] == 20).all()
        assert (found.class_id[16, 50:90] == 1).all()
        assert (found.depth[16, 6:46] == UNSCORED).all()
        assert (found.class_id[16, 6:46] == 255).all()

    def test_mirrored_lines_are_the_flipped_images(self) -> None:
        plain, mirrored = (sight_lines(VIEW, COMPARISON_GRID, side) for side in (False, True))
        assert np.array_equal(plain[:, :, ::-1], mirrored)
        narrow = Camera(VIEW.K, VIEW.camera_from_world, 382, 126)  # no multiple of a cell: cells differ
        assert not np.array_equal(
            sight_lines(narrow, COMPARISON_GRID, False)[:, :, ::-1], sight_lines(narrow, COMPARISON_GRID, True)
        )

    def test_voxels_on_a_line_project_near_its_cell_in_order_of_depth(self) -> None:
        lines = sight_lines(VIEW, COMPARISON_GRID, False)
        row, column = np.meshgrid(np.arange(32), np.arange(96), indexing="ij")
        pixels, depth = VIEW.project(COMPARISON_GRID.centres().reshape(-1, 3))
        for line in lines:
            on = line >= 0
            u, v = pixels[line[on]].T
            reach = 200 * math.sqrt(3) * 0.2 / (depth[line[on]] - 0.4) + 1e-9  # px, half a voxel's diagonal
            near = depth[line[on]] > 1.0
            assert (np.abs(u - (4 * column[on] + 1.5))[near] <= reach[near]).all()
            assert (np.abs(v - (4 * row[on] + 1.5))[near] <= reach[near]).all()
        for a, b in itertools.pairwise(lines):
            both = (a >= 0) & (b >= 0)
            assert (depth[b[both]] - depth[a[both]] > -0.4).all()

    def test_bins_are_of_equal_width_and_closed_at_both_ends(self) -> None:
        depths = np.array([-3.0, 0.0, 0.39, 0.41, 25.5, 25.7, 90.0])
        assert depth_bins(COMPARISON_GRID, depths, BINS).tolist() == [0, 0, 0, 1, 63, 63, 63]
        assert depth_bins(COMPARISON_GRID, depths, 32).tolist() == [0, 0, 0, 0, 31, 31, 31]


class TestEvidence:
    def test_it_equals_a_loop_over_voxels(self) -> None:
        bins, classes = 5, 4
        logits = torch.randn(2, bins + classes, 3, 4, generator=NOISE, requires_grad=True)
        u, v = torch.randint(0, 16, (2, 3, 2, 2), generator=NOISE), torch.randint(0, 12, (2, 3, 2, 2), generator=NOISE)
        at = torch.randint(0, bins, (2, 3, 2, 2), generator=NOISE)
        sight = torch.stack([u, v, at], -1).to(torch.int16)
        sight[torch.rand(2, 3, 2, 2, generator=NOISE) < 0.3] = -1
        found = evidence(logits, sight, classes)
        expected = torch.zeros(2, classes, 3, 2, 2)
        for place in np.ndindex(2, 3, 2, 2):
            column, row, which = sight[place].tolist()
            if column >= 0:
                cell = logits[place[0], :, row // 4, column // 4].detach()
                p, q = cell[: bins + 1].softmax(0), cell[bins + 1 :].softmax(0)
                expected[place[0], :, *place[1:]] = torch.cat([p[:which].sum()[None], p[which] * q])
        assert torch.allclose(found, expected, atol=1e-6)
        found.square().sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    def test_a_certain_wall_is_found_where_it_stands_and_hides_what_is_behind(self) -> None:
        labels = np.zeros(COMPARISON_GRID.shape, np.uint8)
        labels[25] = 13
        sight = sight_of(VIEW, COMPARISON_GRID, projection(VIEW, COMPARISON_GRID), BINS)
        depth, class_id = first_surface(labels, sight_lines(VIEW, COMPARISON_GRID, False), sight[..., 2].copy(), BINS)
        assert (depth[:25] == 25).all()
        certain = [
            one_hot(torch.from_numpy(depth).long(), BINS + 1),
            one_hot(torch.from_numpy(class_id).long().clamp(max=19) - 1, 19),
        ]
        logits = 100.0 * torch.cat(certain, -1).permute(2, 0, 1)[None]
        found = evidence(logits, torch.from_numpy(sight)[None], 20)[0].numpy()
        seen = sight[..., 0] >= 0
        x = np.arange(64)[:, None, None]
        assert np.allclose(found[13], seen & (x == 25))
        assert np.allclose(found[0], seen & (x > 25))
        assert np.allclose(np.delete(found, [0, 13], axis=0), 0)


class TestLosses:
    def test_they_equal_loops_over_cells_and_ignore_the_padding(self) -> None:
        bins, weights = 3, torch.tensor([1.0, 2.0, 0.5])
        logits = torch.randn(2, bins + 3, 4, 5, generator=NOISE)
        depth = torch.randint(0, bins + 1, (2, 3, 4), generator=NOISE).to(torch.int16)
        class_id = torch.randint(1, 3, (2, 3, 4), generator=NOISE).to(torch.uint8)
        depth[0, 0, 0], class_id[0, 0], class_id[depth == bins] = UNSCORED, 255, 255
        found = surface_losses(logits, depth, class_id, weights)
        by_depth, by_class, mass = [], 0.0, 0.0
        for b, row, column in np.ndindex(2, 3, 4):
            cell = logits[b, :, row, column].double()
            if depth[b, row, column] != UNSCORED:
                by_depth.append(-cell[: bins + 1].log_softmax(0)[int(depth[b, row, column])].item())
            if (k := int(class_id[b, row, column])) != 255:
                by_class -= weights[k].item() * cell[bins + 1 :].log_softmax(0)[k - 1].item()
                mass += weights[k].item()
        assert found["depth"].item() == pytest.approx(np.mean(by_depth), rel=1e-5)
        assert found["surface"].item() == pytest.approx(by_class / mass, rel=1e-5)

    def test_without_a_scored_cell_they_and_their_gradients_are_zero(self) -> None:
        logits = torch.randn(1, 6, 2, 2, requires_grad=True)
        nothing = torch.full((1, 2, 2), UNSCORED, dtype=torch.int16), torch.full((1, 2, 2), 255, dtype=torch.uint8)
        found = surface_losses(logits, *nothing, torch.ones(3))
        (found["depth"] + found["surface"]).backward()
        assert found["depth"].item() == found["surface"].item() == 0
        assert logits.grad is not None
        assert (logits.grad == 0).all()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": ["00"], "val": ["08"], "test": ["11"]}
    return write_toy_root(tmp_path_factory.mktemp("toy"), {"00": 6, "08": 2, "11": 1}, splits)


class TestNetwork:
    def test_samples_carry_targets_and_their_flipped_twins(self, root: Path) -> None:
        config = SampleConfig(width_px=SIZE[0], height_px=SIZE[1], jitter=0.0, mirror=1.0)
        dataset = SscDataset((Source(root=root),), config, 0, NETWORK)
        plain, flipped = dataset[0], dataset.sample(0, np.random.default_rng(0))
        assert torch.equal(flipped["image"], plain["image"].flip(2))
        assert torch.equal(flipped["depth"], plain["depth"].flip(1))
        assert torch.equal(flipped["surface"], plain["surface"].flip(1))
        seen = plain["sight"][..., 0] >= 0
        assert torch.equal(flipped["sight"][seen][:, 0], SIZE[0] - 1 - plain["sight"][seen][:, 0])
        assert torch.equal(flipped["sight"][..., 1:], plain["sight"][..., 1:])
        assert "sight" in dataset.view(0, None)
        assert (
            "sight" not in SscDataset((Source(root=root),), config, 0, NETWORK.model_copy(update={"depth_bins": 0}))[0]
        )

    def test_it_learns_surfaces_and_completion_together(self, root: Path) -> None:
        config = SampleConfig(width_px=SIZE[0], height_px=SIZE[1])
        sample = {k: v[None] for k, v in SscDataset((Source(root=root),), config, 0, NETWORK)[0].items()}
        model = build(NETWORK, GRID, 20, seed=0)
        out = model(sample["image"], sample["pixels"], sample["sight"])
        assert out[LOGITS].shape == (1, 20, *GRID.shape)
        assert out[SURFACE_LOGITS].shape[1] == 8 + 20
        out[LOGITS].square().mean().backward()  # completion alone teaches the surfaces too
        assert model.surface.weight.grad is not None
        assert model.surface.weight.grad.abs().max() > 0
        unused = [name for name, p in model.named_parameters() if p.grad is None and "relation" not in name]
        assert unused == []

    def test_a_run_with_surfaces_writes_weights_that_load_and_predict(self, root: Path, tmp_path: Path) -> None:
        config = training_config(root, network=NETWORK, norm_frames=2, losses=LossWeights(depth=2.0))
        weights = train_ssc(SscConfig.model_validate(config), tmp_path / "out")
        model, card = load_ssc(weights)
        assert model.config.depth_bins == 8
        assert card["losses"]["depth"] == 2.0
        losses = (tmp_path / "out" / "losses.jsonl").read_text()
        assert '"depth"' in losses
        assert '"surface"' in losses

    def test_the_2d_half_is_trained_beforehand_alone_and_once(self, root: Path, tmp_path: Path) -> None:
        base = training_config(root, network=NETWORK)
        config = base.model_copy(
            update={"surfaces": base.training.model_copy(update={"steps": 3, "weight_decay": 0.0})}
        )
        weights = train_ssc(config, tmp_path / "out")
        begun = build(NETWORK, GRID, 20, config.seed)
        before = {name: value.clone() for name, value in begun.state_dict().items()}
        newest = max((tmp_path / "out" / "surfaces" / "checkpoints").iterdir())
        load_model(newest, Surfaces(begun))
        changed = {name for name, value in begun.state_dict().items() if not torch.equal(value, before[name])}
        assert {name.split(".")[0] for name in changed} == {"image", "surface"}
        assert not any(
            name.startswith(("image.out", "image.up.2.")) for name in changed
        )  # what Surfaces has no use for
        kept = read_losses(tmp_path / "out" / "surfaces")
        assert [line["step"] for line in kept] == [1, 2, 3]
        again = train_ssc(config, tmp_path / "out")  # nothing is left to do
        assert (again / "model.safetensors").read_bytes() == (weights / "model.safetensors").read_bytes()
        assert read_losses(tmp_path / "out" / "surfaces") == kept
        plain = train_ssc(base, tmp_path / "plain")
        assert (plain / "model.safetensors").read_bytes() != (weights / "model.safetensors").read_bytes()

    def test_training_surfaces_needs_a_network_that_has_them(self, root: Path, tmp_path: Path) -> None:
        base = training_config(root)
        with pytest.raises(InputError, match="a network that predicts them"):
            train_ssc(base.model_copy(update={"surfaces": base.training}), tmp_path / "out")

    def test_what_does_not_fit_is_told(self) -> None:
        grid = VoxelGrid((16, 32, 16), 0.4, (0.0, -6.4, -2.0))
        image, pixels = torch.rand(1, 3, 32, 64), torch.zeros(1, 8, 16, 8, 2, dtype=torch.int16)
        with pytest.raises(InputError, match="some, for depth_bins"):
            build(NETWORK, grid, 3, 0)(image, pixels)
        sight = torch.zeros(1, 16, 32, 16, 3, dtype=torch.int16)
        with pytest.raises(InputError, match="none, without depth_bins"):
            build(NETWORK.model_copy(update={"depth_bins": 0}), grid, 3, 0)(image, pixels, sight)
        with pytest.raises(InputError, match=r"shape \(1, 16, 32, 16, 3\)"):
            build(NETWORK, grid, 3, 0)(image, pixels, sight[:, 1:])
        with pytest.raises(InputError, match="pixels of a 64x32 image"):
            build(NETWORK, grid, 3, 0)(image, pixels, sight + 64)
        with pytest.raises(InputError, match="a scale of at most 4"):
            build(NETWORK.model_copy(update={"scales": (8,)}), grid, 3, 0)
