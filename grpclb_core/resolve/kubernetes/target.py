"""What a `k8s` target says.

k8s:///greeter.default:50051         a service, its namespace, the port its pods listen on
k8s:///greeter.default:grpc          the same by the port's name
k8s:///greeter:grpc                  in the namespace of this pod, or of the kubeconfig's context
k8s:///greeter.default.svc:grpc      as DNS has it; what follows the namespace means nothing here
k8s:///greeter.default               the one port that the service has
"""

from __future__ import annotations

import re

import msgspec

from ...errors import TargetError

# RFC 1123 labels in lower case: what Kubernetes allows for services, namespaces and the ports of EndpointSlices.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ADVICE = "write k8s:///service.namespace:port"


class KubernetesTarget(msgspec.Struct, frozen=True):
    """A service and which of its ports."""

    service: str
    namespace: str = ""
    """Empty means the one that the credentials belong to."""
    port: int | str | None = None
    """The number that the pods listen on, or the name that the service gives it; None means its only one."""
    authority: str = ""
    """What calls carry as `:authority`: the name as it was written, and the port if that is a number."""


def parse_kubernetes(rest: str) -> KubernetesTarget:
    """Parse what follows `k8s:`.

    Raises:
        TargetError: with one problem for each part that cannot be used.
    """
    server, _, name = rest.removeprefix("//").partition("/")
    if server:
        raise TargetError(
            f"{server!r} stands where an API server would, and that is found by itself; {_ADVICE}, with three slashes"
        )
    host, colon, port = name.partition(":")
    service, *qualified = host.split(".")
    problems = []
    if not host:
        problems.append(f"the service is missing; {_ADVICE}")
    elif not all(_LABEL.fullmatch(label) for label in (service, *qualified)):
        problems.append(
            f"{host!r} is no service of a namespace: use lower-case letters, digits and '-', at most 63 between two "
            f"dots; {_ADVICE}"
        )
    elif qualified[1:2] not in ([], ["svc"]):
        problems.append(f"{host!r} has too many parts, as a service's name holds no dot; {_ADVICE}")
    if colon and not _usable(port):
        problems.append(f"port {port!r} is neither a number from 1 to 65535 nor the name of a port; {_ADVICE}")
    if problems:
        raise TargetError(problems)
    number = int(port) if port.isdigit() else None
    return KubernetesTarget(
        service=service,
        namespace=qualified[0] if qualified else "",
        port=number or port or None,
        authority=f"{host}:{number}" if number else host,
    )


def _usable(port: str) -> bool:
    if port.isascii() and port.isdigit():
        return len(port) <= 5 and 1 <= int(port) <= 65535
    return bool(_LABEL.fullmatch(port))
