"""What a user can choose, read from the command line and checked before anything starts."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ...errors import ConfigError
from ...policies import parse_policy

DEFAULT_SECONDS = "20"
DEFAULT_RATE = "120"  # 24 a second to each of five servers: the slow one is busy at a third of its 80
DEFAULT_SEED = "1"

# A quarter of the time passes before the late server is added, and a lookup takes up to 1.1 s to come round.
SHORTEST_S = 4.0
LONGEST_S = 600.0  # every call is kept for the picture
# One client process and six servers on a laptop; beyond it the demonstration would measure Python's event loop.
FASTEST_RATE = 1000.0
LARGEST_SEED = 2**31 - 1


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as the user asked for it."""

    seconds: float
    rate: float
    """Calls per second through each side."""
    policy: str
    seed: int
    as_json: bool
    picture: Path | None


def parse_options(raw: Mapping[str, object]) -> Options:
    """Read the options of the command line.

    Raises:
        ConfigError: naming every option that cannot be used.
    """
    problems: list[str] = []
    seconds = _number("--seconds", raw["seconds"], SHORTEST_S, LONGEST_S, problems)
    rate = _number("--rate", raw["rate"], 1.0, FASTEST_RATE, problems)
    seed = _number("--seed", raw["seed"], 0, LARGEST_SEED, problems, whole=True)
    policy = _policy(raw["policy"], problems)
    picture = _picture(raw["picture"], problems)
    if problems:
        raise ConfigError(problems)
    return Options(
        seconds=seconds, rate=rate, seed=int(seed), policy=policy, as_json=bool(raw["json"]), picture=picture
    )


def _number(option: str, raw: object, least: float, most: float, problems: list[str], *, whole: bool = False) -> float:
    kind = int if whole else float
    try:
        number = kind(str(raw))
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        noun = "a whole number" if whole else "a number"
        problems.append(f"{option} {raw}: not usable; give {noun} from {least:.10g} to {most:.10g}")
    return number


def _policy(raw: object, problems: list[str]) -> str:
    try:
        return parse_policy(None if raw is None else str(raw)).name
    except ConfigError as error:
        problems += [f"--{problem}" for problem in error.problems]
        return ""


def _picture(raw: object, problems: list[str]) -> Path | None:
    if raw is None:
        return None
    path = Path(str(raw))
    if path.suffix not in {".svg", ".png"}:
        problems.append(f"--picture {path}: unknown kind of picture; give a path ending in .svg or .png")
    elif path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        problems.append(f"--picture {path}: cannot be written; give another path, or --no-picture")
    elif path.suffix == ".png" and importlib.util.find_spec("cairosvg") is None:
        problems.append(f"--picture {path}: PNG needs the package cairosvg; install it, or give a path ending in .svg")
    return path
