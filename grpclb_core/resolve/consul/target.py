"""What a `consul` target says.

consul://127.0.0.1:8500/greeter                     the instances of a service, asked of the agent on this machine
consul://127.0.0.1/greeter?dc=eu&tag=v2&tag=grpc    port 8500; of another datacenter, and only those with both tags
consul://127.0.0.1/greeter?near=_agent              nearest first, for policies that look at the order
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

import msgspec

from ...errors import ConfigError, TargetError
from ..http import server_url

DEFAULT_PORT = 8500  # Consul's reference of ports: "HTTP API"
_ADVICE = "write consul://host:8500/service"
_OPTIONS = ("tag", "dc", "near")
# Consul's rule for names that DNS can carry; it takes others with a warning, and those have no place in a target.
_SERVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


class ConsulTarget(msgspec.Struct, frozen=True):
    """An agent, and which instances to ask it for."""

    agent: str
    """Base URL."""
    service: str
    tags: tuple[str, ...] = ()
    """All of them must be there."""
    datacenter: str = ""
    near: str = ""

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """What the request says of all this."""
        named = (("dc", self.datacenter), ("near", self.near))
        return (*(("tag", tag) for tag in self.tags), *((name, value) for name, value in named if value))


def parse_consul(rest: str, *, tls: bool) -> ConsulTarget:
    """Parse what follows `consul:`.

    Raises:
        TargetError: with one problem for each part that cannot be used.
    """
    server, _, path = rest.removeprefix("//").partition("/")
    quoted, _, query = path.partition("?")
    service = unquote(quoted)
    problems: list[str] = []
    agent = ""
    try:
        agent = server_url(server, DEFAULT_PORT, tls=tls) if server else ""
    except ConfigError as error:
        problems += error.problems
    if not server:
        problems.append(f"the agent is missing; {_ADVICE} (127.0.0.1:8500 for the one on this machine)")
    if not service:
        problems.append(f"the service is missing; {_ADVICE}")
    elif not _SERVICE.fullmatch(service):
        problems.append(f"{service!r} is no name of a service: use letters, digits, '-', '_' and dots; {_ADVICE}")
    options: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        options.setdefault(name, []).append(value)
    problems += _problems(options)
    if problems:
        raise TargetError(problems)
    datacenter, near = ("".join(options.get(name, ())) for name in ("dc", "near"))
    return ConsulTarget(agent, service, tuple(options.get("tag", ())), datacenter, near)


def _problems(options: dict[str, list[str]]) -> list[str]:
    problems = [
        f"unknown option {name!r}; known are {', '.join(_OPTIONS)} (a token goes into consul.token)"
        for name in options
        if name not in _OPTIONS
    ]
    problems += [f"option {name!r} is empty; leave it out" for name, values in options.items() if "" in values]
    problems += [f"option {name!r} is given twice" for name in ("dc", "near") if len(options.get(name, ())) > 1]
    return problems
