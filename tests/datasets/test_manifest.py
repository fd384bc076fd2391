"""The manifest finds a flipped bit, a missing and an extra file, and refuses what is no manifest."""

import pytest

from pipeline.datasets.manifest import (
    MANIFEST_NAME,
    Manifest,
    read_manifest,
    record_files,
    verify_files,
    write_manifest,
)
from pipeline.scene.errors import InputError


@pytest.fixture
def dataset(tmp_path):
    for name in ("a/1.bin", "a/2.bin", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files = record_files(tmp_path, ["b.txt", "a/2.bin", "a/1.bin", "b.txt"])
    manifest = Manifest(recipe={"name": "x"}, recipe_digest="0", build_seed=0, samples=(), files=files)
    write_manifest(tmp_path, manifest)
    return tmp_path


def faults(root) -> dict[str, str]:
    return {path: fault for path, fault in verify_files(root, read_manifest(root)) if fault}


def test_round_trip_and_a_sound_dataset(dataset) -> None:
    assert [file.path for file in read_manifest(dataset).files] == ["a/1.bin", "a/2.bin", "b.txt"]
    assert faults(dataset) == {}


def test_every_kind_of_fault_is_named(dataset) -> None:
    content = bytearray((dataset / "a/1.bin").read_bytes())
    content[0] ^= 1
    (dataset / "a/1.bin").write_bytes(content)
    (dataset / "a/2.bin").write_text("longer than before")
    (dataset / "b.txt").unlink()
    (dataset / "new").touch()
    assert faults(dataset) == {
        "a/1.bin": "content differs from its SHA-256",
        "a/2.bin": "expected 7 bytes, found 18",
        "b.txt": "missing",
        "new": "not in the manifest",
    }


def test_a_path_that_leads_out_is_a_fault_and_not_followed(dataset) -> None:
    manifest = read_manifest(dataset)
    evil = manifest.files[0].model_copy(update={"path": "../outside"})
    write_manifest(dataset, manifest.model_copy(update={"files": (evil,)}))
    assert "inside" in faults(dataset)["../outside"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\xff\xfe", b"{" * 5000, b'{"format": "occfactory-manifest-9"}']
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(InputError, match="an occfactory manifest") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unfinished_build_has_none(tmp_path) -> None:
    with pytest.raises(InputError, match="finish it"):
        read_manifest(tmp_path)
