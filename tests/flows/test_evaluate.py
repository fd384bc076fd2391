"""Sets of scenes measured: fresh, eaten and copied ones come out in the right order; what is written; refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from flows import evaluate_cli, rate_cli
from flows.evaluate import (
    FLOOR,
    FLOOR_HALVES,
    FLOOR_TRAIN,
    REFERENCE,
    EvaluateRecipe,
    Evaluation,
    evaluate,
    scene_sets,
)
from flows.evaluate_jobs import chunks, features_job, joined
from flows.evaluate_report import write_evaluation
from flows.report_tables import scene_section
from flows.scene_sets import drawn, folder_set, halves, split_set
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.metrics.encoder3d import EncoderConfig, SceneAutoencoder, SceneEncoder
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

GRID = VoxelGrid((24, 24, 8), 0.4, (0.0, -4.8, -2.0))
TAXONOMY = load_taxonomy("semantic_kitti")
ROAD, CAR, WALL = (TAXONOMY.id_of(name) for name in ("road", "car", "building"))


def street(seed: int, eaten: float = 0.0, floating: bool = False) -> Scene:
    """A road, a wall of some height and two cars; a share of the cars' voxels may be eaten by the wall's class."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, 4:20, 0] = ROAD
    labels[:, rng.integers(20, 23) :, : rng.integers(3, 8)] = WALL
    for y in (5, 12):
        x = rng.integers(1, 14)
        labels[x : x + rng.integers(7, 10), y : y + 4, 1:4] = CAR
    labels[(labels == CAR) & (rng.random(GRID.shape) < eaten)] = WALL
    if floating:
        labels[rng.integers(2, 20), 10, 6] = CAR
    return Scene(labels, GRID, TAXONOMY)


def write_root(path: Path, scenes: dict[str, list[Scene]], splits: dict[str, list[str]]) -> Path:
    """scenes by sequence."""
    for sequence, members in scenes.items():
        for k, scene in enumerate(members):
            write_frame(path, frame_of(scene, sequence, f"{k:06d}"))
    write_layout(path, GRID, splits)
    return path


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch) -> None:
    monkeypatch.setattr("flows.evaluate_report.SHOWN", 1)


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """A real root (16 train, 20 val scenes in drives), and generated folders: fresh, eaten, copied."""
    folder = tmp_path_factory.mktemp("roots")
    sizes = {"00": 8, "01": 8, "08": 10, "2001": 10}
    drives = {s: [street(100 * k + n) for n in range(size)] for k, (s, size) in enumerate(sizes.items())}
    real = write_root(folder / "real", drives, {"train": ["00", "01"], "val": ["08", "2001"]})
    kinds = {
        "fresh": [street(900 + n) for n in range(14)],
        "eaten": [street(900 + n, eaten=0.4, floating=True) for n in range(15)],
        "copied": (drives["00"] + drives["01"])[:14],
    }
    made = {name: write_root(folder / name, {"00": scenes}, {"train": ["00"]}) for name, scenes in kinds.items()}
    return {"real": real, **made}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """An untrained 3D encoder with three features."""
    torch.manual_seed(0)
    config = EncoderConfig(shape=GRID.shape, classes=len(TAXONOMY.classes), width=8, channels=4, features=3)
    size = 2 * config.channels
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(size, 3)))[0]
    folder = tmp_path_factory.mktemp("encoder") / "weights"
    SceneEncoder(config, SceneAutoencoder(config).eval(), np.zeros(size), axes, {}).save(folder)
    return folder


def recipe(roots: dict[str, Path], encoder: Path | None, *names: str) -> EvaluateRecipe:
    return EvaluateRecipe(
        real=roots["real"], generated=tuple(roots[n] for n in names), encoder=encoder, image_features=4
    )


@pytest.fixture(scope="module")
def found(roots, encoder) -> Evaluation:
    return evaluate(recipe(roots, encoder, "fresh", "eaten", "copied"))


def test_rows_and_their_sizes(found) -> None:
    assert [row.name for row in found.rows] == ["fresh", "eaten", "copied", FLOOR_TRAIN, FLOOR_HALVES]
    assert [(row.scenes, row.reference_scenes) for row in found.rows] == [(14, 20)] * 4 + [(10, 10)]
    assert [count for _, _, count, _ in found.sets] == [14, 14, 14, 14, 20]


def test_eaten_scenes_score_worse_on_every_measure(found) -> None:
    fresh, eaten = (row.figures for row in found.rows[:2])
    for key in ("F3D", "K3D", "FID both", "FID above", "FID oblique", "KID both", "class KL"):
        assert eaten[key] > fresh[key], key
    assert eaten["invasion"] < fresh["invasion"] - 2
    assert eaten["foreground share"] < 0.8 * fresh["foreground share"]


def test_the_floor_is_near_fresh_scenes(found) -> None:
    fresh, eaten, floor = (found.rows[k].figures for k in (0, 1, 3))
    assert floor["FID both"] < 0.5 * eaten["FID both"]
    assert floor["invasion"] > 8
    assert fresh["class KL"] < 10 * floor["class KL"] + 0.01


def test_copies_are_told_from_new_scenes(found) -> None:
    fresh, _, copied, floor = (row.figures for row in found.rows[:4])
    assert copied["nearest"] == 0
    assert copied["copied"] == copied["copied (train)"] == 1
    assert fresh["nearest"] > 0
    assert fresh["copied"] < 0.4
    assert floor["nearest"] > 0  # other drives alone


def test_counts_stand_beside_real_ones(found) -> None:
    rows = {row.name: row for row in found.counts}
    cars = rows["car: instances a scene"]
    assert cars.real == 2
    assert cars.near(0)
    assert cars.values[0] == 2
    assert len(cars.values) == 4  # three folders, and training scenes as floor
    assert cars.near(3)
    assert not rows["car: mean size [voxels]"].near(1)
    assert rows["floating share"].real == 0
    assert rows["floating share"].near(0)
    assert not rows["floating share"].near(1)
    assert not any("bicycle" in name for name in rows)  # real has none


def test_missing_figures_say_why(found) -> None:
    assert all("IS" not in row.figures and "class head" in row.notes["IS"] for row in found.rows)


def test_training_drives_as_reference(roots) -> None:
    given = recipe(roots, None, "fresh").model_copy(update={"reference": "train", "scenes": 7})
    sets = scene_sets(given)
    assert {len({s for s, _ in sets[name].keys}) for name in (REFERENCE, FLOOR)} == {1}
    assert {s for s, _ in sets[REFERENCE].keys} != {s for s, _ in sets[FLOOR].keys}
    found = evaluate(given)
    assert [row.name for row in found.rows] == ["fresh", FLOOR_TRAIN, FLOOR_HALVES]
    assert found.rows[0].figures["copied"] < 1
    assert found.rows[1].figures["nearest"] > 0


def test_features_do_not_depend_on_how_the_work_is_cut(roots, encoder, monkeypatch) -> None:
    monkeypatch.setattr("flows.evaluate_jobs.CHUNK", 2)
    scenes, encoders = folder_set(roots["fresh"]).part(range(5)), recipe(roots, encoder, "fresh").encoders()
    parts = chunks(scenes)
    assert [len(part) for part in parts] == [2, 2, 1]
    cut, whole = joined([features_job(part, encoders) for part in parts]), features_job(scenes, encoders)
    assert (cut.solid == whole.solid).all()
    assert all((cut.images[view] == whole.images[view]).all() for view in ("above", "oblique"))


def test_what_is_written(found, tmp_path) -> None:
    write_evaluation(found, tmp_path / "out", "occfactory evaluate-scenes ...")
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert table["rows"][0]["figures"]["F3D"] == pytest.approx(found.rows[0].figures["F3D"])
    assert table["encoders"]["2D"]["name"] == "random-conv-v1"
    assert len(table["encoders"]["3D"]["digest"]) == 64
    assert table["camera"]["oblique"]["size_px"] == [512, 288]
    assert table["sets"][0]["scenes"] == 14
    text = (tmp_path / "out/table.md").read_text()
    for part in ("occfactory evaluate-scenes ...", "| fresh | 14 : 20 |", "F3D", "IS: the image encoder", FLOOR_TRAIN):
        assert part in text
    beside = scene_section(tmp_path / "out/table.json").tables[1]
    assert list(beside.heads) == ["figure", "real", "fresh", "eaten", "copied", FLOOR_TRAIN]
    assert {len(row) for row in beside.rows} == {6}
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("data:image/") == 2 + 4
    assert 'src="data:' in page
    assert "http" not in page
    for name in ("classes.png", "measures.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


# --- sets


def test_halves_part_drives(roots) -> None:
    val = split_set(roots["real"], "val")
    a, b = halves(val, 0)
    assert sorted(a + b) == list(range(20))
    assert [{val.keys[i][0] for i in half} for half in (a, b)] in ([{"08"}, {"2001"}], [{"2001"}, {"08"}])


def test_draws_are_seeded_and_in_order(roots) -> None:
    val = split_set(roots["real"], "val")
    assert drawn(val, 7, 1) == drawn(val, 7, 1) != drawn(val, 7, 2)
    assert list(drawn(val, 7, 1).keys) == sorted(set(drawn(val, 7, 1).keys))
    assert drawn(val, 99, 1) is val


def test_a_digest_knows_the_files(roots, tmp_path) -> None:
    before = folder_set(roots["fresh"]).digest()
    assert before == folder_set(roots["fresh"]).digest()
    assert before != folder_set(roots["eaten"]).digest()


# --- refusals


def test_too_few_scenes(roots, tmp_path) -> None:
    few = write_root(tmp_path / "few", {"00": [street(n) for n in range(3)]}, {"train": ["00"]})
    with pytest.raises(InputError, match=r"few: expected more few scenes than features, 4, found 3"):
        evaluate(EvaluateRecipe(real=roots["real"], generated=(few,), image_features=4))
    with pytest.raises(InputError, match="at least 99 scenes"):
        evaluate(EvaluateRecipe(real=roots["real"], generated=(roots["fresh"],), scenes=99))


def test_another_grid_and_other_encoders(roots, encoder, tmp_path) -> None:
    small = VoxelGrid((20, 24, 8), 0.4, (0.0, -4.8, -2.0))
    scene = Scene(street(0).labels[:20].copy(), small, TAXONOMY)
    for k in range(6):
        write_frame(tmp_path / "small", frame_of(scene, "00", f"{k:06d}"))
    write_layout(tmp_path / "small", small, {"train": ["00"]})
    with pytest.raises(InputError, match=r"the real grid, 24x24x8 voxels of 0.4 m"):
        evaluate(EvaluateRecipe(real=roots["real"], generated=(tmp_path / "small",), image_features=4))
    other = SceneEncoder.load(encoder)
    wrong = replace(other, config=other.config.model_copy(update={"shape": (16, 24, 8)}))
    with pytest.raises(InputError, match="an encoder of"):
        _with_encoder(wrong, recipe(roots, encoder, "fresh"))


def _with_encoder(encoder: SceneEncoder, given: EvaluateRecipe) -> None:
    from flows import evaluate as module

    original = module.scene_encoder
    module.scene_encoder = lambda _: encoder
    try:
        evaluate(given)
    finally:
        module.scene_encoder = original


def test_names_must_differ(roots) -> None:
    folder = roots["fresh"]
    with pytest.raises(InputError, match="different names"):
        evaluate(EvaluateRecipe(real=roots["real"], generated=(folder, folder)))
    with pytest.raises(InputError, match="2, one a folder"):
        evaluate(EvaluateRecipe(real=roots["real"], generated=(folder, folder), names=("a",)))


# --- the command


def test_command(roots, tmp_path) -> None:
    app = typer.Typer()
    evaluate_cli.register(app)
    options = ["--encoder", "none", "--image-features", "4", "--workers", "1", "--novelty-scenes", "6", "--scenes", "6"]
    given = ["--real", str(roots["real"]), "--generated", str(roots["fresh"]), "--name", "ours"]
    arguments = ["evaluate-scenes", *given, *options, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 folders, 3 rows" in result.output
    rows = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert rows[0]["name"] == "ours"
    assert rows[0]["notes"]["F3D"] == "no 3D encoder was given"
    with pytest.raises(InputError, match="a new or empty folder"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_rating_pages_and_their_scores(roots, tmp_path) -> None:
    app = typer.Typer()
    rate_cli.register(app)
    app.command()(lambda: None)  # so that `rate` keeps its name

    def run(*arguments: object) -> str:
        return CliRunner().invoke(app, ["rate", *map(str, arguments)], catch_exceptions=False).output

    folders = ("--generated", roots["fresh"], "--generated", roots["eaten"], "--real", roots["real"])
    assert "6 pictures" in run(*folders, "--each", 2, "--out", tmp_path / "out")
    key = json.loads((tmp_path / "out/key.json").read_text())
    methods = {name: item["method"] for name, item in key["items"].items()}
    assert sorted(methods.values()) == ["eaten", "eaten", "fresh", "fresh", "real", "real"]
    page = (tmp_path / "out/rate.html").read_text()
    assert "eaten" not in page.replace("eaten away", "")
    scores = {name: {"eaten": 2, "fresh": 8, "real": 9}[method] for name, method in methods.items()}
    returned = {"format": "occfactory-ratings-1", "page": key["page"], "rater": "anna", "ratings": scores}
    (tmp_path / "anna.json").write_text(json.dumps(returned))
    output = run(tmp_path / "anna.json", "--key", tmp_path / "out/key.json")
    assert "eaten: mean 2.00, variance 0.00 (2 ratings, 1 raters" in output
    assert "real: mean 9.00" in output
    with pytest.raises(InputError, match="--key"):
        run(tmp_path / "anna.json")
    with pytest.raises(InputError, match="--generated and --out"):
        run()
