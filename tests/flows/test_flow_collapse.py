"""Flow collapse from weights to figures, on tiny generators."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import flow_cli
from flows.flow_collapse import class_sets, flow_collapse, foreground_share, load_method, summary
from flows.generator_recipes import TINY_GRID, generator_recipe
from flows.generators import scene_seeds, train_generator
from pipeline.datasets.image_files import read_image
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
STAGES = {"comp": {"background", "foreground", "fusion"}, "whole": {"fine"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("root")
    for k in range(6):
        labels = np.zeros(TINY_GRID.shape, np.uint8)
        labels[:, :, 0] = TAXONOMY.id_of("road")
        labels[k : k + 5, 4:8, 1:4] = TAXONOMY.id_of("car")
        labels[np.random.default_rng(k).random(TINY_GRID.shape) < 0.2] = IGNORE
        write_frame(path, frame_of(Scene(labels, TINY_GRID, TAXONOMY), "00" if k < 3 else "08", f"{k:06d}"))
    write_layout(path, TINY_GRID, {"train": ["00"], "val": ["08"]})
    return path


@pytest.fixture(scope="module")
def weights(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    names = {"comp": "comp_d3pm_tiny", "whole": "whole_scene_tiny"}
    return {k: train_generator(generator_recipe(name), root, folder / k) for k, name in names.items()}


@pytest.fixture(scope="module")
def report(root: Path, weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("flow")
    found = flow_collapse(root, weights, out, scenes=3, steps=5, seed=2)
    assert json.loads((out / "flow.json").read_text()) == found
    for name in ("flow_full.png", "flow_coarse.png"):
        assert read_image(out / name).std() > 5
    return found


def test_report_holds_every_stage_setting_and_convention(report: dict) -> None:
    assert report["foreground_classes"] == [TAXONOMY.classes[k] for k in sorted(TAXONOMY.foreground)]
    assert "empty" in report["backgrounds"]["with_empty"]
    assert "empty" not in report["backgrounds"]["classes"]
    for name, measured in report["generators"].items():
        assert set(measured["stages"]) == STAGES[name]
        for stage in measured["stages"].values():
            for flows in (stage["forced"]["model"], stage["forced"]["exact"], stage["own"]):
                for kind in ("classes", "with_empty"):
                    assert flows[kind]["t"] == [20, 16, 12, 8, 4]
                    assert flows[kind]["s"] == [16, 12, 8, 4, 0]
                    assert all(
                        0 <= rate <= 1 + 1e-9 for key in ("alpha_rate", "beta_rate") for rate in flows[kind][key]
                    )
                alpha = {kind: np.array(flows[kind]["alpha_mass"]) for kind in flows}
                assert (alpha["with_empty"] >= alpha["classes"]).all()


def test_all_that_leaves_the_foreground_goes_to_everything_else(report: dict) -> None:
    """Along a model's own draws, the next x_t's foreground is the last one's less what was lost."""
    for measured in report["generators"].values():
        for stage in measured["stages"].values():
            own = stage["own"]["with_empty"]
            held, lost = np.array(own["foreground_voxels"]), np.array(own["lost"])
            total = np.array(own["background_voxels"]) + held
            deviation = np.sqrt(5 * total[0] / 4 / 3)  # at most, of 5 steps' draws, as a mean over 3 scenes
            assert np.abs(held[1:] - (held[0] - lost[:-1])).max() < 4 * deviation
            assert np.array(own["foreground_share"]) == pytest.approx(held / total)


def test_exact_flow_ends_at_the_real_scenes_foreground(report: dict) -> None:
    """At s = 0 the exact posterior is x_0, so what flows in the last step is what x_t has wrong."""
    for name, stage in (("comp", "fusion"), ("whole", "fine")):
        forced = report["generators"][name]["stages"][stage]["forced"]
        exact, model = forced["exact"]["with_empty"], forced["model"]["with_empty"]
        assert exact["foreground_voxels"] == model["foreground_voxels"]  # the same x_t
        left = exact["foreground_voxels"][-1] - exact["alpha_mass"][-1] + exact["beta_mass"][-1]
        voxels = exact["foreground_voxels"][-1] + exact["background_voxels"][-1]
        assert left / voxels == pytest.approx(report["real_share"])


def test_own_setting_measures_the_scenes_that_are_drawn(report: dict, weights: dict[str, Path], root: Path) -> None:
    foreground = class_sets(TAXONOMY)[0].numpy()
    for name, folder in weights.items():
        scenes = load_method(folder, 5).sample(3, scene_seeds(2, range(3)))
        share = foreground_share(np.stack([scene.labels for scene in scenes]), foreground)
        measured = report["generators"][name]
        assert measured["drawn_share"]["complete"] == share
        expected = measured["stages"]["fusion" if name == "comp" else "fine"]["own_last_share"]
        assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 2048 / 3))


def test_same_numbers_again(report: dict, root: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    again = flow_collapse(root, {"whole": weights["whole"]}, tmp_path, scenes=3, steps=5, seed=2)
    assert again["generators"]["whole"] == report["generators"]["whole"]


def test_summary(report: dict) -> None:
    lines = summary(report)
    assert lines[0].startswith("3 scenes, 5 steps")
    assert sum("of the exact" in line for line in lines) == 4  # two generators' last stages, two conventions


def test_foreground_share_counts_valid_voxels() -> None:
    foreground = np.arange(20) == 3
    labels = np.array([[[3, 3, 0, 255], [1, 0, 0, 255]]], np.uint8)[None]
    assert foreground_share(labels, foreground) == pytest.approx(2 / 6)


def test_command(root: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    app = typer.Typer()
    flow_cli.register(app)
    app.command("other")(lambda: None)
    words = [
        "flow-collapse",
        "--real",
        str(root),
        "--generator",
        f"whole={weights['whole']}",
        "-n",
        "1",
        "--steps",
        "2",
    ]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert "whole: foreground's share" in result.output
    assert (tmp_path / "out/flow_full.png").exists()
    assert not (tmp_path / "out/flow_coarse.png").exists()


def test_faults(root: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    whole = {"whole": weights["whole"]}
    faults = [
        ({"weights": {}}, "NAME=WEIGHTS"),
        ({"weights": {"x": tmp_path / "nothing"}}, "nothing"),
        ({"weights": whole, "scenes": 9}, "at least 9 labelled scenes"),
        ({"weights": whole, "scenes": 1, "steps": 21}, "sampling steps"),
    ]
    for words, message in faults:
        with pytest.raises(InputError, match=message):
            flow_collapse(root, out=tmp_path / "out", **words)  # type: ignore[arg-type]
    for bad in (["whole"], ["=x"], ["a=b", "a=c"]):
        with pytest.raises(InputError, match="NAME=WEIGHTS"):
            flow_cli.named(bad)
