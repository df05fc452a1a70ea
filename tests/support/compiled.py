"""Runs and loads what the tests compile."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType


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
