"""The submission zip: what the benchmark's validator asks for, the same bytes twice, and every way to get it wrong."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy
from ssc_eval.predictions import prediction_path, write_prediction
from ssc_eval.submission import required, submission_faults, write_submission

TAXONOMY = load_taxonomy("semantic_kitti")
GRID = VoxelGrid((8, 8, 4), 1.6, (0.0, -6.4, -2.0))
SEQUENCES = tuple(str(n) for n in range(11, 22))
KEYS = tuple((s, f) for s in SEQUENCES for f in (("000000", "000005") if s == "11" else ("000010",)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("root")
    for sequence, frame in (*KEYS, ("08", "000000")):
        write_frame(path, Frame(sequence, frame, GRID, TAXONOMY, scan=np.zeros(GRID.shape, bool)))
    write_layout(path, GRID)
    return path


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for key in KEYS:
        write_prediction(tmp_path / "p", key, rng.integers(0, 20, GRID.shape, dtype=np.uint8), TAXONOMY)
    return tmp_path / "p"


def asked(archive: zipfile.ZipFile, root: Path) -> list[str]:
    """What the benchmark's validator asks of a completion zip, by its description: folders, sizes, nothing else."""
    names = archive.namelist()
    folders = (
        ["sequences/"] + [f"sequences/{n}/" for n in SEQUENCES] + [f"sequences/{n}/predictions/" for n in SEQUENCES]
    )
    faults = [f"no {name}" for name in folders if name not in names]
    bins = sorted(path for n in SEQUENCES for path in (root / "sequences" / n / "voxels").glob("*.bin"))
    for path in bins:
        name = f"sequences/{path.parts[-3]}/predictions/{path.stem}.label"
        if name not in names or archive.getinfo(name).file_size / 2 != 8 * path.stat().st_size:
            faults.append(name)
    others = [name for name in names if not name.endswith("/") and name != "description.txt"]
    return faults if len(others) == len(bins) else [*faults, "files that aren't needed"]


def test_the_zip_is_what_the_validator_asks_for(root: Path, predictions: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    out = tmp_path / "out.zip"
    count, size = write_submission(predictions, root, out, lambda done, total: calls.append((done, total)))
    assert (count, size) == (12, out.stat().st_size)
    assert calls[-1] == (12, 12)
    assert required(open_root(root)) == KEYS
    with zipfile.ZipFile(out) as archive:
        assert asked(archive, root) == []
        assert archive.testzip() is None
        for key in KEYS:
            inside = archive.read(f"sequences/{key[0]}/predictions/{key[1]}.label")
            assert inside == prediction_path(predictions, *key).read_bytes()
        assert all(info.is_dir() == info.filename.endswith("/") for info in archive.infolist())
    assert list(submission_faults(out, root)) == []


def test_the_same_predictions_give_the_same_bytes(root: Path, predictions: Path, tmp_path: Path, monkeypatch) -> None:
    write_submission(predictions, root, tmp_path / "a.zip")
    for path in predictions.rglob("*.label"):
        path.write_bytes(path.read_bytes())  # new times
        path.chmod(0o600)
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    write_submission(predictions, root, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def repacked(source: Path, out: Path, change) -> Path:
    """The zip with `change(names -> contents)` applied; None as a content leaves an entry out."""
    with zipfile.ZipFile(source) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    change(contents)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out


FIRST = "sequences/11/predictions/000000.label"
BROKEN = {
    "no folder": (lambda c: c.pop("sequences/14/predictions/"), "sequences/14/predictions/: no entry of its own"),
    "missing": (lambda c: c.pop(FIRST), f"{FIRST}: missing"),
    "extra": (
        lambda c: c.update({"sequences/11/predictions/x.label": b""}),
        "sequences/11/predictions/x.label: nothing",
    ),
    "other sequence": (
        lambda c: c.update({"sequences/08/predictions/000000.label": c[FIRST]}),
        "sequences/08/predictions/000000.label: nothing",
    ),
    "uint8": (lambda c: c.update({FIRST: c[FIRST][::2]}), f"{FIRST}: 256 bytes, 512 expected"),
    "class ids": (lambda c: c.update({FIRST: b"\x02\x00" * 256}), f"{FIRST}: unknown raw id 2"),
    "ignored id": (lambda c: c.update({FIRST: b"\x63\x00" * 256}), f"{FIRST}: a raw id that isn't scored"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_every_fault_is_said(root: Path, predictions: Path, tmp_path: Path, case: str) -> None:
    whole = tmp_path / "whole.zip"
    write_submission(predictions, root, whole)
    change, said = BROKEN[case]
    faults = list(submission_faults(repacked(whole, tmp_path / "broken.zip", change), root))
    assert len(faults) == 1
    assert faults[0].startswith(said)


def test_damage_names_and_notes(root: Path, predictions: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.zip"
    write_submission(predictions, root, whole)
    noted = repacked(whole, tmp_path / "noted.zip", lambda c: c.update({"description.txt": b"ours"}))
    assert list(submission_faults(noted, root)) == []
    content = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        start = archive.getinfo(FIRST).header_offset
    content[start + 30 + len(FIRST) + 20] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(content)
    (fault,) = submission_faults(tmp_path / "damaged.zip", root)
    assert fault.startswith(f"{FIRST}: can't be read (")
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-40])
    assert [f.split("(")[0] for f in submission_faults(tmp_path / "cut.zip", root)] == [
        f"{tmp_path / 'cut.zip'}: no zip that can be read "
    ]
    renamed = tmp_path / "whole.tgz"
    renamed.write_bytes(whole.read_bytes())
    assert list(submission_faults(renamed, root)) == ["whole.tgz: the name must end in .zip"]


def test_nothing_is_packed_that_would_be_refused(root: Path, predictions: Path, tmp_path: Path) -> None:
    path, out = prediction_path(predictions, *KEYS[3]), tmp_path / "out.zip"
    good = path.read_bytes()
    for content, said in (
        (good[:-2], "512 bytes"),
        (b"\x02\x00" * 256, "unknown raw id 2"),
        (b"\x01\0" * 256, "isn't"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            write_submission(predictions, root, out)
    path.unlink()
    with pytest.raises(InputError, match=r"1 missing: sequences/13/predictions/000010\.label"):
        write_submission(predictions, root, out)
    path.write_bytes(good)
    prediction_path(predictions, "11", "000001").write_bytes(good)
    with pytest.raises(InputError, match=r"1 others: sequences/11/predictions/000001\.label"):
        write_submission(predictions, root, out)
    with pytest.raises(InputError, match=r"ending in \.zip"):
        write_submission(predictions, root, tmp_path / "out.tar")
    assert not list(tmp_path.glob("*out*"))


def test_all_eleven_sequences_are_needed(tmp_path: Path, predictions: Path) -> None:
    write_frame(tmp_path / "r", Frame("11", "000000", GRID, TAXONOMY, scan=np.zeros(GRID.shape, bool)))
    write_layout(tmp_path / "r", GRID)
    with pytest.raises(InputError, match=r"sequences 11 to 21, found none in 12"):
        write_submission(predictions, tmp_path / "r", tmp_path / "out.zip")
