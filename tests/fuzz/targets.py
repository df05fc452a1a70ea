"""Every decoder of outside input, as a function of bytes.

`check` is what each has to keep: of any input it makes something of bounded size, or it raises the error that its
caller expects, and nothing else. test_corpus.py checks the inputs under corpus/, run.py looks for more of them.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple, cast

import dns.message
import dns.name
import dns.resolver
import httpx
import msgspec

from grpclb_core.errors import ConfigError, IdentityError, ResolutionError
from grpclb_core.health.codec import decode_response
from grpclb_core.identity.spiffe import check_spiffe_id, parse_spiffe_id
from grpclb_core.resolve.consul.health import read_instances
from grpclb_core.resolve.consul.target import parse_consul
from grpclb_core.resolve.dns import hosts, lookup, srv
from grpclb_core.resolve.dns.resolvconf import MAX_SIZE, candidates, parse_resolv_conf
from grpclb_core.resolve.dns.service_config import choose
from grpclb_core.resolve.etcd.client import RangeAnswer, Watch
from grpclb_core.resolve.etcd.target import parse_etcd
from grpclb_core.resolve.etcd.values import Listing, endpoint_of, value_of
from grpclb_core.resolve.file.format import parse_document, read_endpoints
from grpclb_core.resolve.file.resolver import path_of
from grpclb_core.resolve.http import decode_json
from grpclb_core.resolve.kubernetes.api import Api, _List
from grpclb_core.resolve.kubernetes.cluster import Cluster, read_kubeconfig
from grpclb_core.resolve.kubernetes.slices import Slice, SliceObject, merge, read_slice
from grpclb_core.resolve.kubernetes.target import KubernetesTarget, parse_kubernetes
from grpclb_core.resolve.target import parse_target
from grpclb_core.resolve.xds import cluster_of
from grpclb_core.resolve.xds.assignment import RejectedError, decode_assignment
from grpclb_core.resolve.xds.bootstrap import parse_bootstrap
from grpclb_core.resolve.xds.stream import answer_delta, answer_sotw, node_message
from grpclb_core.service_config import ServiceConfigs, parse_service_config, service_config_json
from grpclb_core.types import Endpoint, Health, ip_address

CORPUS = Path(__file__).parent / "corpus"
GROWTH = 400
"""Characters that a byte of input may become. Where a file has a fault in every byte, each is told in as many."""
BASE = 10_000
"""Characters that may be made of nothing."""
MOST_QUERIES = 1_000
"""Of one lookup that finds nothing, for each type of record."""

_SCRATCH = tempfile.TemporaryDirectory(prefix="grpclb-fuzz-")
_NAME = dns.name.from_text("greeter.test.")
_NO_CLIENT = cast("httpx.AsyncClient", None)
_API = Api(_NO_CLIENT, Cluster("https://10.0.0.1"), KubernetesTarget("greeter", "default", "grpc"), timeout_s=1.0)


class Decoder(NamedTuple):
    """A way in for bytes from outside."""

    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = ()
    """What it may raise; what calls it takes these for a fault of the source."""


def check(decoder: Decoder, data: bytes) -> None:
    """Read some bytes, and make sure that what comes of them is bounded; an error that is no refusal passes through."""
    try:
        found = repr(decoder.read(data))
    except decoder.refusals as error:
        found = str(error)
    most = BASE + GROWTH * len(data)
    assert len(found) <= most, f"{len(found)} characters are made of {len(data)} bytes; {most} are allowed"


def dns_reply(wire: bytes) -> object:
    """Take an answer of a name server; the first byte, of the message's id, tells what was asked for."""
    record_type = ("A", "AAAA", "SRV")[wire[0] % 3] if wire else "A"
    request = dns.message.make_query(_NAME, record_type, id=int.from_bytes(wire[:2], "big"))
    try:
        reply = lookup._reply(request, wire)
        if reply is None:
            return None
        question = request.question[0]
        answer = dns.resolver.Answer(_NAME, question.rdtype, question.rdclass, reply)
    except dns.message.Truncated:
        return None
    except Exception as error:  # as dnspython's resolver does, which goes on to the next name server
        return error
    found = lookup._read(answer, record_type)
    if record_type != "SRV":
        return [Endpoint(ip_address(host, 443, where="an answer")) for host in found.addresses]
    hosts_of = {
        name: tuple(host for answer in by_type.values() for host in answer.addresses)
        for name, by_type in found.glue.items()
    }
    return srv.endpoints_of(srv.offered(found.services), hosts_of)


def resolv_conf(data: bytes) -> object:
    """Read resolv.conf, and make the names to ask for of a short one."""
    settings = parse_resolv_conf(data.decode(errors="replace")[:MAX_SIZE], "pod-0.example.org")
    names = candidates("greeter", settings)
    assert len(names) * len(settings.servers) <= MOST_QUERIES, "each name may be asked of each server"
    return settings, names


def hosts_file(data: bytes) -> object:
    """Read a hosts file, and look all its names up."""
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace")  # as an opened file gives them
    return {name: [hosts._canonical(text) for text in texts] for name, texts in hosts._parse(lines).items()}


def file_json(data: bytes) -> object:
    """Read a file of endpoints in JSON."""
    return read_endpoints(parse_document(data, "endpoints.json"))


def file_toml(data: bytes) -> object:
    """Read a file of endpoints in TOML."""
    return read_endpoints(parse_document(data, "endpoints.toml"))


def kubernetes_slice(data: bytes) -> object:
    """Read an EndpointSlice, by the name of a port, its number, and neither."""
    found = decode_json(data, SliceObject, "a test")
    return [merge([read_slice(found, port)], "ipv4") for port in ("grpc", 50051, None)]


def kubernetes_list(data: bytes) -> object:
    """Read a page of a list of EndpointSlices."""
    return merge([_API._read_slice(item) for item in decode_json(data, _List, "a test").items or ()], "ipv6")


def kubernetes_watch(data: bytes) -> object:
    """Read the lines of a watch, one event each."""
    slices: dict[str, Slice] = {}
    for line in data.split(b"\n"):
        change = _API._read_event(line)
        if change is not None and change.slice is not None:
            slices[change.slice.name] = change.slice
    return merge(slices.values(), "ipv4")


def kubeconfig(data: bytes) -> object:
    """Read a kubeconfig."""
    path = Path(_SCRATCH.name, "kubeconfig")
    path.write_bytes(data)
    return read_kubeconfig([path])


def etcd_value(data: bytes) -> object:
    """Read the value of a key; written again, it means the same."""
    endpoint = endpoint_of(data)
    assert endpoint_of(value_of(endpoint)) == endpoint
    return endpoint


def etcd_range(data: bytes) -> object:
    """Read the answer to a range."""
    answer = decode_json(data, RangeAnswer, "a test")
    listing = Listing()
    return int(answer.header.revision), listing.replace(answer.kvs), listing.endpoints()


def etcd_watch(data: bytes) -> object:
    """Read the lines of a watch."""
    watch, listing = Watch(cast("AsyncIterator[bytes]", None), "a test"), Listing()
    problems: list[str] = []
    for line in data.split(b"\n"):
        answer = watch._read(line)
        int(answer.header.revision)
        problems += listing.apply(answer.events)
    return problems, listing.endpoints()


def consul_health(data: bytes) -> object:
    """Read an answer of the health endpoint."""
    return read_instances(decode_json(data, list[msgspec.Raw], "a test"), Health.UNHEALTHY)


def xds_assignment(data: bytes) -> object:
    """Read a ClusterLoadAssignment."""
    return decode_assignment(data, "1")


def xds_answer(data: bytes) -> object:
    """Take what may come on an ADS stream, for one in either dialect."""
    steps = []
    for answer in (answer_sotw, answer_delta):
        try:
            steps.append(answer("greeter", "1", data))
        except RejectedError as error:
            steps.append(error)
    return steps


def xds_bootstrap(data: bytes) -> object:
    """Read a bootstrap, and introduce the node in it."""
    bootstrap = parse_bootstrap(data, "a test")
    return bootstrap, len(node_message(bootstrap.node).SerializeToString())


def service_config(data: bytes) -> object:
    """Read a service config; written again, it means the same, and connections can have their part of it."""
    config = parse_service_config(data)
    again = parse_service_config(service_config_json(config))
    assert (again.policy, again.outlier_detection) == (config.policy, config.outlier_detection)
    configs = ServiceConfigs()
    configs.take(data.decode())
    return config, configs.for_connections


def txt_record(data: bytes) -> object:
    """Read TXT records, one a line, for a client in the middle of all."""
    return choose(data.decode(errors="replace").split("\n"), 50, "here")


def target(data: bytes) -> object:
    """Parse a target, and with the scheme's own parser what that leaves over."""
    found = parse_target(data.decode(errors="surrogateescape"))  # as Python reads the command line
    parse_rest: dict[str, Callable[[str], object]] = {
        "consul": lambda rest: parse_consul(rest, tls=False),
        "etcd": lambda rest: parse_etcd(rest, tls=True),
        "file": path_of,
        "k8s": parse_kubernetes,
        "srv": srv.parse_service,
        "xds": cluster_of,
    }
    if found.scheme in parse_rest:
        return found, parse_rest[found.scheme](found.rest)
    assert found.host or found.addresses
    return found, [address.uri for address in found.addresses]


def spiffe_id(data: bytes) -> object:
    """Check the URIs of a certificate, one a line."""
    uris = data.decode("latin-1").split("\n")  # an IA5String, as ssl gives it
    return check_spiffe_id(uris, parse_spiffe_id("spiffe://example.org"), "10.0.0.1:50051")


DECODERS = {
    "consul-health": Decoder(consul_health, (ResolutionError,)),
    "dns-reply": Decoder(dns_reply),
    "etcd-range": Decoder(etcd_range, (ResolutionError,)),
    "etcd-value": Decoder(etcd_value, (ConfigError,)),
    "etcd-watch": Decoder(etcd_watch, (ResolutionError,)),
    "file-json": Decoder(file_json, (ConfigError,)),
    "file-toml": Decoder(file_toml, (ConfigError,)),
    "health-response": Decoder(lambda data: decode_response(data), (ValueError,)),
    "hosts": Decoder(hosts_file),
    "kubeconfig": Decoder(kubeconfig, (ConfigError,)),
    "kubernetes-list": Decoder(kubernetes_list, (ResolutionError,)),
    "kubernetes-slice": Decoder(kubernetes_slice, (ResolutionError,)),
    "kubernetes-watch": Decoder(kubernetes_watch, (ResolutionError,)),
    "resolv-conf": Decoder(resolv_conf),
    "service-config": Decoder(service_config, (ConfigError,)),
    "spiffe-id": Decoder(spiffe_id, (IdentityError,)),
    "target": Decoder(target, (ConfigError,)),
    "txt-record": Decoder(txt_record, (ConfigError,)),
    "xds-answer": Decoder(xds_answer),
    "xds-assignment": Decoder(xds_assignment, (RejectedError,)),
    "xds-bootstrap": Decoder(xds_bootstrap, (ConfigError,)),
}
