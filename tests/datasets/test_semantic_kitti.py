"""SemanticKITTI's layout: conventions worked by hand, an independent reader, round trips, real data."""

import json
import os
from pathlib import Path

import byte_facts
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.datasets.semantic_kitti import (
    PUBLISHED_SPLITS,
    frame_path,
    open_root,
    read_camera,
    read_frame,
    read_frame_image,
    read_scan,
    read_scan_labels,
    read_sequence_calibration,
    write_frame,
    write_frame_calibration,
    write_layout,
)
from pipeline.datasets.voxel_frames import Frame, frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.grid import DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
SMALL = VoxelGrid((4, 3, 2), 0.4, (0.0, -0.6, -2.0))
LABEL = st.sampled_from([*range(20), 255])


def small_frame(labels: np.ndarray, **masks: np.ndarray) -> Frame:
    return Frame("00", "000000", SMALL, TAXONOMY, labels=labels, **masks)


def written(root: Path, frame: Frame) -> Frame:
    write_layout(root, frame.grid)
    write_frame(root, frame)
    return read_frame(open_root(root), frame.sequence, frame.name)


# conventions, by hand


def test_bytes_of_a_small_frame(tmp_path) -> None:
    labels = np.zeros(SMALL.shape, np.uint8)
    labels[0, 0, 1], labels[1, 0, 0], labels[3, 2, 1], labels[0, 2, 0] = 1, 9, 19, 255  # car, road, sign, ignore
    scan = np.zeros(SMALL.shape, bool)
    scan[0, 0, 0] = scan[1, 0, 1] = scan[3, 2, 1] = True  # indices 0, 7 and 23 of (x * 3 + y) * 2 + z
    write_frame(tmp_path, small_frame(labels, scan=scan))
    folder = tmp_path / "sequences/00/voxels"
    assert (folder / "000000.bin").read_bytes() == bytes([0b10000001, 0, 0b00000001])
    assert (folder / "000000.invalid").read_bytes() == bytes([0b00001000, 0, 0])
    raw = [0] * 24
    raw[1], raw[6], raw[23] = 10, 40, 81
    assert (folder / "000000.label").read_bytes() == b"".join(bytes([r % 256, r // 256]) for r in raw)


def test_index_formula_of_the_published_grid(tmp_path) -> None:
    labels = np.zeros(SEMANTIC_KITTI_GRID.shape, np.uint8)
    labels[12, 34, 5] = 15  # vegetation, raw 70
    write_frame(tmp_path, frame_of(Scene(labels, SEMANTIC_KITTI_GRID, TAXONOMY), "08", "000005", scan=labels > 0))
    folder = tmp_path / "sequences/08/voxels"
    flat = 12 * 8192 + 34 * 32 + 5
    label, scan = (folder / "000005.label").read_bytes(), (folder / "000005.bin").read_bytes()
    assert (len(label), len(scan)) == (4_194_304, 262_144)
    assert label[2 * flat] == 70
    assert sum(label) == 70
    assert scan[flat // 8] == 1 << (7 - flat % 8)
    assert sum(map(bool, scan)) == 1


def test_ignored_but_valid_voxels_keep_their_place(tmp_path) -> None:
    labels = np.zeros(SMALL.shape, np.uint8)
    labels[0, 0, :] = 255
    invalid = np.zeros(SMALL.shape, bool)
    invalid[0, 0, 0] = True
    back = written(tmp_path, small_frame(labels, invalid=invalid))
    assert byte_facts.raw_labels(tmp_path / "sequences/00/voxels/000000.label")[:2] == [0, 1]
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_array_equal(back.invalid, invalid)
    np.testing.assert_array_equal(back.valid, labels != 255)


# an independent reader, and round trips


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(np.uint8, SMALL.shape, elements=LABEL), *[arrays(bool, SMALL.shape)] * 3)
def test_independent_reader_and_round_trip(tmp_path, labels, invalid, occluded, scan) -> None:
    back = written(tmp_path, small_frame(labels, invalid=invalid, occluded=occluded, scan=scan))
    folder, expected = tmp_path / "sequences/00/voxels", np.where(invalid, 255, labels)
    assert byte_facts.labels(folder, "000000") == expected.ravel().tolist()
    for suffix, mask in (("invalid", invalid), ("occluded", occluded), ("bin", scan)):
        assert byte_facts.bits(folder / f"000000.{suffix}") == mask.ravel().tolist()
    np.testing.assert_array_equal(back.labels, expected)
    np.testing.assert_array_equal(back.invalid, invalid)
    np.testing.assert_array_equal(back.occluded, occluded)
    np.testing.assert_array_equal(back.scan, scan)
    assert back.grid == SMALL


def test_default_grid_against_the_independent_reader(tmp_path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0] * 20 + [*range(20), 255], np.uint8), DEFAULT_GRID.shape)
    invalid = rng.random(DEFAULT_GRID.shape) < 0.3
    frame = frame_of(Scene(labels, DEFAULT_GRID, TAXONOMY), "00", "000000", invalid=invalid)
    back = written(tmp_path, frame)
    assert byte_facts.labels(tmp_path / "sequences/00/voxels", "000000") == back.labels.ravel().tolist()
    assert back.grid == DEFAULT_GRID
    assert back.scan is None
    assert back.occluded is None


def test_the_same_frame_gives_the_same_bytes(tmp_path) -> None:
    labels = np.random.default_rng(1).integers(0, 20, SMALL.shape, dtype=np.uint8)
    for name in ("a", "b"):
        paths = write_frame(tmp_path / name, small_frame(labels, scan=labels > 0))
    assert paths == [f"sequences/00/voxels/000000.{suffix}" for suffix in ("bin", "invalid", "label")]
    for path in paths:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


# roots: splits, grids, cameras


def test_published_splits_have_the_sequences_on_disk(tmp_path) -> None:
    for sequence in ("01", "08", "13", "99"):
        write_frame(tmp_path, Frame(sequence, "000005", SMALL, TAXONOMY, scan=np.ones(SMALL.shape, bool)))
    write_layout(tmp_path, SMALL)
    root = open_root(tmp_path)
    assert dict(root.splits) == {"train": ("01",), "val": ("08",), "test": ("13",)}
    assert root.frames("val") == (("08", "000005"),)
    assert root.split_of("99") == ""
    assert read_frame(root, "99", "000005").scan.all()  # readable though in no split
    assert sum(map(len, PUBLISHED_SPLITS.values())) == 22
    with pytest.raises(InputError, match="a split of train, val, test"):
        root.frames("dev")


def test_own_splits_and_frame_order(tmp_path) -> None:
    for sequence, frame in (("b", "000010"), ("b", "000002"), ("town", "000000")):
        write_frame(tmp_path, Frame(sequence, frame, SMALL, TAXONOMY, labels=np.ones(SMALL.shape, np.uint8)))
    assert write_layout(tmp_path, SMALL, {"train": ["town", "b"], "val": []}) == ["grid.json", "splits.json"]
    root = open_root(tmp_path)
    assert root.frames("train") == (("town", "000000"), ("b", "000002"), ("b", "000010"))
    assert root.frames("val") == ()
    provenance = read_frame(root, "b", "000010").scene().provenance
    assert provenance == {"source": "semantic_kitti", "split": "train", "sequence": "b", "frame": "000010"}


def test_the_published_grid_needs_no_file(tmp_path) -> None:
    assert write_layout(tmp_path, SEMANTIC_KITTI_GRID) == []


def test_unlabelled_frames_are_read_and_say_so(tmp_path) -> None:
    frame = written(tmp_path, Frame("11", "000000", SMALL, TAXONOMY, scan=np.ones(SMALL.shape, bool)))
    assert frame.labels is None
    assert frame.invalid is None
    with pytest.raises(InputError, match=r"frame 11/000000: expected a labelled frame"):
        frame.scene()


def test_cameras_that_differ_from_frame_to_frame(tmp_path, camera, calibration) -> None:
    (tmp_path / "sequences/00").mkdir(parents=True)
    assert write_frame_calibration(tmp_path, "00", "000005", calibration) == "sequences/00/calib/000005.txt"
    own = read_camera(tmp_path, "00", "000005", size_px=(1220, 370))
    np.testing.assert_array_equal(own.camera_from_world, camera.camera_from_world)
    with pytest.raises(InputError, match=r"calib\.txt"):
        read_camera(tmp_path, "00", "000000", size_px=(1220, 370))


# real data


def test_real_root(real_kitti_root) -> None:
    root = open_root(real_kitti_root)
    assert {split: frames for split in root.splits if (frames := root.frames(split))} == {
        "train": (("07", "000964"),),
        "test": (("11", "000000"),),
    }
    frame = read_frame(root, "07", "000964")
    assert int(frame.scan.sum()) == 8293
    folder = real_kitti_root / "sequences/07/voxels"
    assert frame.labels.ravel().tolist() == byte_facts.labels(folder, "000964")
    assert frame.scan.ravel().tolist() == byte_facts.bits(folder / "000964.bin")
    assert read_frame(root, "11", "000000").labels is None
    points = read_scan(root, "07", "000964")
    raw, instance = read_scan_labels(root, "07", "000964", len(points))
    assert len(points) == len(raw) == 120_485
    assert instance.max() > 0
    index = root.grid.index(points[:, :3].astype(float))
    assert len(np.unique(index[root.grid.contains(index)], axis=0)) == 8293


def test_real_frame_survives_re_export(real_kitti_root, tmp_path) -> None:
    frame = read_frame(open_root(real_kitti_root), "07", "000964")
    back = written(tmp_path, frame)
    np.testing.assert_array_equal(back.labels, frame.labels)
    np.testing.assert_array_equal(back.scan, frame.scan)


def test_real_image_and_camera(real_kitti_root) -> None:
    image = read_frame_image(real_kitti_root, "07", "000964")
    camera = read_camera(real_kitti_root, "07", "000964")
    assert image.shape == (camera.height_px, camera.width_px, 3) == (370, 1224, 3)
    assert image.std() > 20
    assert camera.K[0, 0] == 707.0912


@pytest.mark.parametrize("sequence", [f"{n:02d}" for n in range(22)])
def test_real_cameras_equal_the_matrix_product(real_kitti_root, sequence: str) -> None:
    text = (real_kitti_root / "sequences" / sequence / "calib.txt").read_text()
    rows = {line.split(":")[0]: line.split(":")[1].split() for line in text.splitlines()}
    P2, Tr = (np.array(rows[key], float).reshape(3, 4) for key in ("P2", "Tr"))
    points = np.random.default_rng(0).uniform([3, -20, -2], [50, 20, 3], (200, 3))
    product = np.hstack([np.hstack([points, np.ones((200, 1))]) @ Tr.T, np.ones((200, 1))]) @ P2.T
    camera = read_camera(real_kitti_root, sequence, "000000", size_px=(1220, 370))
    pixels, depth = camera.project(points)
    np.testing.assert_allclose(pixels, product[:, :2] / product[:, 2:], atol=1e-6)
    np.testing.assert_allclose(depth, product[:, 2], atol=1e-9)
    short = read_camera(real_kitti_root, sequence, "000000", size_px=(1220, 370), full_projection=False)
    assert np.linalg.norm(short.project(points)[0] - pixels, axis=1).mean() > 1
    focal = {"03": 721.5377} | dict.fromkeys([f"{n:02d}" for n in range(4, 13)], 707.0912)
    assert camera.K[0, 0] == focal.get(sequence, 718.856)


def test_real_calibration_survives_writing(real_kitti_root, tmp_path) -> None:
    calibration = read_sequence_calibration(real_kitti_root, "04")
    write_frame_calibration(tmp_path, "04", "000000", calibration)
    back = read_sequence_calibration(tmp_path, "04", "000000")
    np.testing.assert_array_equal(back.rectified_from_velodyne, calibration.rectified_from_velodyne)
    for key in ("P0", "P1", "P2", "P3"):
        np.testing.assert_array_equal(back.projections[key], calibration.projections[key])


# malformed input: one line with file, expectation, finding


def healthy(root: Path) -> Path:
    labels = np.random.default_rng(0).integers(0, 20, SMALL.shape, dtype=np.uint8)
    frame = small_frame(labels, occluded=labels > 9, scan=labels > 3)
    write_layout(root, SMALL, {"train": ["00"]})
    write_frame(root, frame)
    return root / "sequences/00/voxels"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000000.label", b"\0" * 47, r"000000\.label: expected uint16 labels of a 4x3x2 grid of 48 bytes, found 47"),
        ("000000.label", b"\0" * 96, r"of 48 bytes, found 96 bytes"),
        ("000000.label", b"\0" * (1 << 21), r"of at most 1048576 bytes, found 2097152 bytes"),
        ("000000.label", b"\2\0" * 24, r"000000\.label: .*unknown raw id 2$"),
        ("000000.label", b"\xff" * 48, r"unknown raw id 65535$"),
        ("000000.invalid", b"", r"000000\.invalid: expected bits of a 4x3x2 grid of 3 bytes, found 0 bytes"),
        ("000000.invalid", None, r"000000\.invalid: .*no such file"),
        ("000000.label", None, r"000000\.label: expected a label for every frame of a labelled .*no such file"),
        ("000000.bin", b"\0" * 4, r"000000\.bin: .* of 3 bytes, found 4"),
        ("000000.occluded", b"\0", r"000000\.occluded: .* of 3 bytes, found 1"),
    ],
)
def test_damaged_voxel_files(tmp_path, name: str, content: bytes | None, message: str) -> None:
    folder = healthy(tmp_path)
    if name == "000000.label" and content is None:  # another frame keeps the sequence labelled
        write_frame(tmp_path, Frame("00", "000005", SMALL, TAXONOMY, labels=np.ones(SMALL.shape, np.uint8)))
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_frame(open_root(tmp_path), "00", "000000")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("grid.json", "{", r"grid\.json: expected a voxel grid in JSON"),
        ("grid.json", "[]", r"grid\.json: expected shape, voxel_size_m and origin_m"),
        ("grid.json", '{"shape": [4, 3], "voxel_size_m": 0.4, "origin_m": [0, 0, 0]}', "expected shape"),
        ("grid.json", '{"shape": [4.5, 3, 2], "voxel_size_m": 0.4, "origin_m": [0, 0, 0]}', "no integer"),
        ("grid.json", '{"shape": [4, 3, 0], "voxel_size_m": 0.4, "origin_m": [0, 0, 0]}', "positive"),
        ("grid.json", '{"shape": [9999, 9999, 9999], "voxel_size_m": 0.4, "origin_m": [0, 0, 0]}', "at most 67108864"),
        ("grid.json", '{"shape": [4, 3, 2], "voxel_size_m": NaN, "origin_m": [0, 0, 0]}', "positive voxel"),
        ("grid.json", '{"shape": [4, 3, 2], "voxel_size_m": 1e400, "origin_m": [0, 0, 0]}', "sane lengths"),
        ("grid.json", '{"shape": [4, 3, 2], "voxel_size_m": 0.4, "origin_m": [0, 0, Infinity]}', "finite origin"),
        ("grid.json", '{"shape": [4, 3, 2], "voxel_size_m": 0.4, "origin_m": [0, 0, 1' + "0" * 5000 + "]}", "JSON"),
        ("grid.json", '{"shape": [4, 3, 2], "voxel_size_m": 0.4, "origin_m": [0, 0, 1' + "0" * 400 + "]}", "Overflow"),
        ("grid.json", "[" * 100_000, "in JSON"),
        ("splits.json", '{"train": "00"}', r"splits\.json: expected \{split: \[sequence"),
        ("splits.json", '{"train": ["00"], "val": ["00"]}', "'00' in two"),
        ("splits.json", '{"train": ["../00"]}', r"expected sequences that lie on disk, found '\.\./00'"),
        ("splits.json", b"\xff\xfe", "in UTF-8, found byte 0xff"),
    ],
)
def test_damaged_root_files(tmp_path, name: str, text: str | bytes, message: str) -> None:
    healthy(tmp_path)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        open_root(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_root(tmp_path) -> None:
    with pytest.raises(InputError, match="expected a semantic_kitti root"):
        open_root(tmp_path / "none")
    (tmp_path / "sequences/00").mkdir(parents=True)
    with pytest.raises(InputError, match=r"sequences: expected frames"):
        open_root(tmp_path)


def test_unknown_sequences_and_frames(tmp_path) -> None:
    healthy(tmp_path)
    root = open_root(tmp_path)
    with pytest.raises(InputError, match=r"a sequence of 00, found '\.\./00'"):
        read_frame(root, "../00", "000000")
    with pytest.raises(InputError, match="a frame of sequence 00, found '000001'"):
        read_frame(root, "00", "000001")


@pytest.mark.parametrize("link", ["sequences", "sequences/01", "sequences/00/voxels", "sequences/00/voxels/000000.bin"])
def test_links_that_lead_out_are_refused(tmp_path, link: str) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    healthy(inside)
    healthy(outside)
    path = inside / link
    if path.exists():
        path.rename(tmp_path / "moved")
    path.symlink_to(outside / "sequences/00" if link == "sequences/01" else outside / link)
    with pytest.raises(InputError, match="a link to"):
        read_frame(open_root(inside), "00", "000000")


def test_links_in_a_circle_are_refused(tmp_path) -> None:
    healthy(tmp_path)
    (tmp_path / "sequences/01").symlink_to(tmp_path / "sequences/01")
    with pytest.raises(InputError, match=r"sequences/01/voxels: expected a path inside"):
        open_root(tmp_path)


def test_paths_out_of_the_root_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="inside"):
        frame_path(tmp_path, "00", "image_2", "../../../x.png")


def test_a_pipe_is_not_waited_for(tmp_path) -> None:
    folder = healthy(tmp_path)
    (folder / "000000.bin").unlink()
    os.mkfifo(folder / "000000.bin")
    with pytest.raises(InputError, match="no regular file"):
        read_frame(open_root(tmp_path), "00", "000000")


def test_frames_that_can_not_be_written(tmp_path) -> None:
    with pytest.raises(InputError, match="labels below 20, or 255, found 77"):
        write_frame(tmp_path, small_frame(np.full(SMALL.shape, 77, np.uint8)))
    with pytest.raises(InputError, match="arrays of shape"):
        small_frame(np.zeros((2, 2, 2), np.uint8))
    assert not list(tmp_path.rglob("*.label"))


def test_grid_file_is_plain_json(tmp_path) -> None:
    write_layout(tmp_path, DEFAULT_GRID)
    table = json.loads((tmp_path / "grid.json").read_text())
    assert table == {"shape": [128, 128, 16], "voxel_size_m": 0.4, "origin_m": [0.0, -25.6, -2.0]}
