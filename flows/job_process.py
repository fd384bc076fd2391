"""A process that does jobs one at a time and may die without harm: it is killed when over its time, and replaced.

Jobs come and results go through a pipe. A subprocess, not a multiprocessing one, so that also a cluster's (daemonic)
workers can have it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from flows.shards import WORK, Plan, Result, limit_threads, run_job
from pipeline.scene.errors import InputError

START_S = 600.0  # within which a process must have imported what a job needs; its time limit counts from then
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # faults of the disk that no other shard would escape


class FailedJobError(RuntimeError):
    """A job came to no end. fatal: no other one will either (a full disk)."""

    def __init__(self, cause: str, fatal: bool = False):
        self.cause, self.fatal = cause, fatal
        super().__init__(cause)

    def __reduce__(self) -> tuple[type[FailedJobError], tuple[str, bool]]:
        return FailedJobError, (self.cause, self.fatal)  # crosses process borders whole


class JobProcess:
    """One such process. device: the only GPU it sees; None: what this process sees."""

    def __init__(self, device: str | None = None):
        self.device = device
        self._channel, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        with theirs:
            call = f"from flows.job_process import main; main({theirs.fileno()}, {os.getpid()})"
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", call],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # ours may be read by a program
            )

    def run(self, plan: Plan, stage_index: int, shard: int, limit_s: float | None = None) -> Result:
        """Do one job. Raises InputError, FailedJobError (its own fault, over limit_s seconds, a killed process)."""
        try:
            self._channel.send_bytes(pickle.dumps((plan, stage_index, shard)))
            self._await(START_S, "its process did not start")
            self._channel.recv()
            self._await(limit_s, f"took longer than {limit_s} s")
            outcome = self._channel.recv()
        except (EOFError, OSError):
            raise FailedJobError(self._last_words()) from None
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Result)
        return outcome

    def _await(self, seconds: float | None, fault: str) -> None:
        if not self._channel.poll(seconds):
            self.kill()
            raise FailedJobError(fault)

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self.kill()
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return "its worker process was killed (out of memory?)"
        return f"its worker process ended with {signal.Signals(-code).name if code < 0 else f'status {code}'}"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it now, whatever it does; its temporary files are swept by the build."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and give back the pipe; only for whoever runs no job in it."""
        self.kill()
        self._channel.close()


def end_with_parent(parent: int) -> None:
    """A worker whose builder was killed -9 must not write on: poll for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the builder's to handle

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _outcome(plan: Plan, stage_index: int, shard: int) -> Result | Exception:
    try:
        return run_job(plan, stage_index, shard)
    except InputError as error:
        return error
    except OSError as error:
        return FailedJobError(str(error), fatal=error.errno in FATAL)
    except Exception as error:
        with contextlib.suppress(OSError):
            path = plan.out / WORK / "failed" / f"{plan.stages[stage_index].name}-{shard:05d}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(traceback.format_exc())
        return FailedJobError(f"{type(error).__name__}: {error}")


def main(channel_number: int, parent: int) -> None:
    """Do jobs until the pipe ends. parent: the process whose end is ours."""
    channel: Connection[Any, Any] = Connection(channel_number)
    end_with_parent(parent)
    while True:
        try:
            plan, stage_index, shard = pickle.loads(channel.recv_bytes())
        except EOFError:
            return
        limit_threads(plan.recipe.threads)  # imports, which are none of the job's time
        channel.send("begun")
        channel.send(_outcome(plan, stage_index, shard))
