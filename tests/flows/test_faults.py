"""A few of `make faults`: real builds killed from outside at seeded moments, or damaged, end as the undisturbed one."""

from pathlib import Path

import pytest

from tests.faults.building import Build, undisturbed
from tests.faults.scenarios import flipped_byte, kills, moments

KILLS, IN_A_ROW = 8, 2


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Build:
    return undisturbed(tmp_path_factory.mktemp("faults"))


def test_kills_of_the_process_group_at_seeded_moments(plain: Build, tmp_path: Path) -> None:
    lines = list(kills(plain, tmp_path, moments(7, KILLS, plain.seconds), IN_A_ROW))
    assert len(lines) == KILLS // IN_A_ROW
    assert sum(line.count("had ended") for line in lines) < KILLS // 2  # most were at work


def test_a_flipped_bit_in_a_finished_shard(plain: Build, tmp_path: Path) -> None:
    assert len(list(flipped_byte(plain, tmp_path / "out"))) == 1
