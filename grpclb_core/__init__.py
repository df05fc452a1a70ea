"""Per-call load balancing for gRPC in Python.

    import grpclb_core as lb

    async with lb.insecure_channel("dns:///greeter.default.svc:50051") as channel:
        stub = GreeterStub(channel)

`docs/life-of-a-call.md` tells what happens then.
"""

from .aio import Balancer, Channel, Codec, insecure_channel, secure_channel
from .config import Config, ConnectionConfig, DnsConfig
from .errors import (
    CodecError,
    ConfigError,
    GrpclbError,
    NativeModuleError,
    ResolutionError,
    TargetError,
    WrongEventLoopError,
)
from .observe import BalancerSnapshot, EndpointSnapshot
from .policies import LeastRequest, P2cEwma, Policy, Random, RoundRobin
from .types import Address, Endpoint, Outcome, Resolution

__all__ = [
    "Address",
    "Balancer",
    "BalancerSnapshot",
    "Channel",
    "Codec",
    "CodecError",
    "Config",
    "ConfigError",
    "ConnectionConfig",
    "DnsConfig",
    "Endpoint",
    "EndpointSnapshot",
    "GrpclbError",
    "LeastRequest",
    "NativeModuleError",
    "Outcome",
    "P2cEwma",
    "Policy",
    "Random",
    "Resolution",
    "ResolutionError",
    "RoundRobin",
    "TargetError",
    "WrongEventLoopError",
    "insecure_channel",
    "secure_channel",
]
