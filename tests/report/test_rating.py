"""The rating page gives no method away, needs no network, and its key turns ratings into means and variances."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.report.rating import MethodRating, score_ratings, write_rating_page
from pipeline.scene.errors import InputError

SHADES = {"whole_scene": (10, 20, 30), "comp_d3pm": (200, 30, 40)}


@pytest.fixture
def methods(tmp_path) -> dict[str, list[Path]]:
    """Ten pictures a method, of a shade of its own, with the method's name in the file's metadata."""
    paths: dict[str, list[Path]] = {name: [] for name in SHADES}
    for name, shade in SHADES.items():
        for n in range(10):
            note = PngInfo()
            note.add_text("method", name)
            paths[name].append(tmp_path / f"{name}_{n}.png")
            Image.fromarray(np.full((6, 8, 3), (*shade[:2], n), np.uint8)).save(paths[name][-1], pnginfo=note)
    return paths


def write(tmp_path: Path, methods: dict[str, list[Path]], seed: int = 0, **options: str) -> tuple[dict, dict, str]:
    write_rating_page(tmp_path / "page.html", tmp_path / "key.json", methods, seed, **options)
    text = (tmp_path / "page.html").read_text()
    config = json.loads(re.search(r"^const config = (.*);$", text, re.M)[1])
    return config, json.loads((tmp_path / "key.json").read_text()), text


def test_page_is_blind_shuffled_and_offline(tmp_path, methods) -> None:
    config, key, text = write(tmp_path, methods, title="<script>alert(1)</script>")
    assert not any(name in text for name in SHADES)
    assert "<script>alert(1)" not in text
    assert "http" not in text.replace('http-equiv="', "")
    order = [key["items"][item["name"]]["method"] for item in config["items"]]
    assert sorted(order) == sorted(["comp_d3pm", "whole_scene"] * 10)
    assert order not in (sorted(order), sorted(order, reverse=True))
    for item in config["items"]:
        png = base64.b64decode(item["src"].removeprefix("data:image/png;base64,"))
        assert b"method" not in png
        shade = np.asarray(Image.open(io.BytesIO(png)))[0, 0, :2]
        assert tuple(shade) == SHADES[key["items"][item["name"]]["method"]][:2]


def test_order_depends_on_the_seed_alone(tmp_path, methods) -> None:
    assert write(tmp_path, methods, seed=1)[2] == write(tmp_path, methods, seed=1)[2]
    assert write(tmp_path, methods, seed=1)[1]["items"] != write(tmp_path, methods, seed=2)[1]["items"]


def test_pictures_of_two_sizes_or_none_are_refused(tmp_path, methods) -> None:
    Image.new("RGB", (9, 9)).save(methods["comp_d3pm"][0])
    with pytest.raises(InputError, match="8x6 and 9x9"):
        write(tmp_path, methods)
    methods["comp_d3pm"][0].write_text("no picture")
    with pytest.raises(InputError, match="a picture"):
        write(tmp_path, methods)
    with pytest.raises(InputError, match="none"):
        write(tmp_path, {})


def ratings_file(path: Path, page: str, rater: str, scores: dict[str, int]) -> Path:
    path.write_text(json.dumps({"format": "occfactory-ratings-1", "page": page, "rater": rater, "ratings": scores}))
    return path


def test_scores(tmp_path, methods) -> None:
    _, key, _ = write(tmp_path, methods)
    ours = [name for name, item in key["items"].items() if item["method"] == "comp_d3pm"]
    theirs = [name for name in key["items"] if name not in ours]
    first = ratings_file(tmp_path / "a.json", key["page"], "a", {ours[0]: 9, ours[1]: 7, theirs[0]: 4})
    second = ratings_file(tmp_path / "b.json", key["page"], "b", {ours[0]: 10, ours[1]: 10})
    found = score_ratings(tmp_path / "key.json", [first, second])
    assert found[0] == MethodRating("comp_d3pm", 9.0, 2.0, 4, 2, 2.0)
    assert (found[1].method, found[1].mean, found[1].n, found[1].raters) == ("whole_scene", 4.0, 1, 1)
    assert np.isnan([found[1].variance, found[1].rater_variance]).all()


def test_foreign_ratings_are_refused(tmp_path, methods) -> None:
    _, key, _ = write(tmp_path, methods)
    name = next(iter(key["items"]))
    cases = [
        ("other page", {name: 3}, "ratings of page"),
        (key["page"], {"9999": 3}, "page's pictures"),
        (key["page"], {name: 11}, "0 to 10"),
        (key["page"], {name: True}, "0 to 10"),
    ]
    for page, scores, message in cases:
        with pytest.raises(InputError, match=message):
            score_ratings(tmp_path / "key.json", [ratings_file(tmp_path / "r.json", page, "a", scores)])
    again = [ratings_file(tmp_path / f"{n}.json", key["page"], "a", {name: 3}) for n in range(2)]
    with pytest.raises(InputError, match="one file a rater"):
        score_ratings(tmp_path / "key.json", again)
    with pytest.raises(InputError, match="rating-key"):
        score_ratings(again[0], again)
