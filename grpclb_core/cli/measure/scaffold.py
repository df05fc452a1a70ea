"""Builds and loads the compiled scaffolding that a pick is measured against.

Its source lies in the project's `bench/native/` and does not ship: building it takes Cython and a C compiler. It
cimports the core from wherever the core came from, a source tree (`ext/`) or an installed wheel.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol, cast

from ...errors import ConfigError
from ...native import Picker

PACKAGE = Path(__file__).resolve().parents[2]
SOURCE = PACKAGE.parent / "bench" / "native" / "scaffold.pyx"

# What setup.py gives the core; a scaffolding compiled otherwise would be another yardstick.
DIRECTIVES = {
    "language_level": 3,
    "binding": False,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
}
FLAGS = ["-std=c11", "-O3"]


class Debt(Protocol):
    """What a pick returns, compiled or not."""

    def finish(self, outcome: int, /) -> bool: ...


class CanPick(Protocol):
    """Whatever can be timed as a picker."""

    def pick(self) -> Debt: ...


class Scaffold(Protocol):
    """The extension module, as bench/native/scaffold.pyx defines it."""

    EmptyPicker: type[CanPick]
    ClockedPicker: type[CanPick]
    NullPicker: type[Picker]

    def read_clock_twice(self, count: int, /) -> int: ...
    def pick_and_finish(self, picker: Picker, count: int, /) -> None: ...
    def slowest_ns(self, picker: Picker, duration_ns: int, /) -> int: ...


def load_scaffold(source: Path | None = None) -> Scaffold | None:
    """Return the scaffolding, built if need be; None if its source, Cython or a compiler is missing.

    Raises:
        ConfigError: a source was named and cannot be built.
    """
    chosen = source or SOURCE
    try:
        if not chosen.is_file():
            raise FileNotFoundError(f"there is no file {chosen}")
        return cast(Scaffold, _load(_built(chosen)))
    except Exception as error:  # Cython and compilers fail in many ways, and each only costs some rows of a table
        if source is not None:
            raise ConfigError(f"--scaffold {source}: cannot be built: {error}") from error
        return None


def _built(source: Path) -> Path:
    """Return the compiled extension, from the cache if nothing it is made of has changed."""
    declarations = _declarations()
    parts = [source, *sorted(declarations.glob("*.pxd")), *sorted(declarations.glob("*.h"))]
    digest = hashlib.sha256(sys.version.encode())
    for part in parts:
        digest.update(part.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grpclb-core" / "scaffold"
    target = cache / f"scaffold-{digest.hexdigest()[:16]}{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as workplace:
            # Moved into place whole, because two runs may build at the same time.
            os.replace(_compile(source, declarations, Path(workplace)), target)
    return target


def _declarations() -> Path:
    """Return the folder of the core's `.pxd` files and headers: beside the modules, or in the source tree."""
    installed = PACKAGE / "native"
    return installed if (installed / "picker.pxd").exists() else PACKAGE.parent / "ext" / "grpclb_core" / "native"


def _compile(source: Path, declarations: Path, workplace: Path) -> Path:
    # Imported by name, because neither is there to be checked against in an ordinary installation.
    cythonize = importlib.import_module("Cython.Build").cythonize
    setuptools = importlib.import_module("setuptools")

    extension = setuptools.Extension(
        "scaffold", [str(source)], include_dirs=[str(declarations)], extra_compile_args=FLAGS
    )
    extensions = cythonize(
        [extension],
        include_path=[str(declarations.parents[1])],
        compiler_directives=DIRECTIVES | {"cdivision": True, "auto_pickle": False},
        build_dir=str(workplace),
        quiet=True,
    )
    distribution = setuptools.Distribution({"name": "scaffold", "ext_modules": extensions})
    command: Any = distribution.get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(workplace)
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath("scaffold"))


def _load(path: Path) -> object:
    loader = importlib.machinery.ExtensionFileLoader("scaffold", str(path))
    specification = importlib.util.spec_from_file_location("scaffold", path, loader=loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module
