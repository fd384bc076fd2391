"""The viewer's page: its data, and in a real browser its faces, slider, legend, linked cameras and widths."""

import base64
import io
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.report.viewer import ViewedScene, packed, viewed, viewer_page, write_viewer
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
CAR, ROAD, BUILDING = (TAXONOMY.id_of(name) for name in ("car", "road", "building"))
GRID = VoxelGrid((12, 10, 6), 0.5, (0.0, -2.5, -1.0))
READY = "document.querySelector('#stage').dataset.ready"
FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"  # drawn by then


def street() -> np.ndarray:
    """A road, a car on it, a hollow house."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0] = ROAD
    labels[2:5, 2:4, 1:3] = CAR
    labels[6:11, 4:9, 1:6] = BUILDING
    labels[7:10, 5:8, 1:5] = 0
    return labels


def steps() -> np.ndarray:
    """Noise, half noise, the street."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, len(TAXONOMY.classes), GRID.shape, dtype=np.uint8)
    return np.stack([noise, np.where(rng.random(GRID.shape) < 0.5, noise, street()), street()])


def photograph() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (120, 40), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def faces_of(labels: np.ndarray, hidden: tuple[int, ...] = ()) -> int:
    """Faces between a shown voxel and one that isn't, counted along the three axes."""
    shown = np.pad((labels != 0) & ~np.isin(labels, hidden), 1)
    return sum(int((np.diff(shown.astype(np.int8), axis=axis) != 0).sum()) for axis in range(3))


def config_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="config">(.*?)</script>', text, re.S)[1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_frames_are_packed_as_differences(seed: int, count: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)
    changes = np.frombuffer(zlib.decompress(base64.b64decode(packed(frames))), np.uint8).reshape(frames.shape)
    np.testing.assert_array_equal(np.cumsum(changes, axis=0, dtype=np.uint8), frames)


def test_page_is_whole_and_escapes_what_it_is_given() -> None:
    evil = "</script><script>alert(1)</script>"
    scene = ViewedScene(evil, steps(), GRID, TAXONOMY, photograph(), ("a", evil, "c"))
    text = viewer_page([scene], f"<b>{evil}")
    assert "alert(1)</script>" not in text
    assert "<b>" not in text
    assert not re.search(r"""(src|href)=|url\(|https?:|@import""", text)
    (written,) = config_of(text)["scenes"]
    assert (written["name"], written["frames"], written["shape"]) == (evil, 3, list(GRID.shape))
    assert written["picture"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": street()}, "uint8 frames"),
        ({"frames": steps().astype(int)}, "uint8 frames"),
        ({"frames": steps()[:, :4]}, "uint8 frames"),
        ({"frames": np.full((1, *GRID.shape), 77, np.uint8)}, "labels below 20, or 255, found 77"),
        ({"captions": ("one",)}, "3 captions"),
        (
            {"frames": np.zeros((1, 1025, 1, 1), np.uint8), "grid": VoxelGrid((1025, 1, 1), 1.0, (0.0, 0.0, 0.0))},
            "1024",
        ),
    ],
)
def test_bad_scenes_are_refused(change: dict, message: str) -> None:
    fields = {"name": "s", "frames": steps(), "grid": GRID, "taxonomy": TAXONOMY}
    with pytest.raises(InputError, match=message):
        ViewedScene(**{**fields, **change})


def test_bad_pages_are_refused() -> None:
    scene = viewed(Scene(street(), GRID, TAXONOMY), "s")
    with pytest.raises(InputError, match="scenes"):
        viewer_page([], "none")
    with pytest.raises(InputError, match="side by side"):
        viewer_page([scene], "none", beside=17)
    other = viewed(Scene(np.zeros_like(street()), GRID, load_taxonomy("carla_sc")), "t")
    with pytest.raises(InputError, match="t: expected the first scene's taxonomy"):
        viewer_page([scene, other], "mixed")
    with pytest.raises(InputError, match="PNG or JPEG"):
        viewer_page([viewed(Scene(street(), GRID, TAXONOMY), "s", b"GIF89a")], "a picture")


def number(page, name: str) -> int:
    return int(page.run(f"document.querySelector('#stage').dataset.{name}"))


def changed(picture: np.ndarray, before: np.ndarray) -> float:
    """Share of pixels that differ by more than the backdrop's dither."""
    return float((np.abs(picture.astype(int) - before) > 8).any(-1).mean())


def tick(page, label: int) -> None:
    page.run(f"document.querySelector('#legend input[data-label=\"{label}\"]').click()")


def test_slider_and_legend_in_a_browser(page, tmp_path) -> None:
    write_viewer(tmp_path / "a.html", [ViewedScene("one", steps(), GRID, TAXONOMY, photograph())], "A draw")
    page.open(tmp_path / "a.html", 760, 480)
    page.wait(READY)
    assert number(page, "faces") == faces_of(street())  # the last frame first
    whole = page.picture("#stage")
    assert len(np.unique(whole.reshape(-1, 3), axis=0)) > 500  # shaded, not blank
    assert page.run("document.querySelector('#pictures img').naturalWidth") == 120
    counts = page.run("[...document.querySelectorAll('#legend li')].map(li => li.querySelector('label').innerText)")
    assert sorted(counts[:3]) == sorted(["road\n120", "car\n12", "building\n89"])

    tick(page, BUILDING)
    assert number(page, "faces") == faces_of(street(), (BUILDING,))
    without = page.picture("#stage")
    assert changed(without, whole) > 0.02
    tick(page, BUILDING)
    assert changed(page.picture("#stage"), whole) < 1e-4

    slide = "(n) => { const s = document.querySelector('#frame'); s.value = n; s.dispatchEvent(new Event('input')); }"
    for n in (0, 1):
        page.run(f"({slide})({n})")
        assert number(page, "faces") == faces_of(steps()[n])
    assert page.run("document.querySelector('#moment').textContent") == "step 2 of 3"
    assert changed(page.picture("#stage"), whole) > 0.05
    page.run("document.querySelector('#none').click()")
    assert number(page, "faces") == 0
    assert page.errors == []
    assert page.requests == []


def test_cameras_are_linked(page, tmp_path) -> None:
    scenes = [viewed(Scene(street(), GRID, TAXONOMY), "") for _ in range(2)]
    write_viewer(tmp_path / "a.html", scenes, "Twice the same", beside=2)
    page.open(tmp_path / "a.html", 760, 360)
    page.wait(READY)
    assert number(page, "faces") == 2 * faces_of(street())
    shots = [page.picture("#stage")]
    page.run("document.querySelector('#canvas').focus()")
    for act in (
        lambda: page.drag((100, 150), (180, 180)),
        lambda: page.drag((100, 150), (120, 160), modifiers=8),  # with shift
        lambda: page.press("ArrowLeft"),
        lambda: page.press("+"),
        lambda: page.call("Input.dispatchMouseEvent", type="mouseWheel", x=400, y=150, deltaX=0, deltaY=-100),
    ):
        act()
        page.run(FRAME)
        shots.append(page.picture("#stage"))
        assert changed(shots[-1], shots[-2]) > 0.02
        colored = np.ptp(shots[-1].astype(int), axis=-1) > 60  # road and car, not the backdrop
        left, right = (half[40:-8, 8:-8] for half in np.split(colored, 2, axis=1))  # without names and focus ring
        assert left.mean() > 0.05
        assert (left != right).mean() < 0.002
    page.press("0")
    page.run(FRAME)
    assert changed(page.picture("#stage")[8:-8, 8:-8], shots[0][8:-8, 8:-8]) < 1e-4
    assert (page.errors, page.requests) == ([], [])


def test_a_click_names_a_voxel_and_a_phone_has_room(page, tmp_path) -> None:
    labels = np.full(GRID.shape, ROAD, np.uint8)
    write_viewer(tmp_path / "a.html", [viewed(Scene(labels, GRID, TAXONOMY), "block")] * 3, "A block", beside=2)
    page.open(tmp_path / "a.html", 390, 844, phone=True)
    page.wait(READY)
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.run("const choice = document.querySelector('#scene'); choice.value = 2")
    page.run("choice.dispatchEvent(new Event('change'))")
    page.wait("document.querySelectorAll('#tiles p').length === 1")
    box = page.box("#canvas")
    middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    page.run(FRAME)
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, **middle, button="left", clickCount=1)
    assert re.fullmatch(
        r"road at -?\d+\.\d, -?\d+\.\d, -?\d+\.\d m", page.run("document.querySelector('#tip').textContent")
    )
    assert (page.errors, page.requests) == ([], [])


def test_without_webgl2_a_line_says_so(page, tmp_path) -> None:
    page.call("Page.addScriptToEvaluateOnNewDocument", source="HTMLCanvasElement.prototype.getContext = () => null")
    write_viewer(tmp_path / "a.html", [viewed(Scene(street(), GRID, TAXONOMY), "one")], "Old")
    page.open(tmp_path / "a.html")
    page.wait(READY)
    assert "no WebGL2" in page.run("document.querySelector('#fault').innerText")
    assert page.run("document.querySelectorAll('#legend li').length") == 3
    assert (page.errors, page.requests) == ([], [])
