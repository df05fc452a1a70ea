"""What is compared: a channel for each way to balance."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import msgspec

import grpclb_core as lb
from grpclb_core.cli.demo.names import NAME, NameServer
from grpclb_core.cli.measure.call import OWN_CONNECTIONS
from grpclb_core.policies import POLICIES

from .envoy import bootstrap, running_envoy
from .fleet import HOSTS
from .scenarios import Scenario

ENVOY, DIRECT = "Envoy LEAST_REQUEST", "no balancer, one server"
GRPCIO = ("grpcio round_robin", "grpcio weighted_round_robin")
RIVALS = (*GRPCIO, ENVOY)
ENVOY_OUTLIERS = "Envoy, outlier detection"  # if asked for: more than a policy

# Weights are not used for 10 s after the first load report (gRFC A58's default), which is as long as a turn. With this
# they are before the part of it that counts begins.
BLACKOUT_S = 0.5
POLICY_OF = {
    "grpcio round_robin": {"round_robin": {}},
    "grpcio weighted_round_robin": {"weighted_round_robin": {"blackoutPeriod": f"{BLACKOUT_S}s"}},
}
OPTIONS_OF = {"weighted_round_robin": {"blackout_period_s": BLACKOUT_S}}
"""Of our own policies, where the default would not do."""


# gRPC looks a name up again when a connection breaks, and never else. So its zone has an address in it where nobody
# listens, and this is how often it tries that one: it costs no call, for round robin uses what is connected.
LOOKS_AGAIN = (
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Place(NamedTuple):
    """Where the servers are."""

    port: int
    names: NameServer | None
    """Who knows them; None: they are the first four of `HOSTS`."""

    @property
    def target(self) -> str:
        if self.names is not None:
            return self.names.target(self.port)
        return "ipv4:" + ",".join(f"{host}:{self.port}" for host in HOSTS[:-1])


Open = Callable[[Place], AbstractAsyncContextManager[grpc.aio.Channel]]


class Balancer(NamedTuple):
    """One way to balance."""

    name: str
    open: Open
    needs_a_broken_address: bool = False
    """Whether it looks a name up again only when something breaks."""

    def takes_part(self, scenario: Scenario) -> bool:
        """Tell whether there is anything to learn from it: a single server says what a call costs when all is well."""
        return self.name != DIRECT or scenario.name == "healthy"


def ours(name: str) -> Balancer:
    """Return this library with one of its policies."""
    policy = msgspec.convert(OPTIONS_OF.get(name, {}), POLICIES[name])
    return Balancer(name, lambda place: lb.insecure_channel(place.target, OWN_CONNECTIONS, policy=policy))


def grpcio(name: str) -> Balancer:
    """Return grpcio with a policy of its own."""
    service_config = json.dumps({"loadBalancingConfig": [POLICY_OF[name]]})
    options = [*OWN_CONNECTIONS, *LOOKS_AGAIN, ("grpc.service_config", service_config)]
    return Balancer(name, lambda place: grpc.aio.insecure_channel(place.target, options), needs_a_broken_address=True)


def envoy(name: str, binary: Path) -> Balancer:
    """Return grpcio with one connection, to an Envoy."""
    finds_outliers = name == ENVOY_OUTLIERS

    @asynccontextmanager
    async def open_(place: Place) -> AsyncIterator[grpc.aio.Channel]:
        if place.names is None:
            configuration = bootstrap(HOSTS[:-1], place.port, finds_outliers=finds_outliers)
        else:
            configuration = bootstrap([NAME], place.port, place.names.port, finds_outliers=finds_outliers)
        async with (
            running_envoy(binary, configuration) as address,
            grpc.aio.insecure_channel(address, OWN_CONNECTIONS) as channel,
        ):
            yield channel

    return Balancer(name, open_)


def direct() -> Balancer:
    """Return grpcio with one connection, to the first server."""
    return Balancer(DIRECT, lambda place: grpc.aio.insecure_channel(f"{HOSTS[0]}:{place.port}", OWN_CONNECTIONS))
