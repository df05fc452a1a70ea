"""Endpoints from an xDS control plane: EDS over one ADS stream, without the rest of xDS.

`xds:///cluster` subscribes to the ClusterLoadAssignment of that name; listeners, routes and clusters are not asked for,
as the policy and the connections are ours. Read in this order: `assignment.py` (what a control plane says, and when it
is refused), `stream.py` (what is said back), `bootstrap.py` (whom to ask), `client.py` (the connections).

What an answer means:

    an assignment           the set; pushed when it changed, or when something failed before
    one that is no good     refused (NACK) with the reason, and reported; the last set stays
    one without endpoints,  believed at once, so that an empty set is pushed and the reason reported; but if it is the
      or its removal        first answer after a reconnect and would empty the set, only after `empty_hold_s`
    none within             the cluster does not exist: reported
      `resource_timeout_s`
    the stream is cut       opened again with backoff; reported if the server had nothing to say before
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from ...config import Config
from ...errors import ConfigError, TargetError
from .bootstrap import read_bootstrap

if TYPE_CHECKING:
    from .. import Resolver
    from ..target import Target

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?")  # RFC 3986 3.2, without what needs an escape


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of `xds:///cluster`.

    Raises:
        TargetError: the cluster is missing, or another authority than that of the bootstrap is asked for.
        ConfigError: there is no bootstrap, or it cannot be used; or xds-protos is not installed.
    """
    try:
        from .client import XdsResolver
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "grpclb_core":
            raise
        raise ConfigError(f"this target needs xds-protos ({error}); pip install 'grpclb-core[xds]'") from None
    cluster = cluster_of(target.rest)
    return XdsResolver(cluster, read_bootstrap(config.xds.bootstrap, os.environ), config.xds)


def cluster_of(rest: str) -> str:
    """Return the cluster that a target names in what follows its scheme, its percent escapes resolved.

    Raises:
        TargetError: there is none, it is no UTF-8, or an authority stands before it.
    """
    authority, _, quoted = rest.removeprefix("//").partition("/")
    if authority:
        raise TargetError(
            f"authority {authority!r}: only the servers of the bootstrap are asked; write xds:///{quoted or authority}"
        )
    if not quoted:
        raise TargetError("the cluster is missing; write xds:///cluster")
    try:
        return unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError as error:
        raise TargetError(f"cluster {quoted!r} is no UTF-8 ({error.reason}); escape it as UTF-8") from None


def authority_of(cluster: str) -> str | None:
    """Return what calls carry as `:authority`: the name of the cluster if it can be a host, as gRPC has it."""
    return cluster if _HOST.fullmatch(cluster) else None
