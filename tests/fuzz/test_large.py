"""Inputs that are too large for a corpus, and no larger than what their way in lets through.

What takes time with the square of such an input would hold up the event loop for minutes.
"""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from fuzz.targets import DECODERS, check

MOST_S = 20.0  # a slow and busy machine, and the tracing of memory, included; each takes a second or less
MOST_MEMORY = 256 * 2**20  # bytes


def services(priority: int, weight: int, port: int) -> bytes:
    """A message of 58 KB: 1 600 services of one target, and 1 600 addresses of it; each number may grow by 1."""
    question = b"\7greeter\4test\0" + struct.pack("!HH", 33, 1)
    head = b"\2\0\x81\x80" + struct.pack("!4H", 1, 1600, 0, 1600) + question
    target = struct.pack("!H", 0xC000 | len(head) + 18)  # a pointer to the first one
    body = bytearray()
    for number in range(1600):
        numbers = struct.pack("!HHH", *(1 + grows * number for grows in (priority, weight, port)))
        data = numbers + (target if number else b"\1a\xc0\x0c")
        body += b"\xc0\x0c" + struct.pack("!HHIH", 33, 1, 30, len(data)) + data
    for number in range(1600):
        body += target + struct.pack("!HHIHI", 1, 1, 30, 4, 0x0A000000 + number)
    return head + bytes(body)


def resolv_conf() -> bytes:
    servers = "".join(f"nameserver ::{number:x}\n" for number in range(1900))
    return f"{servers}search {' '.join(f'{number:x}' for number in range(6000))}\n".encode()


def priorities() -> bytes:
    message = ClusterLoadAssignment(cluster_name="greeter")
    for priority in range(30_000):
        part = message.endpoints.add(priority=priority)
        part.locality.zone = "a"
        part.load_balancing_weight.value = 1
    return message.SerializeToString()


def long_cluster() -> bytes:
    message = ClusterLoadAssignment(cluster_name="a" * 100_000)
    for _ in range(10_000):
        message.endpoints.add().lb_endpoints.add()
    return message.SerializeToString()


def long_slice() -> bytes:
    ports = [{"port": 1}]
    return json.dumps({"metadata": {"name": "a" * 100_000}, "endpoints": [{}] * 10_000, "ports": ports}).encode()


def long_address() -> bytes:
    members = [{"addresses": ["\x01" * 100_000]}] * 20
    return json.dumps({"metadata": {"name": "a"}, "endpoints": members, "ports": [{"port": 1}]}).encode()


def long_keys() -> bytes:
    return json.dumps({"header": {}, "kvs": [{"key": "AAAA" * 1000}] * 10_000}).encode()


def instances() -> bytes:
    nodes = [f"10.0.{n >> 8}.{n & 255}" for n in range(20_000)]
    return json.dumps([{"Node": {"Address": node}, "Service": {"Port": 1}} for node in nodes]).encode()


def endpoints() -> bytes:
    return json.dumps([f"10.0.{n >> 8}.{n & 255}:1" for n in range(20_000)]).encode()


INPUTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "services of many ports": ("dns-reply", lambda: services(0, 0, 1)),
    "services of many priorities": ("dns-reply", lambda: services(1, 0, 0)),
    "services of many weights": ("dns-reply", lambda: services(0, 1, 0)),
    "servers and search domains": ("resolv-conf", resolv_conf),
    "names of one address": ("hosts", lambda: b"10.0.0.1" + b" a" * 100_000),
    "endpoints": ("file-json", endpoints),
    "bad endpoints": ("file-json", lambda: json.dumps([f"a{n}:b" for n in range(20_000)]).encode()),
    "a string of quotes without an end": ("file-toml", lambda: b'a = "' + b'\\"' * 200_000),
    "a dotted key between strings": ("file-toml", lambda: b"a = ['''\n\" ''', {" + b"a." * 200_000 + b'a = 1}, ""]'),
    "a long name of a slice": ("kubernetes-slice", long_slice),
    "long addresses": ("kubernetes-slice", long_address),
    "long keys": ("etcd-range", long_keys),
    "instances": ("consul-health", instances),
    "priorities": ("xds-assignment", priorities),
    "a long name of a cluster": ("xds-assignment", long_cluster),
    "unknown fields": ("health-response", lambda: b"\x10\x01" * 2_000_000),
}


@pytest.mark.parametrize("title", INPUTS)
def test_it_is_read_in_time(title: str) -> None:
    name, make = INPUTS[title]
    data = make()
    tracemalloc.start()
    try:
        began_s = time.perf_counter()
        check(DECODERS[name], data)
        took_s = time.perf_counter() - began_s
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took_s < MOST_S
    assert most < MOST_MEMORY
