"""Drawn images measured from the command line: distances, structure, diversity, rows; faults in one line."""

import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import image_cli
from flows.image_distances import FLOOR, distances, mean_pairwise
from flows.image_evaluation import Measures, evaluate_images
from flows.image_samples import Samples, sample_images, samples_recipe
from flows.image_scores import check_folder
from pipeline.datasets.image_files import read_image
from pipeline.metrics.distances import frechet_distance
from pipeline.metrics.encoder2d import RandomConvolutions
from pipeline.scene.errors import InputError
from tests.flows.toy_images import toy_images

FEATURES = 4  # fewer than the ten frames


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two images of each of ten frames, as large as the encoder asks for."""
    toy, out = toy_images(), tmp_path_factory.mktemp("drawn") / "out"
    pairs = {"width_px": 80, "height_px": 40}
    recipe = samples_recipe(toy.weights, toy.root, "val", frames=None, images=2, pairs=pairs, synthesis={"steps": 2})
    sample_images(recipe, out)
    return out


@pytest.fixture(scope="module")
def evaluated(drawn, tmp_path_factory):
    app, out = typer.Typer(), tmp_path_factory.mktemp("evaluated") / "out"
    image_cli.register(app)
    words = ["images", "evaluate", str(drawn), "--critic", str(toy_images().critic), "--out", str(out)]
    result = CliRunner().invoke(app, [*words, "--features", str(FEATURES)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "generated / photograph: mIoU" in result.output
    return out


def features(folder, kind):
    frames = Samples(folder)
    images = [image for k in range(len(frames)) for image in frames[k].images[kind]]
    return RandomConvolutions(FEATURES).features(np.array(images))


def test_distances_are_of_equal_numbers_against_the_frames_photographs(drawn, evaluated):
    table = json.loads((evaluated / "evaluation.json").read_text())
    rows = {row["name"]: row for row in table["distances"]}
    assert list(rows) == ["generated", "render", "reconstruction", FLOOR]
    photographs = features(drawn, "photograph")
    for kind in ("render", "reconstruction"):
        assert rows[kind]["fid"] == pytest.approx(frechet_distance(features(drawn, kind), photographs))
    both = features(drawn, "generated").reshape(10, 2, FEATURES)
    by_seed = [frechet_distance(both[:, k], photographs) for k in range(2)]
    assert [one["fid"] for one in rows["generated"]["sets"]] == pytest.approx(by_seed)
    assert rows["generated"]["fid"] == pytest.approx(np.mean(by_seed))
    assert [(row["images"], row["photographs"]) for row in rows.values()] == [(10, 10)] * 3 + [(5, 5)]
    assert rows["generated"]["kid"] > rows["render"]["kid"]  # hardly trained images are far from anything
    assert "fewer than 8 a feature" in table["note"]


def test_structure_and_diversity_are_told_beside_their_scales(drawn, evaluated):
    table = json.loads((evaluated / "evaluation.json").read_text())
    structure = check_folder(drawn, toy_images().critic)
    assert table["structure"] == json.loads(json.dumps(structure))
    ratio = structure["generated"]["miou"] / structure["reconstruction"]["miou"]
    assert table["ratios"]["generated / reconstruction"]["miou"] == pytest.approx(ratio)
    both = features(drawn, "generated").reshape(10, 2, FEATURES)
    assert table["diversity"]["one scene"] == pytest.approx(np.linalg.norm(both[:, 0] - both[:, 1], axis=1).mean())
    assert table["images_a_frame"] == 2
    assert table["drawn"]["weights_digest"]
    text = (evaluated / "evaluation.md").read_text()
    for words in ("random-conv-v1, 4 features", "split val, seed 0", "| VAE's reconstructions | 10 : 10 |", "rows.jpg"):
        assert words in text


def test_rows_show_condition_images_and_photograph(drawn, evaluated):
    sheet = read_image(evaluated / "rows.jpg")
    frame = Samples(drawn)[0]
    assert sheet.shape == (27 + 4 + 10 * 44 - 4, 5 * 84 - 4, 3)  # a heading, ten rows of five pictures
    shown = [sheet[31:71, k * 84 : k * 84 + 80].astype(int) for k in range(5)]
    expected = [frame.images["render"][0], None, *frame.images["generated"], frame.images["photograph"][0]]
    for found, image in zip(shown, expected, strict=True):
        assert image is None or np.abs(found - image).mean() < 12


def test_photographs_themselves_are_at_no_distance(drawn, tmp_path):
    copy = shutil.copytree(drawn, tmp_path / "copy")
    for path in (copy / "images").iterdir():
        shutil.copyfile(copy / "photographs" / f"{path.stem.rpartition('_')[0]}.png", path)
    table = evaluate_images(copy, tmp_path / "out", Measures(toy_images().critic, features=FEATURES))
    assert table["distances"][0]["fid"] == pytest.approx(0, abs=1e-9)
    assert table["ratios"]["generated / photograph"] == {"miou": 1, "recall": 1}
    assert table["diversity"]["one scene"] == 0 < table["diversity"]["different scenes"]


def test_what_is_not_measured_is_said(drawn, tmp_path):
    one = tmp_path / "one"
    shutil.copytree(drawn, one)
    names = json.loads((one / "samples.json").read_text())
    names["images"] = {name: told for name, told in names["images"].items() if name.endswith("_0")}
    (one / "samples.json").write_text(json.dumps(names))
    table = evaluate_images(one, tmp_path / "out", Measures())
    assert (table["structure"], table["ratios"], table["diversity"]) == (None, None, None)
    assert {row["fid"] for row in table["distances"]} == {None}
    assert "10 are not more than 48" in (tmp_path / "out" / "evaluation.md").read_text()


def test_a_judge_that_taught_the_pipeline_is_refused(drawn, tmp_path):
    table, critic = json.loads((drawn / "samples.json").read_text()), toy_images().critic
    assert table["taught_by"] == []
    shutil.copytree(drawn, tmp_path / "taught")
    table["taught_by"] = [json.loads((critic / "weights/card.json").read_text())["files"]]
    (tmp_path / "taught" / "samples.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="another critic than images were learned with"):
        evaluate_images(tmp_path / "taught", tmp_path / "out", Measures(critic, features=FEATURES))
    assert not (tmp_path / "out").exists()


def test_faults_before_anything_is_encoded(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(RandomConvolutions, "features", lambda *_: pytest.fail("encoded"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    few = tmp_path / "few"
    few.mkdir()
    table = json.loads((drawn / "samples.json").read_text())
    table["images"] = {"08_000000_0": {}}
    (few / "samples.json").write_text(json.dumps(table))
    wrong = [
        (drawn, tmp_path / "full", Measures(), "new or empty"),
        (tmp_path, tmp_path / "out", Measures(), "images sample"),
        (few, tmp_path / "out", Measures(), "at least 2 frames"),
        (drawn, tmp_path / "out", Measures(inception=tmp_path / "none.pt"), "Inception-v3 weights"),
        (drawn, tmp_path / "out", Measures(critic=tmp_path / "none"), "a critic's thresholds"),
        (drawn, tmp_path / "out", Measures(features=1000), "1 to 192 features"),
    ]
    for folder, out, measures, words in wrong:
        with pytest.raises(InputError, match=words) as fault:
            evaluate_images(folder, out, measures)
        assert "\n" not in str(fault.value)
    assert not (tmp_path / "out").exists()


def test_closed_cases():
    square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert mean_pairwise(square) == pytest.approx((4 + 2 * 2**0.5) / 6)
    with pytest.raises(InputError, match="at least 2 images"):
        mean_pairwise(square[:1])
    rows = distances(square[:3], {"same": square[:3]}, seed=0)
    assert [row.name for row in rows] == ["same"]  # three photographs have no two halves
    assert rows[0].fid == pytest.approx(0, abs=1e-12)
