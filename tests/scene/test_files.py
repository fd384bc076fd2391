"""Atomic writes, paths that stay inside, digests, seeds."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_path, data_path, digest_of, require_empty, safe_join, sha256_file, write_atomic
from pipeline.scene.seeds import integer_seed, rng, seed_sequence


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "a" / "file"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file"]


def test_a_process_killed_in_the_middle_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    code = (
        "import os, signal, sys, pathlib\nfrom pipeline.scene.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"


@pytest.mark.parametrize("bad", ["../x", "a/../../x", "/etc/passwd", "a\\b", "a\0b"])
def test_paths_that_lead_out_are_refused(tmp_path, bad: str) -> None:
    with pytest.raises(InputError, match="inside"):
        safe_join(tmp_path, bad)


def test_links_that_lead_out_are_refused_and_inner_ones_are_not(tmp_path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "inner").symlink_to(root / "real")
    (root / "outer").symlink_to(tmp_path)
    assert safe_join(root, "inner/x") == root / "inner" / "x"
    with pytest.raises(InputError, match="a link to"):
        safe_join(root, "outer/x")


def test_digests(tmp_path) -> None:
    write_atomic(tmp_path / "x", b"abc")
    # FIPS 180-2's example
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of({"a": 1, "b": [1.5]}) == digest_of({"b": [1.5], "a": 1}) != digest_of({"a": 1, "b": [1.25]})
    with pytest.raises(ValueError, match="JSON"):
        digest_of(float("nan"))


def test_require_empty(tmp_path) -> None:
    require_empty(tmp_path / "new")
    require_empty(tmp_path)
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="new or empty"):
        require_empty(tmp_path)
    with pytest.raises(InputError, match="new or empty"):
        require_empty(tmp_path / "x")


def test_shipped_data_is_found() -> None:
    assert data_path("taxonomies/semantic_kitti.toml").is_file()
    with pytest.raises(InputError, match="nothing"):
        data_path("taxonomies/none.toml")


def test_errors_are_one_line_and_cross_process_borders() -> None:
    error = pickle.loads(pickle.dumps(InputError("a", "b\nc", "d", "e")))
    assert str(error) == "a: expected b c, found d; e"


def test_seed_tree_is_pinned_and_its_branches_differ() -> None:
    assert seed_sequence(1, "views", 2).entropy == [
        1,
        339118196,
        2,
        0,
    ]  # SHA-256("views")'s first bytes, little endian
    draws = {
        float(rng(*node).random()) for node in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", 0, 1)]
    }
    assert len(draws) == 5
    assert rng(3, "a", 4).random() == rng(3, "a", 4).random()
    seeds = np.array([integer_seed(0, "a", k) for k in range(1000)])
    assert seeds.min() >= 0
    assert len(set(seeds.tolist())) == 1000
