"""What a build's stages declare to read of the recipe is what shapes their bytes: no more is read, the rest is free."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flows.build import STAGES
from flows.recipes import BuildRecipe, SplitSource, TownSource
from flows.shards import Plan, identity
from flows.view_recipe import ViewConfig
from tests.flows.street_root import write_street_root


class Watched(BuildRecipe):
    """A recipe that notes which of its fields are read."""

    read: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in BuildRecipe.model_fields:
            Watched.read.add(name)
        return super().__getattribute__(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_street_root(tmp_path_factory.mktemp("root"), train=2, val=1)


def recipe_of(root: Path, **changes: Any) -> BuildRecipe:
    views = ViewConfig(width_px=32, height_px=16)
    fields = {"name": "a", "samples": 2, "shard_samples": 2, "source": SplitSource(root=root), "views": views}
    return Watched.model_validate({**fields, **changes})


def stage_digests(recipe: BuildRecipe, out: Path) -> dict[str, str]:
    """A digest of each stage's files, all stages run one after another; what each read is checked on the way."""
    declared: set[str] = set()
    digests = {}
    for stage in STAGES:
        declared |= set(stage.reads or ())
        Watched.read.clear()
        files = stage.run(recipe, out, 0)
        assert Watched.read <= declared, f"{stage.name} reads {Watched.read - declared}, which it does not declare"
        digests[stage.name] = hashlib.sha256(b"".join((out / path).read_bytes() for path in sorted(files))).hexdigest()
    return digests


def test_stages_read_what_they_declare_and_bytes_change_with_nothing_else(root: Path, tmp_path: Path) -> None:
    before = stage_digests(recipe_of(root), tmp_path / "before")
    unread = {"name": "b", "description": "other", "gallery_samples": 1}
    assert stage_digests(recipe_of(root, **unread), tmp_path / "unread") == before
    later = {"views": ViewConfig(width_px=48, height_px=16), "monoscene_labels": True}
    after = stage_digests(recipe_of(root, **unread, **later), tmp_path / "later")
    assert [name for name in before if before[name] == after[name]] == ["scenes", "masks"]


def test_every_field_is_declared_once_or_shapes_no_shard() -> None:
    declared = [field for stage in STAGES for field in stage.reads or ()]
    assert len(declared) == len(set(declared))
    assert set(BuildRecipe.model_fields) - set(declared) == {"name", "description", "gallery_samples", "ssc"}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"seed": 1}, "scenes"),
        ({"source": TownSource(mask_poses=2)}, "scenes"),
        ({"shard_samples": 1}, "scenes"),
        ({"threads": 2}, "scenes"),
        ({"views": ViewConfig(width_px=48)}, "views"),
        ({"sequences": 3}, "views"),
        ({"monoscene_labels": True}, "files"),
        ({"gallery_samples": 0}, None),
    ],
)
def test_a_change_reaches_the_first_stage_that_reads_it_and_all_after(root, tmp_path, change, first) -> None:
    plans = [Plan("build", STAGES, recipe_of(root, **changes), tmp_path, 1) for changes in ({}, change)]
    same = [identity(plans[0], index, 0) == identity(plans[1], index, 0) for index in range(len(STAGES))]
    names = [stage.name for stage in STAGES]
    start = len(names) if first is None else names.index(first)
    assert same == [True] * start + [False] * (len(names) - start)


def test_a_frames_files_are_part_of_the_identity_of_its_shard_alone(root: Path, tmp_path: Path) -> None:
    own = write_street_root(tmp_path / "root", train=2, val=1)
    plan = Plan("build", STAGES, recipe_of(own, shard_samples=1), tmp_path / "out", 2)
    before = [identity(plan, len(STAGES) - 1, shard) for shard in range(2)]
    voxels = own / "sequences" / "00" / "voxels"
    for suffix, touched in (("label", 0), ("invalid", 1)):
        path = voxels / f"{touched:06d}.{suffix}"
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        after = [identity(plan, len(STAGES) - 1, shard) for shard in range(2)]
        assert [a == b for a, b in zip(before, after, strict=True)] == [shard != touched for shard in range(2)]
        before = after
    elsewhere = recipe_of(write_street_root(tmp_path / "moved", train=2, val=1), shard_samples=1)
    moved = identity(Plan("build", STAGES, elsewhere, tmp_path, 2), 1, 0)
    original = identity(Plan("build", STAGES, recipe_of(root, shard_samples=1), tmp_path, 2), 1, 0)
    assert moved == original  # the same files, wherever they lie
