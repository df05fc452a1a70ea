"""Endpoints that the user lists: the smallest resolver there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from ..errors import ConfigError, ResolutionError
from ..types import Address, Endpoint, Resolution
from .target import Target, parse_target

if TYPE_CHECKING:
    from ..config import Config
    from . import Resolver, Sink

EndpointLike: TypeAlias = "Endpoint | Address | str | tuple[Address | str, float]"
"""An endpoint, an address, the text of one (`"10.0.0.1:50051"`, `"unix:/run/a.sock"`), or one of these and a weight."""


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of a target that spells its addresses out."""
    return StaticResolver(target.addresses, target.authority)


class StaticResolver:
    """Pushes one fixed set and is done.

    Example:
        >>> resolver = StaticResolver(["10.0.0.1:50051", ("10.0.0.2:50051", 3.0)])
        >>> [str(endpoint.address) for endpoint in resolver.endpoints]
        ['10.0.0.1:50051', '10.0.0.2:50051']

    Raises:
        ConfigError: see `static_endpoints`.
    """

    def __init__(self, items: Iterable[EndpointLike], authority: str | None = None) -> None:
        self.authority = authority
        self.endpoints = static_endpoints(items)

    async def run(self, sink: Sink) -> None:
        """Push the set and return."""
        sink.update(Resolution(self.endpoints))

    def refresh(self) -> None:
        """Do nothing: a list does not change."""


class NoResolver:
    """Reports, once, that a target can have no endpoints."""

    def __init__(self, reason: str, authority: str | None = None) -> None:
        self.authority = authority
        self._reason = reason

    async def run(self, sink: Sink) -> None:
        """Report the reason and return."""
        sink.fail(ResolutionError(self._reason))

    def refresh(self) -> None:
        """Do nothing: it will not change."""


def static_endpoints(items: Iterable[EndpointLike]) -> tuple[Endpoint, ...]:
    """Make endpoints of a user's list, in its order.

    Raises:
        ConfigError: with one problem for each item that cannot be used, or whose address is listed twice; or the
            list is empty.
    """
    if isinstance(items, str):
        raise ConfigError(f"endpoints: expected a list, got the string {items!r}; write [{items!r}]")
    endpoints: dict[Address, Endpoint] = {}
    problems: list[str] = []
    for position, item in enumerate(items):
        try:
            endpoint = _endpoint(item)
        except ConfigError as error:
            problems += [f"endpoints[{position}]: {problem}" for problem in error.problems]
            continue
        if endpoint.address in endpoints:
            problems.append(f"endpoints[{position}]: {endpoint.address} is listed twice; give it one weight instead")
        endpoints[endpoint.address] = endpoint
    if not endpoints and not problems:
        problems.append("endpoints: the list is empty; give at least one address")
    if problems:
        raise ConfigError(problems)
    return tuple(endpoints.values())


def _endpoint(item: EndpointLike) -> Endpoint:
    if isinstance(item, Endpoint):
        return item
    if not isinstance(item, tuple):
        return Endpoint(_address(item))
    if len(item) != 2:
        raise ConfigError(f"{item!r} is not usable; write (address, weight)")
    address, weight = item
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise ConfigError(f"weight {weight!r} is not a number")
    return Endpoint(_address(address), float(weight))


def _address(item: Address | str) -> Address:
    if isinstance(item, Address):
        return item
    if not isinstance(item, str):
        raise ConfigError(f"{item!r} is not usable; give an Endpoint, an Address or a string such as '10.0.0.1:50051'")
    addresses = parse_target(item).addresses
    if len(addresses) != 1:
        raise ConfigError(f"{item!r} is not one address; use a dns:/// target for a name, one item for each address")
    return addresses[0]
