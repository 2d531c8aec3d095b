"""What the machine fixes: device, precision, compilation, layout; and the machine in words."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo import parallel
from zoo.checks import check_device, check_whole
from zoo.version import __version__

PRECISIONS = ("fp32", "tf32", "bf16")
COMPILERS = ("g++", "clang++", "cl")  # of C++, that torch.compile uses on a CPU if CXX does not name another


@dataclass(frozen=True)
class Runtime:
    """All that the machine fixes. Beyond rounding no result depends on it.

    Args:
        device: ``auto`` (cuda, else mps, else cpu) or a torch device.
        precision: ``fp32``; ``tf32`` (CUDA's matrix units round float32 inputs to 10 bits); or ``bf16`` (autocast;
            penalties and losses sum in float32, with tf32's products on CUDA).
        compile: torch.compile the losses.
        cuda_graphs: compile the losses and, on CUDA, replay each as a graph: one launch instead of hundreds.
        deterministic: bit-equal repetition on CUDA too.
        layout: ``channels_last`` or ``contiguous`` (on MPS always contiguous: gradients of pooling are wrong there in
            the other, pytorch issue 175190).
        micro_batch: samples of a process in memory at a time, at most; None: its share of the batch. The gradients of
            the parts add up to the batch's.
        eval_every: score the model each time so many real images have been consumed; training does not change.
    """

    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    deterministic: bool = False
    layout: str = "channels_last"
    eval_every: int | None = None
    micro_batch: int | None = None
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision='{self.precision}': must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
        if self.layout not in ("channels_last", "contiguous"):
            raise ValueError(f"layout='{self.layout}': must be channels_last or contiguous")
        for key in ("eval_every", "micro_batch"):
            if getattr(self, key) is not None:
                object.__setattr__(self, key, check_whole(key, getattr(self, key)))

    def prepare_device(self) -> torch.device:
        """Choose the device and tell torch the rest. Raises ValueError if the device does not exist, or if there is no
        C++ compiler for losses that are to be compiled for a CPU."""
        name = self.device
        check_device(name, auto=True)
        if name == "auto":
            mps = torch.backends.mps.is_available()
            name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device='{name}': torch finds no CUDA device here; use --device cpu")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError(f"device='{name}': torch finds no MPS device here; use --device cpu")
        if device.type == "cpu" and (self.compile or self.cuda_graphs):
            compilers = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
            if not any(map(shutil.which, compilers)):
                names = " or ".join(compilers)
                raise ValueError(f"compile=True: on a CPU it needs a C++ compiler; there is no {names} here")
        if device.type == "cuda":
            if device.index is None:
                device = torch.device("cuda", parallel.local_rank())
            torch.cuda.set_device(device)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision != "fp32"
            torch.backends.cudnn.benchmark = not self.deterministic
            if self.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True, warn_only=True)
        return device


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    return {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()}


def processor() -> str:
    """The processor in words."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if models:
            return models[0]
    return platform.processor() or platform.machine()


def machine_of(device: torch.device) -> dict[str, Any]:
    """The machine of a run, in words; nothing that names its owner."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": parallel.world(),
        "versions": versions(),
    }
