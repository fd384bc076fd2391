"""The build's SSC step on a toy dataset: trained, tested beside the prior, found done, done anew where it must be."""

import json
from pathlib import Path

import pytest

from flows.engine import DEFAULTS
from flows.recipes import BuildRecipe, SscStep, TownSource
from flows.report import SSC_FOLDER, SSC_TABLE
from flows.report_ssc import ssc_section
from flows.ssc_step import check_ssc, run_ssc
from flows.timing import LOG_NAME, TimingLog
from pipeline.datasets.manifest import Manifest, SampleRecord, record_files, write_manifest
from pipeline.datasets.semantic_kitti import open_root
from pipeline.datasets.statistics import dataset_statistics
from pipeline.scene.errors import InputError
from tests.ssc_eval.toy_root import write_toy_root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A small root with train and val, listed as a build's."""
    root = write_toy_root(tmp_path / "dataset", {"00": 2, "08": 1}, {"train": ["00"], "val": ["08"]})
    dataset_statistics(open_root(root), "train")  # as a build writes them
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    samples = (SampleRecord(name="00/000000", shard=0, provenance={}),)
    manifest = Manifest(recipe={}, recipe_digest="", build_seed=0, samples=samples, files=record_files(root, files))
    write_manifest(root, manifest)
    return root


def recipe_of(**step: object) -> BuildRecipe:
    ssc = SscStep(recipe="tiny", steps=2, pictures=1, **step)
    return BuildRecipe(name="toy", samples=4, source=TownSource(), val_share=0.5, ssc=ssc)


def done(dataset: Path, recipe: BuildRecipe) -> tuple[dict, list[str]]:
    """The table, and the jobs that were worked for it."""
    path = dataset / ".build" / LOG_NAME
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    run_ssc(recipe, dataset, "none", TimingLog(dataset, 1, 1), True, DEFAULTS)
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads((dataset / SSC_FOLDER / SSC_TABLE).read_text()), [json.loads(line)["stage"] for line in lines]


def test_it_trains_tests_and_finds_itself_done(dataset: Path) -> None:
    table, jobs = done(dataset, recipe_of())
    assert jobs == ["ssc-train", "ssc-test"]
    (test,) = table["tests"]
    assert test["split"] == "val"
    for who in ("network", "prior"):
        assert test[who]["frames"] == test["frames"] > 0
        assert 0 <= test[who]["regions"]["all"]["iou"] <= 1
    assert table["trained"]["steps"] == 2
    for row in table["pictures"]:
        assert (dataset / SSC_FOLDER / row["file"]).is_file()
    assert str(dataset) not in json.dumps(table)
    assert done(dataset, recipe_of())[1] == []
    again, jobs = done(dataset, recipe_of(real=dataset))  # another test, the same network
    assert jobs == ["ssc-test"]
    assert [row["frames"] for row in again["tests"]] == [test["frames"]] * 2
    assert again["tests"][0] == test
    assert "adapted" not in test
    assert again["tests"][1]["adapted"]["regions"] != again["tests"][1]["network"]["regions"]
    assert again["tests"][1]["adapted_to"] == 2
    assert "of 2 real images" in ssc_section(again, dataset / SSC_FOLDER, None).note
    plain, jobs = done(dataset, recipe_of(real=dataset, adapt=0))
    assert jobs == ["ssc-test"]
    assert "adapted" not in plain["tests"][1]


def test_what_cannot_be_done_is_said_before_the_build(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one of published"):
        check_ssc(recipe_of().model_copy(update={"ssc": SscStep(recipe="huge")}))
    with pytest.raises(InputError, match="the build's grid"):
        check_ssc(recipe_of(real=dataset))
    held = write_toy_root(tmp_path / "held", {"08": 1}, {"val": ["08"]})
    with pytest.raises(InputError, match=r"images to adapt to.*ssc\.adapt=0"):
        check_ssc(recipe_of(real=held))
    with pytest.raises(InputError, match="sequences"):
        check_ssc(recipe_of(real=tmp_path))
    check_ssc(recipe_of().model_copy(update={"ssc": None}))


def test_nothing_is_learnt_from_a_damaged_dataset(dataset: Path) -> None:
    label = dataset / "sequences/00/voxels/000001.label"
    label.write_bytes(label.read_bytes()[:-1] + b"\x07")
    with pytest.raises(InputError, match=r"000001\.label: expected what the manifest"):
        done(dataset, recipe_of())
