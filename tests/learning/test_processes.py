"""Real processes: killed and continued, and two at once."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.learning.resume import checkpoints
from tests.learning.toy_run import run

SCRIPT = Path(__file__).with_name("toy_run.py")
ROOT = SCRIPT.parents[2]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", **more}


def command(out, **fields):
    return [sys.executable, str(SCRIPT), str(out), json.dumps(fields)]


def kill_after_first_checkpoint(out, **fields) -> None:
    """SIGKILL the whole group in the midst of the steps after the first checkpoint."""
    slow = environment(TOY_SECONDS_A_SAMPLE="0.02")
    child = subprocess.Popen(command(out, **fields), env=slow, stdout=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while len((out / "losses.jsonl").read_text().splitlines() if (out / "losses.jsonl").exists() else []) < 4:
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()


def test_killed_and_continued_ends_in_the_same_bits(tmp_path) -> None:
    """With a loader process, against a run that loads its data itself."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, steps=9, accumulation=2)
    kill_after_first_checkpoint(killed, steps=9, accumulation=2, workers=1)
    assert checkpoints(killed)[-1].name < "step_00000009"
    again = subprocess.run(
        command(killed, steps=9, accumulation=2, workers=1), env=environment(), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    assert again.stdout.startswith("continuing after step")
    assert (killed / "losses.jsonl").read_bytes() == (whole / "losses.jsonl").read_bytes()
    for part in ("model", "ema", "optimizer"):
        files = [checkpoints(side)[-1] / f"{part}.safetensors" for side in (whole, killed)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_terminal_gets_a_bar_with_rate_and_time_left(tmp_path) -> None:
    reader, terminal = pty.openpty()
    child = subprocess.Popen(
        command(tmp_path, steps=6),
        env=environment(TERM="xterm", COLUMNS="160", TOY_SECONDS_A_SAMPLE="0.03"),
        stdout=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(reader, 4096):
            shown += piece
    os.close(reader)
    assert child.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"training .* 6/6 [\d.]+ steps/s 0:00:\d\d left 0:00:00 loss [\d.]+", text)


def test_two_processes_share_the_data_and_end_like_one(tmp_path) -> None:
    fields = {"steps": 6, "plain": True, "batch_size": 8}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    noted = {"TOY_SEEN": str(tmp_path / "seen"), "TOY_AT_EXIT": str(tmp_path / "joined")}
    env = environment(PYTHONWARNINGS="default", **noted)  # the launcher has warnings of its own
    both = subprocess.run([*launch, *command(tmp_path / "two", **fields)], env=env, capture_output=True, text=True)
    assert both.returncode == 0, both.stderr
    said = both.stdout.splitlines()
    assert len(said) == 6, both.stdout  # one of them speaks
    assert all(line.startswith("step") for line in said)
    assert [(tmp_path / f"joined{rank}").read_text() for rank in (0, 1)] == ["False", "False"]  # else gloo may abort

    os.environ["TOY_SEEN"] = str(tmp_path / "alone")
    try:
        _, one = run(tmp_path / "one", **fields)
    finally:
        del os.environ["TOY_SEEN"]
    halves = zip(
        (tmp_path / "seen0").read_text().split("\n"), (tmp_path / "seen1").read_text().split("\n"), strict=True
    )
    together = [f"{first} {second}".strip() for first, second in halves]
    assert together == (tmp_path / "alone").read_text().split("\n")

    two = [json.loads(line)["loss"] for line in (tmp_path / "two" / "losses.jsonl").read_text().splitlines()]
    assert two == pytest.approx([row["loss"] for row in one.losses], rel=1e-4)
    for part in ("model", "ema"):
        a, b = (load_file(checkpoints(tmp_path / side)[-1] / f"{part}.safetensors") for side in ("one", "two"))
        for name, value in a.items():
            assert b[name].numpy() == pytest.approx(value.numpy(), rel=1e-3, abs=1e-6)
