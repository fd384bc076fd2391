"""A build's report: written from what lies on disk, whole, and no part of the dataset."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.inspect import verify_dataset
from flows.report import TABLES, write_report
from flows.report_images import photograph_table, shown_scenes
from flows.report_pictures import evenly
from flows.report_samples import measured, worst
from flows.report_tables import duration, size
from flows.timing import LOG_NAME, read_timing
from pipeline.datasets.image_files import write_image
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.semantic_kitti import open_root
from pipeline.scene.errors import InputError
from tests.flows.finished_build import NAMES, provenance, write_finished_build
from tests.flows.reported_build import Page, scored, ssc_table, timed
from tests.flows.street_root import write_street_root


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return write_finished_build(tmp_path_factory.mktemp("built") / "dataset")


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Path:
    """A build of one's own, whose images a critic has scored."""
    copy = shutil.copytree(built, tmp_path / "dataset")
    scored(copy)
    return copy


def test_every_link_and_picture_lies_beside_the_page(dataset: Path) -> None:
    timed(dataset)
    ssc_table(dataset)
    before = (dataset / "manifest.json").read_bytes()
    index = write_report(dataset)
    page = Page(index)
    files = [link.partition("#")[0] for link in page.links]
    assert not [link for link in files if "//" in link]
    assert all((index.parent / file).exists() for file in files if file)
    assert all(page.alts)
    assert len(page.alts) >= 6 * 5
    for name in NAMES:
        assert name in page.words
    assert "views" in page.words  # a stage's row
    assert "4.5 s" in page.words
    assert "50.00" in page.words  # IoU in percent
    assert (dataset / "manifest.json").read_bytes() == before
    tables = {table["title"]: table for table in json.loads((index.parent / TABLES).read_text())["tables"]}
    assert [row[0] for row in tables["Time and cost by stage"]["rows"]] == ["views", "manifest", "all"]
    assert len(tables["Classes"]["rows"]) == 19
    assert ["car", "8", "2", "1", "25 %"] in tables["Draws rejected"]["rows"]


def test_the_report_is_no_part_of_the_dataset(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "dataset")
    assert verify_dataset(copy, views=False) == []
    write_report(copy)
    assert verify_dataset(copy, views=False) == []


def test_it_is_written_again_whole_and_keeps_what_the_work_folder_knew(dataset: Path) -> None:
    timed(dataset)
    ssc_table(dataset)
    first = {path.name for path in write_report(dataset).parent.rglob("*")}
    shutil.rmtree(dataset / ".build")  # as in a copy that someone was given
    (dataset / "report/stray.txt").write_text("an old file")
    index = write_report(dataset)
    assert {path.name for path in index.parent.rglob("*")} == first
    assert "4.5 s" in Page(index).words
    assert "50.00" in Page(index).words


def test_the_worst_are_at_the_end_of_each_check(dataset: Path) -> None:
    found = measured(open_root(dataset), read_manifest(dataset))
    lists = {check.title.partition(":")[0]: [s.name for s in members] for check, members in worst(found, 2)}
    assert lists["Image least as its voxels say"] == [NAMES[5], NAMES[4]]
    assert "Drawn most often" not in lists  # no attempts were noted
    emptiest = min(found, key=lambda s: s.counts[1:].sum() / s.counts.sum())
    assert lists["Emptiest"][0] == emptiest.name
    assert found[0].image["prompt"] == provenance(0)["image"]["prompt"]


def test_classes_stand_beside_a_real_root(dataset: Path, tmp_path: Path) -> None:
    real = write_finished_build(tmp_path / "real")
    result = CliRunner().invoke(app, ["report", str(dataset), "--real", str(real)])
    assert result.exit_code == 0, result.output
    words = Page(dataset / "report/index.html").words
    assert "ratio" in words
    assert words.count("1.00") == 19  # the same voxels
    assert result.output.strip().endswith("index.html")


def test_images_stand_beside_photographs(tmp_path: Path) -> None:
    real = write_street_root(tmp_path / "real", train=6)
    for frame in (real / "sequences/00/image_2").iterdir():  # the encoder wants 40 px
        write_image(frame, np.random.default_rng(int(frame.stem)).integers(0, 256, (60, 120, 3), np.uint8))
    build, names = open_root(write_finished_build(tmp_path / "build")), [f"00/{k:06d}" for k in range(4)]
    for kind, values in (("image_2", (0, 256)), ("render_2", (100, 110))):
        for k in range(4):
            image = np.random.default_rng(50 + k).integers(*values, (60, 120, 3), np.uint8)
            write_image(build.path / f"sequences/00/{kind}/{k:06d}.png", image)
    table = photograph_table(build, names, False, real)
    assert table is not None
    assert [row[:2] for row in table.rows] == [
        ["generated", "4 : 4"],
        ["bare renders", "4 : 4"],
        ["photographs: a half against the other", "2 : 2"],
    ]
    drawn, renders = (float(row[4].split(" ± ")[0]) for row in table.rows[:2])
    assert drawn < renders  # noise is like noise, grey isn't
    assert "Photographs of real, split train, scaled to 120x60 px" in table.note
    assert "No FID" in table.note
    assert photograph_table(build, names, False, write_street_root(tmp_path / "bare", photographs=False)) is None
    assert photograph_table(build, names[:1], False, real) is None


def test_images_of_one_scene_are_one_row(dataset: Path) -> None:
    table = json.loads((dataset / "manifest.json").read_text())
    for index, row in enumerate(table["samples"]):
        row["provenance"] |= {"scene": index // 2, "scene_image": index % 2}
    (dataset / "manifest.json").write_text(json.dumps(table))
    found = shown_scenes(measured(open_root(dataset), read_manifest(dataset)))
    assert found == {NAMES[0]: [NAMES[1]], NAMES[2]: [NAMES[3]], NAMES[4]: [NAMES[5]]}
    words = Page(write_report(dataset)).words
    assert f"image, {NAMES[1]}" in words
    assert any(word.startswith("3 of 6") for word in words)


@pytest.mark.parametrize("option", ["--scenes", "--ssc"])
def test_a_wrong_table_is_one_line_and_the_old_report_stays(dataset: Path, tmp_path: Path, option: str) -> None:
    index = write_report(dataset)
    before = index.read_bytes()
    wrong = tmp_path / "wrong.json"
    for content in ('{"rows": 1, "facts": [], "counts": 2}', "[]", "no JSON"):
        wrong.write_text(content)
        result = CliRunner().invoke(app, ["report", str(dataset), option, str(wrong)])
        assert isinstance(result.exception, InputError)
        assert "\n" not in str(result.exception)
    assert index.read_bytes() == before
    assert verify_dataset(dataset, views=False) == []


def test_times_are_summed_over_runs_and_torn_lines_are_passed_over(tmp_path: Path) -> None:
    for _ in range(2):
        timed(tmp_path)
    path = tmp_path / ".build" / LOG_NAME
    with open(path, "a") as log:
        log.write('{"stage": "views", "sec')
    found = read_timing(path)
    assert found is not None
    assert (found.runs, found.workers) == (2, 2)
    assert [(stage.name, stage.jobs) for stage in found.stages] == [("views", 6), ("manifest", 2)]
    assert found.stages[0].seconds == 9.0
    assert read_timing(tmp_path / "nothing") is None


def test_samples_are_evenly_spaced() -> None:
    names = [str(k) for k in range(10)]
    assert evenly(names, 4) == ["0", "3", "6", "9"]
    assert evenly(names, 1) == ["0"]
    assert evenly(names, 0) == []
    assert evenly(names, 99) == names


def test_figures_are_told_in_units_that_read_well() -> None:
    assert [duration(s) for s in (0.1234, 59.6, 150, 7200)] == ["0.123 s", "60 s", "2.5 min", "2.0 h"]
    assert [size(n) for n in (12, 1500, 2.5e9)] == ["12 B", "1.5 kB", "2.5 GB"]
