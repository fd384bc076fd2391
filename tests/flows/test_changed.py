"""A recipe changed in the same folder: what the change doesn't touch stays, what it does goes, nothing else."""

import json
from pathlib import Path

import pytest

from flows.engine import run_plan
from flows.folder import remove_build
from flows.jobs import RunOptions
from flows.shards import Result, identity
from pipeline.datasets.manifest import MANIFEST_NAME
from pipeline.scene.errors import InputError
from tests.flows.toy_plan import files_of, squares_of, toy_plan


def run(out: Path, options: RunOptions | None = None, shards: int = 3, **recipe) -> list[Result]:
    results: list[Result] = []
    run_plan(toy_plan(out, shards, **recipe), "none", 1, results.append, options=options or RunOptions())
    return results


CHANGED = RunOptions(changed=True)


def test_a_changed_recipe_is_refused_unless_it_is_said_and_the_difference_is_named(tmp_path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match=r"a toy of this recipe, found one with another plus, title; .*--changed"):
        run(tmp_path, plus=4, title="other")
    assert files_of(tmp_path) == squares_of(3)


def test_a_change_concerns_all_shards(tmp_path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match="--shard-range beside it"):
        run(tmp_path, RunOptions(changed=True, shards=range(1)), plus=4)
    assert files_of(tmp_path) == squares_of(3)


def test_only_what_a_change_touches_is_made_anew(tmp_path) -> None:
    run(tmp_path)
    (tmp_path / MANIFEST_NAME).write_text('{"files": []}')
    assert all(result.skipped for result in run(tmp_path, CHANGED, title="other"))  # no stage reads it
    assert not any(result.skipped for result in run(tmp_path, CHANGED, title="other", plus=4))
    assert files_of(tmp_path) == squares_of(3, plus=4)
    assert all(result.skipped for result in run(tmp_path, title="other", plus=4))  # the folder is this recipe's now


def test_stages_before_the_change_stay_done_in_a_build_that_was_stopped(tmp_path) -> None:
    with pytest.raises(InputError):
        run(tmp_path, fault="input")  # in shard 2's last stage; all first stages are done
    results = run(tmp_path, CHANGED, plus=1)
    assert [r.shard for r in results if r.stage == "numbers" and r.skipped] == [0, 1, 2]
    assert files_of(tmp_path) == squares_of(3, plus=1)


def test_files_of_the_former_recipe_go_and_others_stay(tmp_path) -> None:
    run(tmp_path, shards=5)
    for name in ("pictures/3.png", "mine.txt", "../elsewhere.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    listed = [{"path": "pictures/3.png"}, {"path": "../elsewhere.txt"}, {"path": "squares/0.txt"}]
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"files": listed}))
    run(tmp_path, CHANGED, shards=2, title="other")
    assert files_of(tmp_path) == {**squares_of(2), "mine.txt": b"x"}
    assert (tmp_path.parent / "elsewhere.txt").exists()
    assert not (tmp_path / "pictures").exists()


def test_a_change_after_a_kill_amid_the_last_step_leaves_nothing_of_it(tmp_path) -> None:
    def killed() -> None:
        (tmp_path / "half_a_gallery.html").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(toy_plan(tmp_path, 2), "none", 1, lambda r: None, killed)
    run(tmp_path, CHANGED, shards=2, title="other")
    assert files_of(tmp_path) == squares_of(2)


def test_an_identity_holds_what_shapes_its_bytes_alone(tmp_path) -> None:
    plan, titled, other = (toy_plan(tmp_path, **recipe) for recipe in ({}, {"title": "a"}, {"plus": 1}))
    assert identity(plan, 1, 0) == identity(titled, 1, 0)
    assert identity(plan, 0, 0) == identity(other, 0, 0)
    assert len({identity(plan, 1, 0), identity(other, 1, 0), identity(plan, 1, 1), identity(plan, 0, 0)}) == 4


def test_ranges_and_a_last_run_give_the_same_bytes(tmp_path) -> None:
    finished = []

    def ranged(chosen: range | None) -> list[Result]:
        results: list[Result] = []
        plan = toy_plan(tmp_path / "ranges", 5)
        run_plan(plan, "none", 1, results.append, lambda: finished.append(1), RunOptions(shards=chosen))
        return results

    assert {r.shard for r in ranged(range(2, 5))} == {2, 3, 4}
    assert {r.shard for r in ranged(range(0, 2))} == {0, 1}
    assert all(r.skipped for r in ranged(range(0, 2)))  # once more does nothing
    assert not finished
    assert all(r.skipped for r in ranged(None))
    assert finished
    assert files_of(tmp_path / "ranges") == squares_of()
    with pytest.raises(InputError, match="within 0:5"):
        ranged(range(4, 6))


def test_a_failed_builds_folder_is_removed_and_no_other(tmp_path) -> None:
    out, thesis = tmp_path / "build", tmp_path / "thesis"
    with pytest.raises(InputError):
        run(out, fault="input")
    (thesis / ".build").mkdir(parents=True)
    (thesis / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(out)
    (out / "link").symlink_to(thesis)
    for path in (thesis, tmp_path / "link", tmp_path / "nothing", Path("/")):
        with pytest.raises(InputError, match="a build's folder"):
            remove_build(path)
    assert remove_build(out) == 3  # two squares and a link
    assert not out.exists()
    assert (thesis / "thesis.txt").exists()
    run(out)
    (out / MANIFEST_NAME).write_text("{}")
    with pytest.raises(InputError, match="--finished"):
        remove_build(out)
    remove_build(out, finished=True)
    assert not out.exists()
