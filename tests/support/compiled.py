"""Runs and loads what the tests compile."""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder of this run that one of its processes has built; the others wait for it."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, is_built = shared / name, shared / f"{name}.built"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_built.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what another left that failed
            folder.mkdir()
            build(folder)
            is_built.touch()
    return folder


def run_python(*arguments: str, cwd: Path, site: Path, **environment: str) -> str:
    """Run this interpreter with the package found at `site`; return what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRPCLB_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": str(site)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def load(name: str, folder: Path) -> ModuleType:
    built = folder / (name + importlib.machinery.EXTENSION_SUFFIXES[0])
    spec = importlib.util.spec_from_file_location(name, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
