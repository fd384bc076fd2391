"""Pictures of predictions beside their truth: the right things in the right columns; the page holds all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import ssc_score_cli
from flows.ssc_pictures import COLUMNS, ROW_PX, compared_frames, oblique_window, sheet, write_pictures
from pipeline.datasets.image_files import read_image, write_image
from pipeline.datasets.kitti_calibration import calibration_of, write_calibration
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy
from renderers.viewpoints import kitti_front
from ssc_eval.predictions import open_truth, prediction_path, write_prediction

TAXONOMY = load_taxonomy("semantic_kitti")
ROAD, CAR, TREE = (TAXONOMY.id_of(name) for name in ("road", "car", "vegetation"))
GRID = VoxelGrid((16, 16, 8), 0.8, (0.0, -6.4, -2.4))
KEYS = tuple(("08", f"{n:06d}") for n in range(5))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A road; ahead to the left something that is a car and that predictions take for a tree. Blue photographs."""
    path = tmp_path_factory.mktemp("root")
    for number, (sequence, name) in enumerate(KEYS):
        labels = np.zeros(GRID.shape, np.uint8)
        labels[:, :, 0] = ROAD
        labels[8:12, 9 : 12 - number % 2, 1:4] = CAR
        write_frame(path, Frame(sequence, name, GRID, TAXONOMY, labels))
        image = np.full((20, 60, 3), (0, 0, 200), np.uint8)
        write_image(path / "sequences" / "08" / "image_2" / f"{name}.png", image)
        wrong = np.where(labels == CAR, np.uint8(TREE), labels)
        write_prediction(path / "predictions", (sequence, name), wrong, TAXONOMY)
    write_calibration(path / "sequences" / "08" / "calib.txt", calibration_of(kitti_front(size_px=(60, 20))))
    write_layout(path, GRID)
    return path


def share(picture: np.ndarray, dominant: int) -> float:
    """Pixels in which a channel stands out."""
    rgb = picture.astype(int)
    others = np.delete(rgb, dominant, axis=2).max(axis=2)
    return float((rgb[..., dominant] > others + 40).mean())


def test_columns_show_what_they_are_called(root: Path) -> None:
    (first, *_) = frames = compared_frames(root / "predictions", open_truth(root, "val"), 3)
    assert [frame.key[1] for frame in frames] == ["000000", "000002", "000004"]
    assert len(first.pictures) == len(COLUMNS) == 5
    assert {picture.shape[0] for picture in first.pictures} == {ROW_PX}
    photograph, predicted, truth, predicted_oblique, truth_oblique = first.pictures
    assert np.abs(photograph.astype(int) - (0, 0, 200)).max() < 3
    for tree, car in ((predicted, truth), (predicted_oblique, truth_oblique)):
        assert share(tree, 1) > 0.01 > share(car, 1)  # green
        assert share(car, 2) > share(tree, 2) + 0.01  # blue
        assert (tree.shape, np.sign(tree[-1].sum())) == (car.shape, 1)
    rgb = predicted.astype(int)
    green = (rgb[..., 1] > rgb[..., 0] + 40) & (rgb[..., 1] > rgb[..., 2] + 40)
    assert np.argwhere(green)[:, 1].mean() < 0.5 * predicted.shape[1]  # left in the world, left in the picture
    assert first.iou == 1
    assert first.miou == 0.5  # the road right, the car not


def test_the_sheet_holds_every_row_and_the_titles(root: Path) -> None:
    frames = compared_frames(root / "predictions", open_truth(root, "val"), 2)
    one, two = sheet(frames[:1], TAXONOMY, "x"), sheet(frames, TAXONOMY, "x")
    assert two.shape[0] - one.shape[0] > ROW_PX
    assert one.shape[1] == two.shape[1] > sum(picture.shape[1] for picture in frames[0].pictures)
    blank = sheet(frames[:1], TAXONOMY, "")
    assert (blank[: one.shape[0] // 8] != one[: one.shape[0] // 8]).any()


def test_the_window_holds_the_whole_grid_for_any_scene() -> None:
    rows, columns = oblique_window(GRID, TAXONOMY)
    assert 0 < rows.start < rows.stop <= 576
    assert 0 < columns.start < columns.stop < 1024
    assert columns.start + columns.stop == pytest.approx(1024, abs=8)  # seen from behind, in the middle


def run(*words: object) -> str:
    app = typer.Typer()
    ssc_score_cli.register(app)
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_page_and_its_files(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    run("evaluate", root / "predictions", root, "--workers", 1, "--report", page, "--frames", 2, "--quiet")
    assert sorted(path.name for path in page.iterdir()) == ["index.html", "scores.json", "scores.md", "sheet.jpg"]
    text = (page / "index.html").read_text()
    assert text.count('<img src="data:image/jpeg;base64,') == 3  # the legend, two frames
    assert "08/000000    IoU 100.0   mIoU of present 50.0" in text
    assert "<td>out of view</td>" in text
    assert "<td>bicycle (absent)</td>" in text
    found = json.loads((page / "scores.json").read_text())
    assert found["regions"]["all"]["miou_present"] == 0.5
    assert found["command"] in text.replace("&#34;", '"').replace("&#39;", "'")
    with pytest.raises(InputError, match="a new or empty folder"):
        run("evaluate", root / "predictions", root, "--report", page)


def test_pictures_alone(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert run("pictures", root / "predictions", root, "--out", out, "--frames", 3) == f"{out}: 3 frames\n"
    assert read_image(out).shape[0] > 3 * ROW_PX
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        write_pictures(root / "predictions", root, "val", 1, tmp_path / "sheet.gif")
    moved = prediction_path(root / "predictions", *KEYS[0])
    content = moved.read_bytes()
    moved.unlink()
    try:
        with pytest.raises(InputError, match=r"000000\.label: .* no such file"):
            write_pictures(root / "predictions", root, "val", 1, out)
    finally:
        moved.write_bytes(content)
