"""Resolvers of other people: installed under an entry point, or given as an object."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import grpclb_core
from grpclb_core.config import Config
from grpclb_core.errors import TargetError
from grpclb_core.resolve import Resolver, parse_target, resolver_for
from grpclb_core.resolve.schemes import MODULES, known_schemes
from support.compiled import run_python

EXAMPLE = Path(__file__).parents[2] / "examples" / "resolver_plugin"
SITE = Path(grpclb_core.__file__).parents[1]


def offer(folder: Path, name: str, points: str, code: str = "") -> None:
    """Put a distribution into a folder, as an installer does."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[grpclb_core.resolvers]\n{points}\n")
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def resolver_of(text: str) -> Resolver:
    return resolver_for(parse_target(text), Config())


GOOD = """
class Quiet:
    authority = "quiet"

    def __init__(self, rest):
        self.rest = rest

    async def run(self, sink):
        pass

    def refresh(self):
        pass


def make_resolver(target, config):
    return Quiet(target.rest)
"""


class TestEntryPoint:
    def test_it_makes_the_resolvers_of_its_scheme(self, site: Path) -> None:
        offer(site, "good_one", "quiet = good_one:make_resolver", GOOD)
        resolver = resolver_of("quiet://server/name")
        assert isinstance(resolver, Resolver)
        assert resolver.authority == "quiet"
        assert vars(resolver) == {"rest": "//server/name"}

    def test_schemes_have_no_case(self, site: Path) -> None:
        offer(site, "good_two", "Quiet = good_two:make_resolver", GOOD)
        assert "quiet" in known_schemes()
        assert resolver_of("QUIET:///name").authority == "quiet"

    def test_ours_cannot_be_replaced(self, site: Path) -> None:
        offer(site, "greedy", "\n".join(f"{scheme} = greedy:make_resolver" for scheme in MODULES), GOOD)
        assert resolver_of("dns:///greeter:1").authority == "greeter:1"
        assert len(known_schemes()) == len(set(known_schemes()))

    def test_the_same_offered_twice_is_one(self, site: Path) -> None:
        offer(site, "good_three", "quiet = good_three:make_resolver", GOOD)
        offer(site, "good_three_again", "quiet = good_three:make_resolver")
        assert resolver_of("quiet:///name").authority == "quiet"

    def test_two_different_ones_are_told_apart_by_nobody(self, site: Path) -> None:
        offer(site, "good_four", "quiet = good_four:make_resolver", GOOD)
        offer(site, "good_five", "quiet = good_five:make_resolver", GOOD)
        with pytest.raises(TargetError, match=r"good_five:make_resolver, good_four:make_resolver\).*exactly one"):
            resolver_of("quiet:///name")

    @pytest.mark.parametrize(
        ("point", "code", "problem"),
        [
            ("bad_0:nothing", "", "cannot be loaded from 'bad_0:nothing' .AttributeError"),
            ("bad_1.none:make", "", "cannot be loaded from 'bad_1.none:make' .ModuleNotFoundError"),
            ("", "", "cannot be loaded from ''"),
            ("bad_3:make", "raise OSError('disk')", "OSError: disk"),
            ("bad_4:make", "make = 3", "made by bad_4:make: TypeError: 'int' object is not callable"),
            ("bad_5:make", "def make(target, config): raise KeyError('x')", "KeyError: 'x'; this is a fault of"),
            ("bad_6:make", "def make(target): pass", "TypeError"),
            ("bad_7:make", "def make(target, config): pass", "None is no resolver, it lacks authority, run, refresh"),
            (
                "bad_8:make",
                "import grpclb_core as lb\ndef make(target, config): raise lb.ConfigError(['no a', 'no b'])",
                "target 'bad:///x': no a; target 'bad:///x': no b",
            ),
        ],
    )
    def test_one_that_is_broken_is_a_clear_error(
        self, site: Path, request: pytest.FixtureRequest, point: str, code: str, problem: str
    ) -> None:
        offer(site, point.partition(":")[0] or "bad", f"bad = {point}", code)
        with pytest.raises(TargetError, match=problem):
            resolver_of("bad:///x")

    def test_broken_metadata_of_one_does_not_harm_the_others(self, site: Path) -> None:
        offer(site, "good_six", "quiet = good_six:make_resolver", GOOD)
        offer(site, "unreadable", "this is no entry point")
        assert resolver_of("quiet:///name").authority == "quiet"
        with pytest.raises(TargetError, match="unknown scheme 'loud'; known are .*, quiet"):
            parse_target("loud:///name")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed into a folder of its own."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this environment has no pip")
    source, folder = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source)  # building leaves files behind
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class TestExample:
    """The example in a process of its own, on real servers: grpc.aio wants one event loop in a process."""

    @pytest.mark.parametrize("door", ["target", "object"])
    def test_it_finds_servers_as_they_start(self, installed: Path, tmp_path: Path, door: str) -> None:
        shutil.copy(EXAMPLE / "run.py", tmp_path)
        printed = run_python("run.py", door, cwd=tmp_path, site=installed, GRPC_VERBOSITY="NONE")
        assert printed.splitlines() == ["one is up: first", "both are up: first second"]

    def test_the_command_knows_it(self, installed: Path, tmp_path: Path) -> None:
        program = "from grpclb_core.cli.__main__ import main; raise SystemExit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, "resolve", "listening:///127.0.0.1:1"],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{installed}:{SITE}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert "none of the addresses accepts connections" in done.stderr

    def test_it_is_as_short_as_promised(self) -> None:
        lines = (EXAMPLE / "grpclb_listening.py").read_text().splitlines()
        assert sum(1 for line in lines if line.strip() and not line.startswith(("import", "from", '"""'))) <= 35
