"""Where a measurement was made: what matters to the numbers, and nothing that names the machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import grpc
import msgspec

from ...native import clock_source


class Machine(msgspec.Struct, frozen=True):
    """The machine, the software and the command of one run."""

    command: str
    date: str
    cpu: str
    cores: int
    kernel: str
    python: str
    grpcio: str
    grpclb_core: str
    clock: str
    """What picks are timed by: "counter" or "system"."""
    load: float
    """Processes that were running or waiting to, averaged over the minute before; 0 is a quiet machine."""

    def describe(self) -> str:
        """Say it in one line."""
        return (
            f"{self.cpu}, {self.cores} cores, {self.kernel}, {self.python}, grpcio {self.grpcio}, "
            f"grpclb-core {self.grpclb_core}, {self.clock} clock, load {self.load:.1f}"
        )


def describe_machine(command: str) -> Machine:
    """Describe the machine this process runs on."""
    return Machine(
        command=command,
        date=datetime.date.today().isoformat(),
        cpu=_cpu(),
        cores=_cores(),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        grpcio=grpc.__version__,
        grpclb_core=_version(),
        clock=clock_source(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version() -> str:
    try:
        return importlib.metadata.version("grpclb-core")
    except importlib.metadata.PackageNotFoundError:
        return "source tree"
