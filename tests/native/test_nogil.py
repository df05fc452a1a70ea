"""The fast path touches no Python object: proven on the C that Cython makes of it with the package's own directives."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from grpclb_core.native import LeastRequestPicker, P2cEwmaPicker, Picker, PrequalPicker, RandomPicker, RoundRobinPicker

FUNCTION = re.compile(r"^static [^;{}]*?\b(__pyx_f_\w+)\([^;{}]*\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
CALLED = re.compile(r"\b([A-Za-z_]\w*)\s*\(")

# What a function of the fast path may call beside functions of its own kind, which are followed: the atomics of
# atomics.h, the multiplication of draws.pxd, a copy of eight bytes, hints to the compiler, and the statements of C that
# look like calls.
HARMLESS = re.compile(
    r"grpclb_(load|store|add|add_held|replace|try_lock|unlock|load_double|store_double|mix)|memcpy|likely|unlikely"
    r"|if|for|while|switch|return|sizeof"
)

# Signs of the interpreter that are no calls: its types, its constants, and Cython's tables of Python objects.
INTERPRETER = re.compile(r"\bPy[A-Z_]\w*|\b__Pyx_\w+|\b__pyx_(mstate|n_|kp_|int_|d\b|b\b|m\b)\w*|\bPYX_\w+")

# Each with the name of its module.
PICKERS = {kind.__name__: kind.__module__.rpartition(".")[2] for kind in Picker.__subclasses__()}

# Where each is generated: tickets settle in ticket.c, slot.c tells ages, multicallable.c looks at connections.
SLOT_FUNCTIONS = {
    "open_call": "ticket.c",
    "close_call": "ticket.c",
    "observe_answer": "ticket.c",
    "observe_bound": "ticket.c",
    "count_failure": "ticket.c",
    "penalty_ns": "ticket.c",
    "failure_streak": "slot.c",
    "last_answer_ns": "slot.c",
    "is_busy_trial": "picker.c",
    "mean_age_ns": "slot.c",
    "is_surely_alive": "multicallable.c",
}


def mangled(module: str, *names: str) -> str:
    """Return the name that Cython gives to a C function."""
    scope = ["grpclb_core", "native", module, *names[:-1]]
    return "__pyx_f_" + "_".join(f"{len(part)}{part}" for part in scope) + "_" + names[-1]


@functools.cache
def functions(source: Path) -> dict[str, str]:
    return {name: COMMENT.sub("", body) for name, body in FUNCTION.findall(source.read_text())}


def touches(known: dict[str, str], root: str) -> tuple[set[str], set[str]]:
    """Follow all calls from `root`; return the functions reached, and whatever they do that belongs to Python."""
    reached: set[str] = set()
    offences: set[str] = set()
    ahead = [root]
    while ahead:
        name = ahead.pop()
        if name in reached:
            continue
        reached.add(name)
        if name not in known:
            offences.add(name)  # of another module, called through a pointer: nothing is known of it
            continue
        body = known[name]
        offences |= {match.group() for match in INTERPRETER.finditer(body)}
        for called in CALLED.findall(body):
            if called.startswith("__pyx_f_"):
                ahead.append(called)
            elif not HARMLESS.fullmatch(called):
                offences.add(called)
    return reached, offences


@pytest.fixture
def generated(staged: Path) -> Path:
    return staged / "build" / "cython" / "ext" / "grpclb_core" / "native"


@pytest.mark.parametrize("kind", PICKERS)
def test_choosing_touches_no_python_object(generated: Path, kind: str) -> None:
    module = PICKERS[kind]
    _, offences = touches(functions(generated / f"{module}.c"), mangled(module, kind, "choose"))
    assert offences == set()


@pytest.mark.parametrize("name", SLOT_FUNCTIONS)
def test_keeping_count_touches_no_python_object(generated: Path, name: str) -> None:
    _, offences = touches(functions(generated / SLOT_FUNCTIONS[name]), mangled("slot", name))
    assert offences == set()


# What the search has to come by, lest it stop short of something.
DRAWS = {mangled("draws", "below"), mangled("draws", "draw")}
IN_FLIGHT = {mangled("slot", name) for name in ("in_flight", "timed_in_flight", "timed_calls")}
CHOICES = {
    P2cEwmaPicker: {
        mangled("draws", "draw_pair"),
        *DRAWS,
        mangled("view", "draw_column"),
        mangled("view", "load_of"),
        *IN_FLIGHT,
        mangled("slot", "projected_ns"),
        mangled("slot", "is_newcomer"),
        mangled("ewma", "faded"),
        mangled("ewma", "halved"),
    },
    LeastRequestPicker: {
        mangled("picker", "draw_another"),
        mangled("picker", "insert"),
        *DRAWS,
        mangled("view", "draw_column"),
        mangled("view", "load_of"),
        *IN_FLIGHT,
    },
    PrequalPicker: {
        mangled("prequal", "PrequalPicker", "choose_pooled"),
        mangled("prequal", "PrequalPicker", "choose_plainly"),
        mangled("prequal", "PrequalPicker", "judge"),
        mangled("view", "draw_member"),
        mangled("view", "draw_column"),
        mangled("view", "load_of"),
        *DRAWS,
        *IN_FLIGHT,
    },
    RoundRobinPicker: set(),
    RandomPicker: {mangled("view", "draw_member"), mangled("view", "draw_column"), *DRAWS},
}


@pytest.mark.parametrize("kind", CHOICES)
def test_the_whole_choice_was_looked_at(generated: Path, kind: type[Picker]) -> None:
    module = PICKERS[kind.__name__]
    own = mangled(module, kind.__name__, "choose")
    reached, _ = touches(functions(generated / f"{module}.c"), own)
    assert {own} | CHOICES[kind] <= reached


def test_a_python_object_would_be_noticed(generated: Path) -> None:
    # Opening a ticket makes one, so the same search must find it.
    _, offences = touches(functions(generated / "picker.c"), mangled("picker", "Picker", "take"))
    assert "__Pyx_XDECREF" in offences or "__Pyx_DECREF" in offences
