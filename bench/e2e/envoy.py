"""Envoy between client and servers: its configuration, and a running one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.envoy import STARTED_WITHIN_S, envoy

CLUSTER = LISTENER = "fleet"
UNLIMITED = 2**31 - 1  # the load is ours to set: no limit of Envoy's is what is compared here
# Envoy ejects a tenth of the hosts at most unless it is told otherwise: of four, nobody. Half is this library's figure.
OUTLIERS = {"max_ejection_percent": 50}
REFRESH = "1s"  # of DNS; Envoy's own 5 s would have the newcomer come later than with the others

TYPE = "type.googleapis.com/envoy.extensions"


def bootstrap(
    hosts: Sequence[str], port: int, dns_port: int | None = None, *, finds_outliers: bool = False
) -> dict[str, Any]:
    """Return the configuration of an Envoy that balances HTTP/2 by LEAST_REQUEST, on a free port of loopback.

    Args:
        hosts: addresses, or one name if there is a DNS server to ask.
        port: of every host.
        dns_port: of the DNS server on 127.0.0.1.
        finds_outliers: whether hosts are ejected whose calls fail, by Envoy's own rules.
    """
    cluster = _cluster(hosts, port)
    if dns_port is not None:
        cluster |= _looked_up(dns_port)
    if finds_outliers:
        cluster |= {"outlier_detection": OUTLIERS}
    return {"static_resources": {"listeners": [_listener()], "clusters": [cluster]}}


def _cluster(hosts: Sequence[str], port: int) -> dict[str, Any]:
    http2 = {
        "@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    most = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), UNLIMITED)
    return {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, port)}} for host in hosts]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "circuit_breakers": {"thresholds": [most]},
    }


def _looked_up(dns_port: int) -> dict[str, Any]:
    resolver = {
        "@type": f"{TYPE}.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers": [_address("127.0.0.1", dns_port)],
        "dns_resolver_options": {"no_default_search_domain": True},
    }
    return {
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_ONLY",
        "dns_refresh_rate": REFRESH,
        "typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": resolver},
    }


def _listener() -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": CLUSTER, "timeout": "0s"}}
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "codec_type": "HTTP2",
        "http2_protocol_options": {"max_concurrent_streams": UNLIMITED},
        "route_config": {"virtual_hosts": [{"name": CLUSTER, "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": LISTENER, "address": _address("127.0.0.1", 0), "filter_chains": [chain]}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


@asynccontextmanager
async def running_envoy(binary: Path, configuration: Mapping[str, Any]) -> AsyncIterator[str]:
    """Run an Envoy and yield the address it listens on, once it says that it is ready.

    Raises:
        TimeoutError: it did not say so in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        async with envoy(binary, dict(configuration), Path(folder)) as running:
            await asyncio.wait_for(_ready(running), STARTED_WITHIN_S)
            yield await running.listener(LISTENER)


async def _ready(running: Any) -> None:
    while not await running.ready():
        await asyncio.sleep(0.02)
