"""A job brought to its end: tried again after a fault, within its time, with a device of its own if it needs one.

The same function does it in a local thread, a Dask worker and a Ray worker; the work itself is in a process below.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.job_process import FailedJobError, JobProcess
from flows.quiet import home
from flows.shards import Plan, Result

Runner = Literal["processes", "dask", "ray"]
SHOWN = 8  # failed shards named in a message


@dataclass(frozen=True)
class RunOptions:
    """How a plan is run; nothing here shapes a byte.

    runner: where jobs run; address: of a Dask or Ray cluster, None: a local one. shards: these alone, without the last
    step; None: all. changed: the folder may be of another recipe (what differs is made anew). retries: after a fault,
    each after a pause twice as long as the one before, from pause_s; time_limit_s: of a job. devices: GPUs,
    as in CUDA_VISIBLE_DEVICES, of which a job of a gpu stage has one for itself; None: this machine's.
    """

    runner: Runner = "processes"
    address: str | None = None
    shards: range | None = None
    changed: bool = False
    retries: int = 2
    pause_s: float = 1.0
    time_limit_s: float | None = None
    devices: tuple[str, ...] | None = None


class JobError(RuntimeError):
    """A run failed; the message tells its cause in one line."""


class IncompleteError(JobError):
    """Jobs kept failing; the others are done, and the next run goes on."""

    def __init__(self, plan: Plan, failed: Sequence[Result], begun: int):
        self.failed = tuple(failed)
        named = "; ".join(f"shard {r.shard} ({r.stage}: {r.cause})" for r in failed[:SHOWN])
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        rest = f", {plan.shards - begun} not begun" if begun < plan.shards else ""
        text = f"{plan.out}: incomplete, {len(failed)} of {plan.shards} shards failed{rest}: {named}{more}"
        super().__init__(" ".join(text.split()))


class JobProcesses:
    """The processes that one run, or one worker of a cluster, does its jobs in; idle ones are taken up again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[JobProcess] = []
        self._busy: list[JobProcess] = []
        self._closed = threading.Event()

    def run(self, plan: Plan, stage_index: int, shard: int, options: RunOptions) -> Result:
        """One attempt at a job. Raises InputError, FailedJobError."""
        devices = (options.devices or ()) if plan.stages[stage_index].gpu else ()
        with held_device(devices, self._closed) as device, self._process(device) as process:
            return process.run(plan, stage_index, shard, options.time_limit_s)

    @contextlib.contextmanager
    def _process(self, device: str | None) -> Iterator[JobProcess]:
        with self._lock:
            if self._closed.is_set():
                raise FailedJobError("the run was stopped", fatal=True)
            found = [process for process in self._idle if process.device == device]
            process = found[0] if found else JobProcess(device)
            if found:
                self._idle.remove(process)
            self._busy.append(process)
        try:
            yield process
        finally:
            with self._lock:
                self._busy.remove(process)
                if process.alive and not self._closed.is_set():
                    self._idle.append(process)
                else:
                    process.close()

    def pause(self, seconds: float) -> bool:
        """Wait before another attempt; False if the run ended meanwhile."""
        return not self._closed.wait(seconds)

    def close(self) -> None:
        """End all processes, also those at work."""
        with self._lock:
            self._closed.set()
            for process in self._busy:
                process.kill()  # whoever waits for it closes it
            for process in self._idle:
                process.close()
            self._idle.clear()


@functools.lru_cache(maxsize=1)
def cluster_processes() -> JobProcesses:
    """Those of this process where it is a cluster's worker; they end with it."""
    return JobProcesses()


def do_job(
    plan: Plan, stage_index: int, shard: int, options: RunOptions, processes: JobProcesses | None = None
) -> Result:
    """A job's result, after as many attempts as the options allow. Raises InputError, FailedJobError."""
    processes = processes or cluster_processes()
    for attempt in range(options.retries + 1):
        try:
            return processes.run(plan, stage_index, shard, options)
        except FailedJobError as error:
            last = attempt == options.retries
            if last or error.fatal or not processes.pause(options.pause_s * 2**attempt):
                raise
    raise AssertionError("no attempt was made")


def visible_devices() -> tuple[str, ...]:
    """This machine's GPUs that we may use, as CUDA_VISIBLE_DEVICES names them; found without importing torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(device for device in named.split(",") if device not in ("", "-1"))
    if (tool := shutil.which("nvidia-smi")) is None:
        return ()
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout.splitlines()
    return tuple(str(number) for number in range(sum(line.startswith("GPU ") for line in listed)))


@contextlib.contextmanager
def held_device(devices: Sequence[str], stop: threading.Event) -> Iterator[str | None]:
    """A device of this machine that no other job of ours holds, whatever build it belongs to; None if there is no list.

    A lock of the file system ends with its holder, so a killed one frees the device.
    Raises FailedJobError when stopped.
    """
    if not devices:
        yield None
        return
    with contextlib.ExitStack() as held:
        while not (device := next((d for d in devices if _take(d, held)), "")):
            if stop.wait(0.1):
                raise FailedJobError("the run was stopped", fatal=True)
        yield device


def _take(device: str, held: contextlib.ExitStack) -> bool:
    path = home() / "devices" / f"{platform.node()}-{device.replace('/', '_')}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "a")  # noqa: SIM115 - held open: the lock ends with the process
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return False
    held.enter_context(handle)
    return True
