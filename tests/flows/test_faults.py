"""A few of `make faults`: real builds killed from outside at seeded moments, or damaged, end as the undisturbed one."""

from pathlib import Path

import pytest

from tests.faults.building import Build, street, undisturbed, whole_road
from tests.faults.scenarios import flipped_byte, kills, moments

KILLS, IN_A_ROW = 6, 2  # and 2 of the whole road


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Build:
    folder = tmp_path_factory.mktemp("faults")
    return undisturbed(folder, street(folder))


def test_kills_of_the_process_group_at_seeded_moments(plain: Build, tmp_path: Path) -> None:
    early = 0.6 * plain.seconds  # the machine may have been busier then
    lines = list(kills(plain, tmp_path, moments(7, KILLS, early), IN_A_ROW))
    assert len(lines) == KILLS // IN_A_ROW
    assert sum(line.count("had ended") for line in lines) < KILLS // 2  # most were at work


def test_kills_of_a_build_with_every_stage_on(tmp_path: Path) -> None:
    whole = undisturbed(tmp_path, whole_road(tmp_path))
    assert {"model.safetensors", "image_statistics.json"} <= set(whole.expected)
    assert len(list(kills(whole, tmp_path, moments(1, 2, whole.seconds), 1))) == 2


def test_a_flipped_bit_in_a_finished_shard(plain: Build, tmp_path: Path) -> None:
    assert len(list(flipped_byte(plain, tmp_path / "out"))) == 1
