"""Generator recipes: they build, the compared ones are equal in size and compute, the published ones train."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flows.generator_recipes import CARLA_SC_GRID, GENERATOR_RECIPES, TINY_GRID, generator_recipe
from flows.generators import config_of, load_generator, new_generator, train_generator
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.diffusion.stage import Stage
from pipeline.scene.errors import InputError
from pipeline.scene.grid import SEMANTIC_KITTI_GRID
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

COMPARED = ("comp_d3pm", "whole_scene", "two_stage")


def stages_of(recipe: str, device: str = "meta") -> dict[str, Stage]:
    """A recipe's stages, by default without memory for weights."""
    with torch.device(device):
        generator = new_generator(generator_recipe(recipe))
    return dict(getattr(generator, "stages", {"model": generator}))  # a method of one network has no stages


def parameters(stages: dict[str, Stage]) -> int:
    return sum(p.numel() for stage in stages.values() for p in stage.network.parameters())


def step_flops(stage: Stage) -> float:
    """Floating-point operations of one training step: forward and backward, and half of the time one more forward."""
    x, y = (n // p for n, p in zip(stage.shape, stage.patch, strict=False))
    volumes = [torch.zeros(1, x, y, v.voxels, dtype=torch.long) for v in stage.network.inputs]
    t = torch.zeros(1, dtype=torch.long)
    chosen = None
    if stage.config.loss_share < 1:
        chosen = torch.arange(round(volumes[0].shape[-1] * stage.config.loss_share))
    with sdpa_kernel(SDPBackend.MATH):  # the counter knows its products
        with FlopCounterMode(display=False) as whole:
            stage.network(t, *volumes, chosen=chosen).sum().backward()
        with torch.no_grad(), FlopCounterMode(display=False) as estimate:
            stage.network(t, *volumes)
    extra = estimate.get_total_flops() / 2 if stage.config.self_condition else 0
    return stage.config.training.batch_size * (whole.get_total_flops() + extra)


def training_flops(stages: dict[str, Stage]) -> float:
    return sum(step_flops(stage) * (stage.config.training.steps or 0) for stage in stages.values())


@pytest.mark.parametrize("name", GENERATOR_RECIPES)
def test_every_recipe_builds_and_survives_json(name: str) -> None:
    config = generator_recipe(name)
    assert config_of(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    assert parameters(stages_of(name)) > 10_000


@pytest.mark.parametrize("measure", [parameters, training_flops])
def test_compared_recipes_are_equal_within_a_twentieth(measure) -> None:
    found = {name: measure(stages_of(name, "cpu")) for name in COMPARED}
    print(measure.__name__, {name: f"{value:.4g}" for name, value in found.items()})
    assert max(found.values()) / min(found.values()) <= 1.05, found


def test_flops_are_counted_whole() -> None:
    """Against a count by hand of comp_d3pm's foreground stage: 2 a multiply-add, backward twice forward."""
    stage = stages_of("comp_d3pm", "cpu")["foreground"]
    config, (x, y, z) = stage.config, stage.shape
    n, d, batch, K = x * y, config.width, config.training.batch_size, stage.classes
    block = n * (3 * d * d + d * d + 8 * d * d + 9 * d * d) + 2 * n * n * d + 6 * d * d
    ends = n * 2 * z * config.channels * d + n * d * z * K + 256 * d + d * d + 2 * d * d
    forward = 2 * batch * (config.depth * block + ends)
    assert step_flops(stage) == pytest.approx(3 * forward, rel=0.02)  # no gradient of the time's frequencies


def test_compared_recipes_share_what_they_must() -> None:
    configs = [generator_recipe(name) for name in COMPARED]
    assert len({(c.grid.shape, c.grid.voxel_size_m, c.taxonomy, c.block_m) for c in configs}) == 1
    trainings = {stage.config.training for name in COMPARED for stage in stages_of(name).values()}
    assert len(trainings) == 1
    processes = {
        (s.config.process, s.config.schedule, s.config.steps, s.config.ce_weight, s.config.width)
        for name in COMPARED
        for s in stages_of(name).values()
    }
    assert len(processes) == 1
    stages = [stage for name in COMPARED for stage in stages_of(name).values()]
    assert {stage.config.reach for stage in stages} == {1}
    assert all(stage.config.learn_filled for stage in stages)


def test_changes() -> None:
    changed = generator_recipe("two_stage", ("*.training.steps=7", "fine.depth=2", "sampling.batch=3"))
    assert (changed.coarse.training.steps, changed.fine.training.steps) == (7, 7)
    assert (changed.coarse.depth, changed.fine.depth) == (7, 2)
    assert changed.sampling.batch == 3
    whole = generator_recipe("whole_scene", ("*.width=64",))  # its coarse stage is none, and stays so
    assert whole.coarse is None
    assert whole.fine.width == 64


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("nothing", "seed=1", "recipe: expected one of comp_d3pm,"),
        ("comp_d3pm", "fusion.depht=2", "a field of the recipe"),
        ("comp_d3pm", "*.nothing=2", "a field of the recipe"),
        ("comp_d3pm", "fusion.depth", "FIELD=VALUE"),
        ("comp_d3pm", "fusion.depth=0", "fusion.depth"),
        ("comp_d3pm", "*.training.steps=null", "either steps or epochs"),
        ("whole_scene", "method=other", "method"),
    ],
)
def test_faults_are_one_line(name: str, change: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        generator_recipe(name, (change,))
    assert "\n" not in str(caught.value)


def test_blocks_that_do_not_divide_the_grid_are_refused() -> None:
    with pytest.raises(InputError, match="pooling block"):
        new_generator(generator_recipe("comp_d3pm_tiny", ("block_m=[1.2, 1.2, 0.8]",)))


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small streets with a car each, a fifth of the voxels invalid."""
    path, taxonomy = tmp_path_factory.mktemp("root"), load_taxonomy("semantic_kitti")
    for k in range(6):
        labels = np.zeros(TINY_GRID.shape, np.uint8)
        labels[:, :, 0] = taxonomy.id_of("road")
        labels[k : k + 5, 4:8, 1:4] = taxonomy.id_of("car")
        labels[np.random.default_rng(k).random(TINY_GRID.shape) < 0.2] = IGNORE
        write_frame(path, frame_of(Scene(labels, TINY_GRID, taxonomy), "00", f"{k:06d}"))
    write_layout(path, TINY_GRID, {"train": ["00"]})
    return path


@pytest.mark.parametrize("name", ["comp_d3pm_tiny", "whole_scene_tiny"])
def test_tiny_recipes_train_all_stages(name: str, tiny_root: Path, tmp_path: Path) -> None:
    config = generator_recipe(name)
    weights = train_generator(config, tiny_root, tmp_path)
    loaded = load_generator(weights)
    assert loaded.config == config  # type: ignore[attr-defined]
    for stage in stages_of(name):
        rows = [json.loads(line) for line in (tmp_path / stage / "losses.jsonl").read_text().splitlines()]
        assert rows[-1]["step"] == 20
        assert np.isfinite(rows[-1]["loss"])


def kitti_bytes(root: Path, frame: str, rng: np.random.Generator) -> None:
    """The published layout by hand: raw ids as uint16, masks as packed bits, C order over (x, y, z)."""
    raw = np.zeros(SEMANTIC_KITTI_GRID.shape, "<u2")
    raw[:, :, 2:6] = 72  # terrain
    raw[:, 96:160, 2:6] = 40  # road
    raw[60:82, 120:130, 6:14] = 10  # car
    raw[30:34, 90:94, 6:30] = 80  # pole
    folder = root / "sequences/00/voxels"
    folder.mkdir(parents=True, exist_ok=True)
    raw.tofile(folder / f"{frame}.label")
    invalid = rng.random(raw.size) < 0.2
    np.packbits(invalid).tofile(folder / f"{frame}.invalid")
    np.packbits(invalid & False).tofile(folder / f"{frame}.occluded")
    np.packbits(raw.ravel() > 0).tofile(folder / f"{frame}.bin")


def carla_bytes(root: Path, frame: str, rng: np.random.Generator) -> None:
    """The fine download by hand: raw CARLA tags as uint8."""
    raw = np.zeros(CARLA_SC_GRID.shape, np.uint8)
    raw[:, :, 0:2] = 7  # road
    raw[40:62, 120:130, 2:9] = 10  # vehicle
    raw[:, 200:, 2:] = rng.choice([0, 9], raw[:, 200:, 2:].shape)  # vegetation
    folder = root / "Train/Town01_Heavy/cartesian/evaluation_fine"
    folder.mkdir(parents=True, exist_ok=True)
    raw.tofile(folder / f"{frame}.label")


WRITERS = {"semantic_kitti": kitti_bytes, "carla_sc": carla_bytes}
STEP = ("*.training.epochs=null", "*.training.steps=1")
SMALLER = ("*.depth=1", "*.training.batch_size=1", "*.training.torch_threads=1", "*.training.device=cpu")


def one_step(name: str, changes: tuple[str, ...], frames: int, folder: Path) -> None:
    for k in range(frames):
        WRITERS[name](folder / "root", f"{k:06d}", np.random.default_rng(k))
    config = generator_recipe(name, STEP + changes)
    train_generator(config, folder / "root", folder / "out")
    for stage in ("background", "foreground", "fusion"):
        row = json.loads((folder / "out" / stage / "losses.jsonl").read_text().splitlines()[-1])
        assert row["step"] == 1
        # untrained networks hold all K classes for equally likely, but for what each voxel says of itself
        assert 0 < row["ce"] < 1.01 * np.log(len(load_taxonomy(name).classes))


@pytest.mark.parametrize("name", WRITERS)
def test_published_settings_train_a_step_at_full_resolution(name: str, tmp_path: Path) -> None:
    """All stages at the published grid and width, with one block and one scene a step, so that two cores can."""
    one_step(name, SMALLER, 1, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", WRITERS)
def test_published_settings_train_a_step_unchanged(name: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch.cuda.reset_peak_memory_stats()
    one_step(name, (), 4, tmp_path)
    print(f"{name}: peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    assert torch.cuda.max_memory_allocated() < 24 * 2**30  # the paper's card has 24 GB
