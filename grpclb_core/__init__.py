"""Per-call load balancing for gRPC in Python.

    import grpclb_core as lb

    async with lb.insecure_channel("dns:///greeter.default.svc:50051") as channel:
        stub = GreeterStub(channel)

`docs/life-of-a-call.md` tells what happens then.
"""

from .aio import Balancer, Channel, Codec, insecure_channel, secure_channel
from .config import (
    Config,
    ConnectionConfig,
    ConsulConfig,
    DnsConfig,
    EtcdConfig,
    FailurePercentageEjection,
    FileConfig,
    HealthConfig,
    KubernetesConfig,
    LocalityConfig,
    OutlierConfig,
    OutlierDetection,
    SlowStartConfig,
    SuccessRateEjection,
    XdsConfig,
)
from .errors import (
    CodecError,
    ConfigError,
    GrpclbError,
    IdentityError,
    NativeModuleError,
    ResolutionError,
    TargetError,
    WrongEventLoopError,
)
from .identity import ReloadingCredentials
from .observe import BalancerSnapshot, EndpointSnapshot
from .policies import (
    LeastRequest,
    P2cEwma,
    PickFirst,
    Policy,
    Prequal,
    Random,
    RingHash,
    RoundRobin,
    TakesReports,
    WeightedRoundRobin,
)
from .types import Address, Drop, Endpoint, Health, LoadReport, Locality, Outcome, Resolution

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
    "ConsulConfig",
    "DnsConfig",
    "Drop",
    "Endpoint",
    "EndpointSnapshot",
    "EtcdConfig",
    "FailurePercentageEjection",
    "FileConfig",
    "GrpclbError",
    "Health",
    "HealthConfig",
    "IdentityError",
    "KubernetesConfig",
    "LeastRequest",
    "LoadReport",
    "Locality",
    "LocalityConfig",
    "NativeModuleError",
    "Outcome",
    "OutlierConfig",
    "OutlierDetection",
    "P2cEwma",
    "PickFirst",
    "Policy",
    "Prequal",
    "Random",
    "ReloadingCredentials",
    "Resolution",
    "ResolutionError",
    "RingHash",
    "RoundRobin",
    "SlowStartConfig",
    "SuccessRateEjection",
    "TakesReports",
    "TargetError",
    "WeightedRoundRobin",
    "WrongEventLoopError",
    "XdsConfig",
    "insecure_channel",
    "secure_channel",
]
