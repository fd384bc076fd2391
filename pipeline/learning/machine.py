"""The process a run trains in: accelerate's devices, torch's threads and random streams, versions and hardware."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator


def start_accelerate(config: TrainConfig) -> Accelerator:
    """Devices and precision; accumulation is the loop's. Raises InputError where the hardware lacks the precision."""
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin

    forget_accelerate()
    atexit.unregister(_end_process_group)
    one = GradientAccumulationPlugin(num_steps=1)  # given, so that the launcher's environment can't set another
    cpu = config.device == "cpu"
    try:
        accelerator = Accelerator(mixed_precision=config.precision, cpu=cpu, gradient_accumulation_plugin=one)
    except ValueError as error:
        raise InputError("training", f"hardware for precision {config.precision}", str(error)) from None
    if config.precision == "fp16" and accelerator.scaler is None:  # accelerate would quietly train without
        raise InputError("training", "a GPU for precision fp16", str(accelerator.device), "use bf16 or no")
    return accelerator


def forget_accelerate() -> None:
    """Accelerate keeps device and precision in process-wide singletons, which would bind the next run."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def end_process_group_at_exit() -> None:
    """After a run that succeeded, if it had several processes: gloo's threads abort when they outlive the interpreter.

    Not after one that failed: others may wait in a collective there, and ending the group would wait for them.
    """
    atexit.register(_end_process_group)


def _end_process_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def process_settings(config: TrainConfig) -> Iterator[None]:
    """Threads, determinism and torch's global random streams, as they were again afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with a fixed one
    with torch.random.fork_rng(devices=devices):
        torch.set_num_threads(config.torch_threads)
        torch.use_deterministic_algorithms(config.deterministic or deterministic)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def versions() -> dict[str, str]:
    """Of Python and the packages that shape weights."""
    from importlib.metadata import version

    names = ("torch", "accelerate", "safetensors", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def device_name(device: torch.device) -> str:
    """As the vendor calls it; the architecture for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
