"""Options: parsed once at the edge into frozen values, every default stated here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from .errors import ConfigError

Seconds = Annotated[float, msgspec.Meta(ge=0)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
PositiveCount = Annotated[int, msgspec.Meta(ge=1)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]  # uint32, where it stands for a field of protobuf
WireSeconds = Annotated[float, msgspec.Meta(gt=0, le=2_147_483)]
"""C-core takes it in milliseconds, in 32 bits: 24 days at most."""
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]


ChannelOption: TypeAlias = tuple[str, object]
"""The name and the value of an option of gRPC's channels."""


class DnsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How names are looked up and how often they are looked up again.

    Raises:
        ConfigError: the floor of the time between two lookups is above its ceiling.
    """

    min_ttl_s: PositiveSeconds = 1.0
    """Floor of the time between two lookups; a TTL of 0 would ask without pause."""
    max_ttl_s: PositiveSeconds = 30.0
    """Ceiling of that time: a long TTL would keep new servers idle. 30 s is what C-core waits at least."""
    jitter_s: Seconds = 0.5
    """Each wait is lengthened by a random part of this, at most a tenth of itself, so that clients spread."""
    timeout_s: PositiveSeconds = 5.0
    """Longest time one lookup may take, all tries and name servers included."""
    max_backoff_s: PositiveSeconds = 30.0
    """Ceiling of the wait after failed lookups, which grows as gRPC's connection backoff does."""
    empty_hold_s: Seconds = 30.0
    """How long an authoritative empty answer is disbelieved once endpoints were known."""
    max_queries_per_minute: Annotated[int, msgspec.Meta(ge=8)] = 240
    """Ceiling on what this process asks one name server for one name; lookups beyond it wait, and share an answer. Half
    of it is the steady pace: A and AAAA once a second, as `min_ttl_s` allows one channel. The other half is for bursts.
    8 is the least: A and AAAA each 30 s, as C-core's own limit, and each once more over TCP."""
    service_config: bool = False
    """Look for a service config too: a third query, TXT of `_grpc_config.<host>` (gRFC A2). Off, as it is in C-core
    unless the channel option `grpc.service_config_disable_resolution` is 0, which turns it on here as well."""

    def __post_init__(self) -> None:
        if self.min_ttl_s > self.max_ttl_s:
            raise ConfigError(f"min_ttl_s {self.min_ttl_s} is above max_ttl_s {self.max_ttl_s}; lower it")


class KubernetesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a Kubernetes API server is found and watched.

    Raises:
        ConfigError: the floor of the wait after a failure is above its ceiling.
    """

    kubeconfig: str = ""
    """Path of a kubeconfig; empty means KUBECONFIG, then the pod's service account, then ~/.kube/config."""
    context: str = ""
    """Context of the kubeconfig; empty means its current one."""
    preferred_family: Literal["ipv4", "ipv6"] = "ipv4"
    """Which address of a pod counts that has both; a pod is one endpoint, or it would get twice the load."""
    timeout_s: PositiveSeconds = 10.0
    """Longest time until a page of a list is read or a watch has begun, which take milliseconds as a rule."""
    watch_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 300.0
    """A watch is opened anew after one to two times this, at random: client-go's five to ten minutes."""
    min_backoff_s: PositiveSeconds = 0.8
    """Floor of the wait after a failure; client-go's watches begin with it."""
    max_backoff_s: PositiveSeconds = 30.0
    """Ceiling of that wait, which grows as gRPC's connection backoff does; client-go's watches have the same."""
    empty_hold_s: Seconds = 30.0
    """How long an empty list is disbelieved once endpoints were known; an event that empties the set counts at once."""

    def __post_init__(self) -> None:
        if self.min_backoff_s > self.max_backoff_s:
            raise ConfigError(
                f"min_backoff_s {self.min_backoff_s} is above max_backoff_s {self.max_backoff_s}; lower it"
            )


class EtcdConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How etcd is reached, and how its silence and its empty answers are taken.

    Raises:
        ConfigError: files or a user are given in part, or files without `tls`.
    """

    tls: bool = False
    """Speak HTTPS; etcd's own default is HTTP."""
    ca_file: str = ""
    """PEM file of the authorities to trust; empty: those of the machine."""
    cert_file: str = ""
    """PEM file of the client's own certificate, for an etcd that asks for one."""
    key_file: str = ""
    """PEM file of its key; empty: it is in `cert_file`."""
    username: str = ""
    password: str = ""
    timeout_s: PositiveSeconds = 5.0
    """Longest time one member may take to answer, and then the next is asked. As etcdctl's `--command-timeout`."""
    idle_s: PositiveSeconds = 30.0
    """A watch that was silent for this long is opened anew, in case its member hangs: one request, and nothing is read
    twice. Half of the 60 s after which many proxies cut a silent connection off."""
    max_backoff_s: PositiveSeconds = 5.0
    """Ceiling of the wait after failures, which grows as gRPC's connection backoff does. Low, because a client that
    waits does not see servers come; a refused connection costs etcd nothing."""
    empty_hold_s: Seconds = 30.0
    """How long an empty listing is disbelieved once endpoints were known; deletions told by the watch are believed."""

    def __post_init__(self) -> None:
        problems = _tls_problems(self.tls, self.ca_file, self.cert_file, self.key_file)
        if bool(self.username) != bool(self.password):
            problems.append("username and password go together; give both, or neither")
        if problems:
            raise ConfigError(problems)

    def __repr__(self) -> str:
        return _repr_without(self, "password")


class ConsulConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How Consul is reached, and what its checks mean.

    Raises:
        ConfigError: files are given in part, or without `tls`.
    """

    tls: bool = False
    """Speak HTTPS; an agent's own default is HTTP."""
    ca_file: str = ""
    """PEM file of the authorities to trust; empty: those of the machine."""
    cert_file: str = ""
    """PEM file of the client's own certificate, for an agent that asks for one."""
    key_file: str = ""
    """PEM file of its key; empty: it is in `cert_file`."""
    token: str = ""
    """Sent as X-Consul-Token; it needs `service:read` and `node:read`."""
    warning: Literal["healthy", "unhealthy"] = "healthy"
    """What an instance with a warning is; Consul's own DNS gives it out too."""
    wait_s: Annotated[float, msgspec.Meta(ge=1, le=600)] = 30.0
    """How long the agent may hold a query that has nothing new to say, up to the 10 minutes that Consul allows; as
    `EtcdConfig.idle_s`."""
    timeout_s: PositiveSeconds = 5.0
    """Longest time to answer beyond `wait_s` and the sixteenth of it that Consul adds at random."""
    min_interval_s: PositiveSeconds = 0.2
    """Least time between two queries, however fast the index moves: at most five a second, and a change is still seen
    well within a second."""
    max_backoff_s: PositiveSeconds = 5.0
    """Ceiling of the wait after failures; see `EtcdConfig.max_backoff_s`."""
    empty_hold_s: Seconds = 30.0
    """How long an empty answer is disbelieved when it is the first one after a failure."""

    def __post_init__(self) -> None:
        problems = _tls_problems(self.tls, self.ca_file, self.cert_file, self.key_file)
        if problems:
            raise ConfigError(problems)

    def __repr__(self) -> str:
        return _repr_without(self, "token")


def _tls_problems(tls: bool, ca_file: str, cert_file: str, key_file: str) -> list[str]:
    problems = []
    if (ca_file or cert_file or key_file) and not tls:
        problems.append("ca_file, cert_file and key_file mean nothing without tls; set tls to true")
    if key_file and not cert_file:
        problems.append("key_file is the key of cert_file, which is missing; give both")
    return problems


def _repr_without(options: msgspec.Struct, secret: str) -> str:
    """As a struct's own, but for a value that logs should not hold."""
    shown = {name: value for name, value in msgspec.structs.asdict(options).items() if name != secret}
    if getattr(options, secret):
        shown[secret] = "..."
    return f"{type(options).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class XdsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an xDS control plane is found and asked."""

    bootstrap: Mapping[str, object] | None = None
    """gRPC's bootstrap JSON; None takes the file that GRPC_XDS_BOOTSTRAP names, else GRPC_XDS_BOOTSTRAP_CONFIG."""
    delta: bool = False
    """Ask for changes alone (incremental xDS). Every control plane speaks the other dialect, which is gRPC's too."""
    resource_timeout_s: PositiveSeconds = 15.0
    """A cluster that no answer has named for this long does not exist (the xDS protocol's own figure, and gRPC's)."""
    max_backoff_s: PositiveSeconds = 30.0
    """Ceiling of the wait before a stream is opened again, which grows as gRPC's connection backoff does."""
    empty_hold_s: Seconds = 30.0
    """How long the first answer after a reconnect is disbelieved if it would empty the set; later ones are believed."""


class FileConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a file of endpoints is followed."""

    poll_s: PositiveSeconds = 0.5
    """Look at the file at least this often, for a change to count within a second where the kernel tells of none
    (network file systems). It costs microseconds."""
    settle_s: PositiveSeconds = 0.05
    """A file that changed is read once it was left alone for this long; the bytes of one write come far closer."""
    max_bytes: PositiveCount = 8 * 1024 * 1024
    """Longest file that is read: some 50 000 endpoints with all their fields, ten times what one client can use."""
    empty_hold_s: Seconds = 30.0
    """How long an empty list is disbelieved once endpoints were known."""


class ConnectionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every connection to an endpoint is opened with, and how it is left."""

    keepalive_time_s: WireSeconds = 30.0
    """Ping a silent connection after this long. gRPC leaves keepalive off, so a host that vanished is not noticed."""
    keepalive_timeout_s: WireSeconds = 10.0
    """A ping unanswered for this long ends the connection."""
    initial_backoff_s: WireSeconds = 0.25
    """Wait before the second attempt to connect; it grows 1.6-fold with each further one (gRPC connection backoff)."""
    max_backoff_s: WireSeconds = 1.5
    """Ceiling of that wait. gRPC's own 120 s would keep a restarted server idle for minutes; with its jitter of a fifth
    this has one back within two seconds, and the other endpoints serve meanwhile."""
    connect_timeout_s: WireSeconds = 5.0
    """Longest time one attempt to connect may take. Within it TCP asks three times (RFC 6298: after 0, 1 and 3 s), so a
    host that comes back is found two seconds later at most; C-core's own 20 s would sit out the pauses that follow."""
    silence_s: PositiveSeconds = 2.0
    """When no call to an endpoint is answered for this long, and for four times its latency, calls go elsewhere and
    another connection to it is made. Keepalive alone would take its two times together to notice a host that vanished,
    and never notices a process that froze."""
    drain_s: Seconds = 120.0
    """Calls on an endpoint that left the set may run on for this long (linkerd2-proxy's drain time)."""
    linger_s: Seconds = 5.0
    """How long the connection of an endpoint that left is kept at least, for one that flaps to find it still there."""
    per_endpoint: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """Connections to one endpoint. More help where servers limit the calls of a connection (MAX_CONCURRENT_STREAMS, 100
    being common): with one, calls past that number wait for another to end."""


class LocalityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much more the endpoints of the client's own zone are worth."""

    zone: str = ""
    """The zone this client runs in; empty: all zones are the same."""
    min_endpoints: PositiveCount = 6
    """With fewer usable endpoints zones are not looked at (Envoy's `min_cluster_size`)."""


class SlowStartConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a server that just came up gets its share little by little; the names and defaults are Envoy's."""

    window_s: Seconds = 0.0
    """Time until it has its full share; 0 gives it that at once. Only one that is slow for a while after its start
    needs more than the one call at a time that p2c_ewma gives it at first, and its latency after that."""
    aggression: Positive = 1.0
    """1 adds to the share evenly; above, sooner; below, later."""
    least_part: Fraction = 0.1
    """The part of its share that it begins with."""


class HealthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether, and how patiently, servers are asked about themselves (`grpc.health.v1`).

    Raises:
        ConfigError: the first wait after a failed question is above the ceiling of such waits.
    """

    service: str | None = None
    """The name that servers set their health for; empty: the server as a whole; None: nobody is asked (gRFC A17)."""
    answer_timeout_s: PositiveSeconds = 2.0
    """A new connection waits so long for the first answer, then counts as unhealthy: one round trip, with time for a
    lost packet to be sent again (TCP's first retransmission comes after 1 s at most, RFC 6298)."""
    initial_backoff_s: PositiveSeconds = 1.0
    """Wait after a stream that ended without an answer; it grows 1.6-fold with each further one (gRPC connection
    backoff)."""
    max_backoff_s: PositiveSeconds = 10.0
    """Ceiling of that wait. With C-core's 120 s a server that is well again would be idle for two minutes."""

    def __post_init__(self) -> None:
        if self.initial_backoff_s > self.max_backoff_s:
            raise ConfigError(
                f"initial_backoff_s {self.initial_backoff_s} is above max_backoff_s {self.max_backoff_s}; lower it"
            )


class SuccessRateEjection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A50's first algorithm: who succeeds much less often than the others. Defaults are those of gRFC A50."""

    stdev_factor: Count = 1900
    """Thousandths of a standard deviation that a success rate may be below the mean."""
    enforcement_percentage: Percent = 100
    """How many of a hundred outliers are ejected, drawn at random."""
    minimum_hosts: Count = 5
    """With fewer endpoints that have calls enough, nobody is ejected."""
    request_volume: Count = 100
    """Calls in an interval that are enough."""


class FailurePercentageEjection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A50's second algorithm: who fails too many of its calls. Defaults are those of gRFC A50."""

    threshold: Percent = 85
    """Percent of its calls that an endpoint may fail."""
    enforcement_percentage: Percent = 100
    """How many of a hundred outliers are ejected, drawn at random. (In grpc-go the default is 0, as in Envoy.)"""
    minimum_hosts: Count = 5
    """With fewer endpoints that have calls enough, nobody is ejected."""
    request_volume: Count = 50
    """Calls in an interval that are enough."""


class OutlierDetection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Outlier detection as gRPC has it; without either algorithm, there is none. Defaults are those of gRFC A50."""

    interval_s: Seconds = 10.0
    """Time between two looks at the calls of all endpoints."""
    base_ejection_time_s: Seconds = 30.0
    """How long the first ejection lasts; the next ones last a multiple of it."""
    max_ejection_time_s: Seconds = 300.0
    """Ceiling of that, if it is above `base_ejection_time_s`."""
    max_ejection_percent: Percent = 10
    """Once so many of a hundred endpoints are ejected, no further one is. One always may be, unless this is 0."""
    success_rate_ejection: SuccessRateEjection | None = None
    failure_percentage_ejection: FailurePercentageEjection | None = None

    @property
    def detects(self) -> bool:
        return self.success_rate_ejection is not None or self.failure_percentage_ejection is not None

    @property
    def longest_ejection_s(self) -> float:
        return max(self.base_ejection_time_s, self.max_ejection_time_s)


class OutlierConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When an endpoint is done without because its calls fail; a rule whose figure is 0 is off.

    Raises:
        ConfigError: the first pause is above the ceiling of pauses.
    """

    consecutive_failures: Count = 7
    """So many calls failed in a row eject an endpoint (linkerd's default). One that fails a fifth of its calls gets
    there once in 80 000 calls."""
    success_ratio: Fraction = 0.8
    """An endpoint whose share of successes is below this share of the others' is ejected (linkerd's default)."""
    min_requests: PositiveCount = 20
    """Calls in the window without which nobody is ejected for their success ratio. With linkerd's 5, an endpoint that
    fails a tenth of its calls as all others do is taken for an outlier in 8 % of windows, with 20 in 1 %. One that
    fails all its calls is found by `consecutive_failures` long before."""
    window_s: Annotated[float, msgspec.Meta(ge=0.1)] = 10.0
    """The time over which that share is taken (linkerd's default, and the interval of A50). As long as one sweep is the
    least that can tell one window from the next."""
    connection_failures: Count = 5
    """After so many connections that failed or broke without a call answered in between, an endpoint begins on trial
    (finagle's failure accrual takes as many failures in a row)."""
    first_pause_s: PositiveSeconds = 1.0
    """How long an endpoint is left alone at first; twice as long each further time (linkerd's default)."""
    max_pause_s: PositiveSeconds = 60.0
    """Ceiling of that time, jitter included (linkerd's default)."""
    jitter: Fraction = 0.5
    """Each pause is lengthened by a random part of this share of itself, so that clients spread (linkerd's default)."""
    max_ejected_share: Fraction = 0.5
    """The most that these rules have out or on trial at once, as a share of the endpoints that are connected; one may
    always be, where there are two. Half is what `Config.panic_threshold` leaves. 0 turns all of them off."""
    a50: OutlierDetection = OutlierDetection()
    """gRPC's own rules beside these, which need five endpoints that are called often; off."""

    def __post_init__(self) -> None:
        if self.first_pause_s > self.max_pause_s:
            raise ConfigError(f"first_pause_s {self.first_pause_s} is above max_pause_s {self.max_pause_s}; lower it")

    @property
    def accrues(self) -> bool:
        """Whether any rule beside those of A50 is on."""
        rules = (self.consecutive_failures, self.success_ratio, self.connection_failures)
        return self.max_ejected_share > 0 and any(rules)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set on a balanced channel beside its target and its policy."""

    dns: DnsConfig = DnsConfig()
    file: FileConfig = FileConfig()
    etcd: EtcdConfig = EtcdConfig()
    consul: ConsulConfig = ConsulConfig()
    kubernetes: KubernetesConfig = KubernetesConfig()
    xds: XdsConfig = XdsConfig()
    connection: ConnectionConfig = ConnectionConfig()
    health: HealthConfig = HealthConfig()
    locality: LocalityConfig = LocalityConfig()
    slow_start: SlowStartConfig = SlowStartConfig()
    outliers: OutlierConfig = OutlierConfig()
    subset_size: PositiveCount = 64
    """Endpoints of one priority to connect to, at most; of a larger set a random part is taken (gRFC A68)."""
    panic_threshold: Fraction = 0.5
    """When less than this share of the endpoints is healthy, health is not believed and all are used (Envoy's 50 %);
    0 is never."""
    slot_memory_s: Seconds = 60.0
    """How long the history of an endpoint that left is kept, should it come back: six decay times of 10 s,
    after which a latency has faded to a four hundredth."""
    seed: int | None = None
    """Seed of the random draws; None takes one from the system."""


def parse_config(raw: Config | Mapping[str, object] | None) -> Config:
    """Turn what a user gave into a `Config`.

    Raises:
        ConfigError: naming every unknown field, wrong type and value out of range, each with its path.
    """
    if raw is None:
        return Config()
    return parse_struct(Config, raw, "config")


StructT = TypeVar("StructT", bound=msgspec.Struct)


def parse_struct(kind: type[StructT], raw: object, path: str) -> StructT:
    """Convert a mapping to a struct, collecting every fault instead of stopping at the first.

    Raises:
        ConfigError: with one problem for each field at fault, its path in front.
    """
    problems: list[str] = []
    parsed = _collect(kind, raw, path, problems)
    if parsed is None:
        raise ConfigError(problems)
    return parsed


def _nested(annotation: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """Return the struct that an option holds, if it is one, and whether it may be None instead."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    return (structs[0] if structs else None), type(None) in kinds


def _collect(kind: type[StructT], raw: object, path: str, problems: list[str]) -> StructT | None:
    if isinstance(raw, kind):
        # Constructors of structs do not check constraints, so a hand-made one is read like any other input.
        raw = msgspec.structs.asdict(raw)
    if not isinstance(raw, Mapping):
        problems.append(f"{path}: expected a mapping of options, got {type(raw).__name__}")
        return None
    found = len(problems)
    annotations = get_type_hints(kind, include_extras=True)
    values: dict[str, object] = {}
    for name, value in raw.items():
        where = f"{path}.{name}"
        if name not in annotations:
            problems.append(f"{where}: unknown option; known are {', '.join(sorted(annotations))}")
            continue
        nested, may_be_none = _nested(annotations[name])
        if nested is not None and not (value is None and may_be_none):
            values[name] = _collect(nested, value, where, problems)
        else:
            try:
                values[name] = msgspec.convert(value, annotations[name])
            except msgspec.ValidationError as error:
                problems.append(f"{where}: {value!r} is not usable: {error}")
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in raw:
            problems.append(f"{path}.{field.name}: missing; it has no default")
    if len(problems) > found:
        return None
    try:
        return kind(**values)
    except ConfigError as error:
        problems += [f"{path}: {problem}" for problem in error.problems]
        return None
