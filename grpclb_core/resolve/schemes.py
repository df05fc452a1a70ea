"""Which resolver a scheme stands for: our own, and those that other distributions bring."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any

from ..errors import ConfigError, GrpclbError

Factory = Callable[..., Any]
"""Makes a resolver of a `Target` and a `Config`; called `make_resolver` in the modules of this room."""

ENTRY_POINTS = "grpclb_core.resolvers"
"""Group in which another distribution names its factories, each under its scheme."""

GUIDE = "docs/resolvers/third-party.md"

# By module, imported on first use: dnspython, for one, takes long to import, and only a name has need of it.
MODULES = {
    "consul": "consul",
    "dns": "dns",
    "file": "file",
    "etcd": "etcd",
    "ipv4": "static",
    "ipv6": "static",
    "srv": "dns.srv",
    "k8s": "kubernetes",
    "unix": "static",
    "unix-abstract": "static",
    "xds": "xds",
}


# What the `Resolver` protocol asks for; told apart here so that a message can name what is missing.
_SHAPE = ("authority", "run", "refresh")


def known_schemes() -> list[str]:
    """Return every scheme that a target may have, ours first."""
    return [*MODULES, *sorted({point.name.lower() for point in _offered()} - MODULES.keys())]


def factory_of(scheme: str) -> Factory:
    """Return what makes the resolvers of a scheme, one of `known_schemes()`; ours cannot be replaced.

    Raises:
        ConfigError: another distribution offers one that cannot be loaded, or several offer one.
    """
    if scheme in MODULES:
        factory: Factory = import_module(f"{__package__}.{MODULES[scheme]}").make_resolver
        return factory
    found = {point.value: point for point in _offered() if point.name.lower() == scheme}
    if len(found) != 1:
        raise ConfigError(
            f"the resolver of {scheme}: {len(found)} distributions offer one ({', '.join(sorted(found))}); "
            "have exactly one of them installed"
        )
    ((value, point),) = found.items()
    try:
        loaded: Factory = point.load()
    except Exception as error:
        raise ConfigError(
            f"the resolver of {scheme}: cannot be loaded from {value!r} ({type(error).__name__}: {error}); "
            "repair or remove the distribution that offers it"
        ) from error
    return _guarded(loaded, f"the resolver of {scheme}, made by {value}")


def _guarded(factory: Factory, what: str) -> Factory:
    """Have a foreign factory fail as ours do, and give nothing but resolvers."""

    def make(target: object, config: object) -> object:
        try:
            resolver = factory(target, config)
        except GrpclbError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{what}: {type(error).__name__}: {error}; this is a fault of that distribution"
            ) from error
        missing = [name for name in _SHAPE if not hasattr(resolver, name)]
        if missing:
            raise ConfigError(f"{what}: {resolver!r} is no resolver, it lacks {', '.join(missing)}; see {GUIDE}")
        return resolver

    return make


def _offered() -> list[EntryPoint]:
    """Return the entry points of other distributions, but for those whose metadata cannot be read."""
    try:
        return list(entry_points(group=ENTRY_POINTS))
    except Exception:  # the broken metadata of a single one, which may be no resolver at all, spoils it for all
        return [point for distribution in distributions() for point in _offered_by(distribution)]


def _offered_by(distribution: Distribution) -> list[EntryPoint]:
    try:
        return list(distribution.entry_points.select(group=ENTRY_POINTS))
    except Exception:
        return []
