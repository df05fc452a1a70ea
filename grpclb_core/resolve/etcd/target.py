"""What an `etcd` target says.

etcd://10.0.0.1:2379/services/greeter              the keys under services/greeter/
etcd://10.0.0.1:2379,10.0.0.2:2379/services/greeter    the same of a cluster, by several of its members
etcd://[::1]/greeter                               port 2379
etcd://10.0.0.1//greeter                           the keys under /greeter/, for those who begin theirs with a slash
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from ...errors import ConfigError, TargetError
from ..http import server_url

DEFAULT_PORT = 2379  # IANA, "etcd client communication"
_ADVICE = "write etcd://host:2379/prefix"
_HOST_NAME = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


class EtcdTarget(msgspec.Struct, frozen=True):
    """Members of a cluster, and where in it the endpoints are."""

    members: tuple[str, ...]
    """Base URLs."""
    prefix: str
    """What the keys begin with; it ends in a slash, so that `greeter` is not `greeter-canary`."""

    @property
    def authority(self) -> str | None:
        """The last part of the prefix where that can be a host, as a gRPC target gives its name; else None."""
        name = self.prefix[:-1].rpartition("/")[2]
        return name if _HOST_NAME.fullmatch(name) else None


def parse_etcd(rest: str, *, tls: bool) -> EtcdTarget:
    """Parse what follows `etcd:`.

    Raises:
        TargetError: with one problem for each part that cannot be used.
    """
    servers, _, path = rest.removeprefix("//").partition("/")
    problems: list[str] = []
    members: list[str] = []
    if "@" in servers:
        raise TargetError(f"a user in front of the host would end in logs; use the option etcd.username; {_ADVICE}")
    if not servers:
        problems.append(f"the members of the cluster are missing; {_ADVICE}")
    for server in servers.split(",") if servers else ():
        try:
            members.append(server_url(server, DEFAULT_PORT, tls=tls))
        except ConfigError as error:
            problems += error.problems
    if "?" in path or "#" in path:
        problems.append(f"options do not belong in the target (a '?' in a key is %3F); {_ADVICE}")
    prefix = unquote(path).removesuffix("/")
    if not prefix.strip("/"):
        problems.append(f"the prefix of the keys is missing; {_ADVICE}")
    if problems:
        raise TargetError(problems)
    return EtcdTarget(members=tuple(dict.fromkeys(members)), prefix=f"{prefix}/")
