"""Rules of the tree that no reviewer should have to remember."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import grpclb_core

ROOT = Path(__file__).parents[1]
PACKAGE = Path(grpclb_core.__file__).parent
SITE = PACKAGE.parent
NATIVE_SOURCES = ROOT / "ext" / "grpclb_core" / "native"

MOST_LINES = 600

# What a user may import. A name that comes or goes here is a change of the public interface.
PUBLIC = [
    "Address",
    "Balancer",
    "BalancerSnapshot",
    "Channel",
    "Codec",
    "CodecError",
    "Config",
    "ConfigError",
    "ConnectionConfig",
    "ConsulConfig",
    "DnsConfig",
    "Drop",
    "Endpoint",
    "EndpointSnapshot",
    "EtcdConfig",
    "FailurePercentageEjection",
    "FileConfig",
    "GrpclbError",
    "Health",
    "HealthConfig",
    "IdentityError",
    "KubernetesConfig",
    "LeastRequest",
    "LoadReport",
    "Locality",
    "LocalityConfig",
    "NativeModuleError",
    "Outcome",
    "OutlierConfig",
    "OutlierDetection",
    "P2cEwma",
    "PickFirst",
    "Policy",
    "Prequal",
    "Random",
    "ReloadingCredentials",
    "Resolution",
    "ResolutionError",
    "RingHash",
    "RoundRobin",
    "SlowStartConfig",
    "SuccessRateEjection",
    "TakesReports",
    "TargetError",
    "WeightedRoundRobin",
    "WrongEventLoopError",
    "XdsConfig",
    "insecure_channel",
    "secure_channel",
]

# Declarations of the compiled core, each standing on those of the lines above it; those of one line do not know
# one another.
NATIVE_LAYERS = [
    {"atomics", "clock", "ewma", "xxh64"},
    {"draws", "slot"},
    {"view", "ticket"},
    {"picker"},
    {"multicallable", "p2c_ewma", "prequal", "ring", "stride"},
]

# What the compiled core may import of Python; of this package, nothing.
NATIVE_IMPORTS = {"grpc", "grpc._cython.cygrpc", "grpc.aio", "math", "os"}

# Readings of the time of day, which jumps, and sleeping, which blocks an event loop.
BANNED_CALLS = {
    "time.time",
    "time.time_ns",
    "time.sleep",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
}


def python_sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def native_sources() -> list[Path]:
    return sorted(path for path in NATIVE_SOURCES.iterdir() if path.suffix in {".pyx", ".pxd", ".h"})


def module_names() -> list[str]:
    """Every module of the package, compiled ones included; `__main__` runs things and is left out."""
    found = set()
    for path in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.so")):
        parts = path.relative_to(SITE).parent.parts
        stem = path.name.partition(".")[0]
        found.add(".".join(parts if stem == "__init__" else (*parts, stem)))
    return sorted(name for name in found if not name.endswith(".__main__"))


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=SITE,  # `python -c` looks for modules here first: not in a checkout when the package is installed
        env=os.environ | {"PYTHONPATH": str(SITE)},
        capture_output=True,
        text=True,
        timeout=120,
    )


class TestPublicSurface:
    def test_it_is_what_is_written_here(self) -> None:
        assert grpclb_core.__all__ == PUBLIC

    def test_nothing_else_is_in_the_module(self) -> None:
        named = {
            name
            for name, value in vars(grpclb_core).items()
            if not name.startswith("_") and not isinstance(value, ModuleType)
        }
        assert named == set(PUBLIC)

    def test_each_is_told_of(self) -> None:
        page = (ROOT / "docs" / "public-names.md").read_text()
        assert [name for name in PUBLIC if f"`{name}`" not in page] == []

    def test_all_names_can_be_imported(self) -> None:
        done = run_python(f"from grpclb_core import {', '.join(PUBLIC)}")
        assert done.returncode == 0, done.stderr


class TestCompiledCore:
    def test_declarations_stand_on_those_below(self) -> None:
        level = {name: number for number, layer in enumerate(NATIVE_LAYERS) for name in layer}
        stems = {path.stem for path in native_sources()} - {"__init__"}
        assert stems == set(level)
        for path in native_sources():
            text = path.read_text()
            below = set(re.findall(r"grpclb_core\.native\.(\w+) cimport", text)) - {path.stem}
            assert below <= set(level), path.name
            upward = {name for name in below if level[name] >= level[path.stem]}
            assert not upward, f"{path.name} is not above {upward}"

    def test_every_cimport_is_seen_by_the_test_above(self) -> None:
        for path in native_sources():
            for line in path.read_text().splitlines():
                if re.match(r"\s*(from\s+\S+\s+)?cimport\b", line) and not line.startswith("cimport cython"):
                    assert re.match(r"from (grpclb_core\.native\.\w+|libc\.\w+|cpython\.\w+) cimport ", line), line

    def test_it_imports_nothing_of_the_package(self) -> None:
        for path in native_sources():
            imported = re.findall(r"^\s*(?:import|from) ([\w.]+)(?: import .*)?$", path.read_text(), re.MULTILINE)
            assert set(imported) <= NATIVE_IMPORTS, path.name

    def test_it_is_imported_in_one_place(self) -> None:
        compiled = "|".join(path.stem for path in NATIVE_SOURCES.glob("*.pyx"))
        for path in python_sources():
            if path != PACKAGE / "native" / "__init__.py":
                found = [
                    module
                    for module in imported_modules(ast.parse(path.read_text()))
                    if re.search(rf"(^|\.)native\.({compiled})$", module)
                ]
                assert found == [], path

    def test_each_extension_is_built_of_its_source_and_has_a_stub(self) -> None:
        sources = {path.stem for path in NATIVE_SOURCES.glob("*.pyx")}
        assert {path.name.partition(".")[0] for path in (PACKAGE / "native").glob("*.so")} == sources
        assert {path.stem for path in (PACKAGE / "native").glob("*.pyi")} == sources

    @pytest.mark.parametrize("missing", ["picker", "multicallable"])
    def test_one_that_is_missing_is_told_at_import(self, missing: str) -> None:
        program = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "grpclb_core.native." + sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
try:
    import grpclb_core
except ImportError as error:
    print(type(error).__mro__[0].__name__, error, repr(error.__cause__), sep="\\n")
"""
        done = run_python(program, missing)
        assert done.returncode == 0, done.stderr
        kind, message, cause = done.stdout.splitlines()
        assert kind == "NativeModuleError"
        assert f"No module named 'grpclb_core.native.{missing}'" in message
        assert "C11 compiler: pip install --no-binary grpclb-core grpclb-core" in message
        assert cause.startswith("ModuleNotFoundError")


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names)


def test_every_module_can_be_imported_first() -> None:
    """None leans on another having been imported before it, which is how import cycles stay unnoticed."""
    # One interpreter, emptied of the package between two imports. The package itself is a bare shell there: its own
    # __init__ would import everything, always in the same order.
    program = """
import importlib, json, sys, traceback, types

failed = {}
for name in json.loads(sys.argv[1]):
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "grpclb_core"]:
        del sys.modules[loaded]
    if name != "grpclb_core":
        shell = types.ModuleType("grpclb_core")
        shell.__path__ = [sys.argv[2]]
        sys.modules["grpclb_core"] = shell
    try:
        importlib.import_module(name)
    except Exception:
        failed[name] = traceback.format_exc(limit=-3)
print(json.dumps(failed))
"""
    names = module_names()
    assert {"grpclb_core", "grpclb_core.balancer", "grpclb_core.native.picker"} <= set(names)
    done = run_python(program, json.dumps(names), str(PACKAGE))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


@pytest.mark.parametrize("path", [*python_sources(), *native_sources()], ids=lambda path: "/".join(path.parts[-3:]))
def test_no_module_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def banned_calls(tree: ast.AST) -> Iterator[str]:
    """Find calls of what is banned, by whatever name it was imported."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {name.asname: name.name for name in node.names if name.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            head, dot, tail = ast.unparse(node).partition(".")
            full = names.get(head, head) + dot + tail
            if full in BANNED_CALLS:
                yield f"line {node.lineno}: {full}"


class TestTime:
    """The package lives by the monotonic clock, and never holds an event loop up. What people look at may differ."""

    @pytest.mark.parametrize(
        "path",
        [path for path in python_sources() if "cli" not in path.relative_to(PACKAGE).parts],
        ids=lambda path: path.relative_to(PACKAGE).as_posix(),
    )
    def test_no_wall_clock_and_no_sleep(self, path: Path) -> None:
        assert list(banned_calls(ast.parse(path.read_text()))) == []

    def test_none_in_the_compiled_core(self) -> None:
        banned = re.compile(r"CLOCK_REALTIME|gettimeofday|\b(nano|u)?sleep *\(|\b(import|from) (time|datetime)\b")
        for path in native_sources():
            assert not banned.search(path.read_text()), path.name

    @pytest.mark.parametrize(
        "source",
        [
            "import time\ntime.time()",
            "import time as clock\nclock.sleep(1)",
            "from time import time_ns\ntime_ns()",
            "from time import sleep as nap\nnap(1)",
            "from datetime import datetime as day\nday.now()",
            "import datetime\ndatetime.datetime.utcnow()",
            "import time\ndef wait(sleep=time.sleep): ...",
        ],
    )
    def test_the_search_finds_them(self, source: str) -> None:
        assert list(banned_calls(ast.parse(source)))

    @pytest.mark.parametrize("source", ["import time\ntime.monotonic()", "import anyio\nanyio.sleep(1)"])
    def test_the_search_finds_nothing_else(self, source: str) -> None:
        assert not list(banned_calls(ast.parse(source)))
