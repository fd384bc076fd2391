"""Occ3D: masks, splits, stable bytes, faults in one line."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.npy_arrays import bytes_array
from pipeline.datasets.occ3d import (
    OCC3D_GRID,
    Occ3dFrame,
    occ3d_frame,
    open_occ3d,
    read_occ3d_frame,
    write_occ3d_annotations,
    write_occ3d_frame,
)
from pipeline.datasets.statistics import dataset_statistics
from pipeline.scene.errors import InputError


def frame(seed: int = 0) -> Occ3dFrame:
    rng = np.random.default_rng(seed)
    semantics = rng.integers(0, 18, OCC3D_GRID.shape, dtype=np.uint8)
    masks = rng.integers(0, 2, (2, *OCC3D_GRID.shape), dtype=np.uint8)
    return Occ3dFrame(semantics, masks[0], masks[1])


def test_masks_say_what_is_valid(tmp_path) -> None:
    stored = frame()
    write_occ3d_frame(tmp_path, "scene-0001", "ab", stored)
    camera = open_occ3d(tmp_path).scene("scene-0001", "ab")
    assert np.array_equal(camera.valid, stored.mask_camera == 1)
    assert np.array_equal(open_occ3d(tmp_path, "lidar").scene("scene-0001", "ab").valid, stored.mask_lidar == 1)
    whole = open_occ3d(tmp_path, "none").scene("scene-0001", "ab").labels
    assert np.array_equal(whole == 0, stored.semantics == 17)  # free is empty
    assert np.array_equal(whole[stored.semantics == 4], np.full((stored.semantics == 4).sum(), 5))  # car
    assert np.allclose(OCC3D_GRID.upper_m, (40, 40, 5.4))


def test_round_trip_and_the_same_bytes(tmp_path) -> None:
    stored = frame(1)
    first = tmp_path / "a" / write_occ3d_frame(tmp_path / "a", "s", "t", stored)
    second = tmp_path / "b" / write_occ3d_frame(tmp_path / "b", "s", "t", stored)
    assert first.read_bytes() == second.read_bytes()
    with np.load(first) as arrays:  # numpy reads it as anyone would
        assert np.array_equal(arrays["semantics"], stored.semantics)
    again = read_occ3d_frame(first)
    for name in ("semantics", "mask_lidar", "mask_camera"):
        assert np.array_equal(getattr(again, name), getattr(stored, name))
    scene = open_occ3d(tmp_path / "a").scene("s", "t")
    write_occ3d_frame(tmp_path / "c", "s", "t", occ3d_frame(scene))
    assert np.array_equal(open_occ3d(tmp_path / "c").scene("s", "t").labels, scene.labels)


def test_splits(tmp_path) -> None:
    for name in ("scene-0001", "scene-0002"):
        write_occ3d_frame(tmp_path, name, "t", frame())
    assert open_occ3d(tmp_path).frames("all") == (("scene-0001", "t"), ("scene-0002", "t"))
    splits = {"train": ("scene-0001", "scene-9999"), "val": ("scene-0002",)}
    write_occ3d_annotations(tmp_path, splits, {"scene-0001": {"t": {"timestamp": "1"}}})
    root = open_occ3d(tmp_path)
    assert root.frames("train") == (("scene-0001", "t"),)
    assert dataset_statistics(root, "val").frames == 1
    with pytest.raises(InputError, match="a split of train, val"):
        root.frames("test")
    for table, message in [
        ({"train_split": 3}, "train_split, a list"),
        ({"val_split": []}, "train_split, a list of scenes, found none"),
        ({"train_split": ["scene-0001"], "val_split": [["scene-0001"]]}, "val_split, a list"),
        ({"train_split": ["scene-0001"], "val_split": ["scene-0001"]}, "'scene-0001' in two"),
    ]:
        (tmp_path / "annotations.json").write_text(json.dumps(table))
        with pytest.raises(InputError, match=message):
            open_occ3d(tmp_path)


def test_the_rest_of_annotations_is_not_parsed(tmp_path) -> None:
    """The published file has poses by the hundred MB: the lists are found behind them, wherever they stand."""
    write_occ3d_frame(tmp_path, "scene-0001", "t", frame())
    infos = '{"scene_infos": {"scene-0001": {"t": {"ego_pose": {"rotation": [1.0, 0.0, 0.0, 0.0]}}}}'
    (tmp_path / "annotations.json").write_text(infos + ', "val_split" : [ "scene-0001" ],\n"train_split":[]}')
    assert open_occ3d(tmp_path).splits == {"train": (), "val": ("scene-0001",)}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_any_frame_comes_back(tmp_path_factory, seed: int) -> None:
    root, stored = tmp_path_factory.mktemp("occ3d"), frame(seed)
    again = read_occ3d_frame(root / write_occ3d_frame(root, "s", "t", stored))
    for name, array in vars(stored).items():
        np.testing.assert_array_equal(getattr(again, name), array)


def test_links_that_leave_the_root_are_refused(tmp_path) -> None:
    write_occ3d_frame(tmp_path / "elsewhere", "s", "t", frame())
    (tmp_path / "root/gts").mkdir(parents=True)
    (tmp_path / "root/gts/s").symlink_to(tmp_path / "elsewhere/gts/s")
    with pytest.raises(InputError, match="a link to"):
        open_occ3d(tmp_path / "root").scene("s", "t")


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def repacked(method: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    """An archive of the three arrays with some files replaced, compressed by `method`."""
    arrays = {f"{name}.npy": bytes_array(array) for name, array in vars(frame()).items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for name, content in (arrays | {f"{name}.npy": content for name, content in files.items()}).items():
            packed.writestr(name, content)
    return buffer.getvalue()


def misnamed() -> bytes:
    """An archive whose directory says that a name is UTF-8, which it isn't."""
    content = bytearray(repacked())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 9] |= 8
    content[entry + 46] = 0xFF
    return bytes(content)


HUGE = (
    b"\x93NUMPY\x01\0\x50\0" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,)}".ljust(79) + b"\n"
)


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("semantics.npy", b"\0" * (1 << 28))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"no archive", "an .npz archive"),
        (lambda: archive(semantics=np.zeros(3, np.uint8)), "uint8 "),
        (lambda: archive(semantics=np.zeros(OCC3D_GRID.shape, np.uint8)), "an array mask_lidar"),
        (
            lambda: archive(**vars(frame()) | {"mask_camera": np.full(OCC3D_GRID.shape, 2, np.uint8)}),
            "masks of 0 and 1",
        ),
        (
            lambda: archive(**vars(frame()) | {"semantics": np.full(OCC3D_GRID.shape, 18, np.uint8)}),
            "unknown raw id 18",
        ),
        (lambda: archive(semantics=np.array([{}], dtype=object)), "a uint8 array in C order"),
        (bomb, "semantics of at most"),
        (misnamed, "an .npz archive"),
        (lambda: repacked(semantics=archive(a=np.zeros(3, np.uint8))), "an array in .npy form"),
        (lambda: repacked(semantics=HUGE), "edges of 1 to 1048576"),
        (lambda: repacked(semantics=HUGE.replace(b"99999999999999", b"1L, 2L        ")), "a .npy header"),
        (lambda: repacked(zipfile.ZIP_LZMA), "stored or deflated"),
        (lambda: repacked(zipfile.ZIP_BZIP2), "stored or deflated"),
    ],
)
def test_faults_are_one_line(tmp_path, content, message: str) -> None:
    path = tmp_path / write_occ3d_frame(tmp_path, "s", "t", frame())
    path.write_bytes(content())
    with pytest.raises(InputError, match=message) as caught:
        open_occ3d(tmp_path).scene("s", "t")
    assert "\n" not in str(caught.value)
