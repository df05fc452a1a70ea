"""A Kubernetes API server for tests, as far as EndpointSlices go, that fails on demand.

It behaves as a real one (v1.36) was seen to: lists come in pages and carry a version, a watch sends one JSON object to
a line, a version that is too old is a 410 inside a 200 stream, a bookmark comes before a watch ends in its time, and a
refusal has a Status for its body. Addresses on the loopback, which a real one refuses, are allowed.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

LABEL = "kubernetes.io/service-name"
SLICES = "apis/discovery.k8s.io/v1/namespaces/"


def endpoint(address: str, **fields: Any) -> Json:
    """One endpoint of a slice, ready unless told otherwise."""
    ready = {"ready": True, "serving": True, "terminating": False}
    return {"addresses": [address], "conditions": ready} | fields


def endpoint_slice(
    name: str,
    *endpoints: Json | str,
    service: str = "greeter",
    ports: Iterable[tuple[str, int]] = (("grpc", 50051),),
    family: str = "IPv4",
) -> Json:
    """An EndpointSlice; an endpoint may be given by its address."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {LABEL: service}},
        "addressType": family,
        "endpoints": [endpoint(each) if isinstance(each, str) else each for each in endpoints],
        "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in ports],
    }


class Request(NamedTuple):
    verb: str
    params: dict[str, str]
    token: str


class _Entry(NamedTuple):
    """What a watch is to send: an event, or with `version` 0 something that only the watches open now see."""

    version: int
    line: bytes
    namespace: str = ""
    service: str = ""
    then: str = ""  # "cut": break the connection; "end": end the watch in order


class ApiServer:
    """An API server on a free port of 127.0.0.1, which can be changed as it runs. Every request is in `requests`.

    With `tls` it speaks HTTPS; with `token` it lets in who bears it, and refuses others with 401, or with 403 who
    bears none.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, token: str = "") -> None:
        self.requests: list[Request] = []
        self.token = token
        self.bookmarks = True
        self._tls = tls is not None
        self._denied: dict[str, tuple[int, str]] = {}
        self._slices: dict[tuple[str, str], Json] = {}
        self._log: list[_Entry] = []
        self._version = 1000
        self._oldest = 0
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        if tls is not None:
            # The handshake is made by the first read, in the connection's own thread.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self.go_down()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return self._server.watching

    def put(self, found: Json, namespace: str = "default") -> Json:
        """Create a slice or replace it."""
        with self._changed:
            name = found["metadata"]["name"]
            kind = "MODIFIED" if (namespace, name) in self._slices else "ADDED"
            found = json.loads(json.dumps(found))
            self._slices[namespace, name] = found
            self._note(kind, found, namespace)
            return found

    def delete(self, name: str, namespace: str = "default") -> Json | None:
        with self._changed:
            found = self._slices.pop((namespace, name), None)
            if found is not None:
                self._note("DELETED", found, namespace)
            return found

    def put_quietly(self, *slices: Json, namespace: str = "default") -> None:
        """Have these slices and no others, as if everything happened while nobody could watch."""
        with self._changed:
            self._slices.clear()
            self._version += 1
            for found in slices:
                found["metadata"] |= {"namespace": namespace, "resourceVersion": str(self._version)}
                self._slices[namespace, found["metadata"]["name"]] = found
            self.compact()

    def compact(self) -> None:
        """Forget the past: a watch or the next page of a list from before now is told 410."""
        with self._changed:
            self._version += 1
            self._oldest = self._version

    def expire_watches(self) -> None:
        """Tell the open watches, inside their streams, that they are too old."""
        self.inject(_line("ERROR", _status(410, "Expired", "too old resource version: 1 (1000)")), then="end")

    def inject(self, line: bytes, then: str = "") -> None:
        """Send something to the watches that are open now; then "cut" the connection or "end" the watch, if wanted."""
        with self._changed:
            self._log.append(_Entry(0, line, then=then))
            self._changed.notify_all()

    def cut_watches(self) -> None:
        """Break the connections of the watches in the middle of a line."""
        line = _line("MODIFIED", endpoint_slice("cut", "10.9.9.9"))
        self.inject(line[: len(line) // 2], then="cut")

    def deny(self, verb: str, code: int = 403, reason: str = "Forbidden") -> None:
        """Refuse "list" or "watch" from now on."""
        self._denied[verb] = code, reason

    def allow(self, verb: str) -> None:
        self._denied.pop(verb, None)

    def go_down(self) -> None:
        """Break every connection, and take no new ones."""
        self._server.down = True
        self._server.sever()
        with self._changed:
            self._changed.notify_all()

    def come_up(self) -> None:
        self._server.down = False

    def _note(self, kind: str, found: Json, namespace: str) -> None:
        self._version += 1
        found["metadata"] |= {"namespace": namespace, "resourceVersion": str(self._version)}
        service = found["metadata"].get("labels", {}).get(LABEL, "")
        self._log.append(_Entry(self._version, _line(kind, found), namespace, service))
        self._changed.notify_all()

    # What the handlers ask

    def refusal(self, request: Request, namespace: str) -> Json | None:
        if self.token and request.token != self.token:
            if request.token:
                return _status(401, "Unauthorized", "Unauthorized")
            return _status(403, "Forbidden", _forbidden("system:anonymous", request.verb, namespace))
        if request.verb in self._denied:
            code, reason = self._denied[request.verb]
            user = "system:serviceaccount:default:default"
            return _status(code, reason, _forbidden(user, request.verb, namespace) if code == 403 else reason)
        return None

    def page(self, params: dict[str, str], namespace: str) -> Json:
        with self._changed:
            start, version = 0, self._version
            if token := params.get("continue"):
                start, version = json.loads(urlsafe_b64decode(token))
                if version < self._oldest:
                    return _status(410, "Expired", "The provided continue parameter is too old")
            service = params["labelSelector"].removeprefix(f"{LABEL}=")
            found = [
                each
                for (of, _), each in sorted(self._slices.items())
                if of == namespace and each["metadata"].get("labels", {}).get(LABEL) == service
            ]
            limit = int(params.get("limit", 0)) or len(found) or 1
            metadata = {"resourceVersion": str(version)}
            if len(found) > start + limit:
                following = json.dumps([start + limit, version]).encode()
                metadata["continue"] = urlsafe_b64encode(following).decode()
            return {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": metadata,
                "items": found[start : start + limit],
            }

    def events(self, params: dict[str, str], namespace: str) -> Generator[tuple[bytes, str], None, None]:
        """Yield what a watch is to send, each with what is to be done then."""
        sent = int(params["resourceVersion"])
        with self._changed:
            oldest, born = self._oldest, len(self._log)
        if sent < oldest:
            yield _line("ERROR", _status(410, "Expired", f"too old resource version: {sent} ({oldest})")), "end"
            return
        self._server.count_watch(1)  # from here on, what is injected is sent
        try:
            yield from self._events(params, namespace, sent, born)
        finally:
            self._server.count_watch(-1)

    def _events(
        self, params: dict[str, str], namespace: str, sent: int, born: int
    ) -> Generator[tuple[bytes, str], None, None]:
        service = params["labelSelector"].removeprefix(f"{LABEL}=")
        end_s = time.monotonic() + float(params.get("timeoutSeconds", 1800))
        position = 0
        while not self._server.down:
            with self._changed:
                if position == len(self._log):
                    self._changed.wait(min(0.2, max(end_s - time.monotonic(), 0)))
                entries = list(enumerate(self._log[position:], position))
                position = len(self._log)
            for index, entry in entries:
                ours = entry.version > sent and (entry.namespace, entry.service) == (namespace, service)
                if ours or (not entry.version and index >= born):
                    yield entry.line, entry.then
                sent = max(sent, entry.version)
            if time.monotonic() >= end_s:
                bookmark = {"kind": "EndpointSlice", "metadata": {"resourceVersion": str(sent)}}
                yield _line("BOOKMARK", bookmark) if self.bookmarks else b"", "end"
                return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: ApiServer

    def __init__(self, *arguments: Any) -> None:
        self.down = False
        self.watching = 0
        self._open: set[Any] = set()
        self._guard = threading.Lock()
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._guard:
            if not self.down:
                self._open.add(request)
        return not self.down

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def sever(self) -> None:
        with self._guard:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def count_watch(self, change: int) -> None:
        with self._guard:
            self.watching += change

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        params, namespace, _ = self._parsed()
        verb = "watch" if params.get("watch") in ("1", "true") else "list"
        if namespace is None or not self._let_in(verb, params, namespace):
            return
        if verb == "list":
            self._answer(self.server.api.page(params, namespace))
            return
        self._watch(params, namespace)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, namespace, _ = self._parsed(or_404=False)
        if namespace is None:  # a namespace is being made
            self._answer(body, 201)
        elif self._let_in("create", {}, namespace):
            self._answer(self.server.api.put(body, namespace), 201)

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, namespace, _ = self._parsed()
        if namespace is not None and self._let_in("update", {}, namespace):
            self._answer(self.server.api.put(body, namespace))

    def do_DELETE(self) -> None:
        _, namespace, name = self._parsed(or_404=False)
        if namespace is None:
            self._answer({})
        elif self._let_in("delete", {}, namespace):
            self._answer(self.server.api.delete(name, namespace) or _status(404, "NotFound", f"{name} not found"))

    def _parsed(self, or_404: bool = True) -> tuple[dict[str, str], str | None, str]:
        url = urlsplit(self.path)
        params = {key: values[0] for key, values in parse_qs(url.query).items()}
        namespace, _, rest = url.path.strip("/").removeprefix(SLICES).partition("/")
        kind, _, name = rest.partition("/")
        if url.path.strip("/").startswith(SLICES) and kind == "endpointslices":
            return params, namespace, name
        if or_404:
            self._answer(_status(404, "NotFound", "the server could not find the requested resource"))
        return params, None, ""

    def _let_in(self, verb: str, params: dict[str, str], namespace: str) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        request = Request(verb, params, token)
        self.server.api.requests.append(request)
        refusal = self.server.api.refusal(request, namespace)
        if refusal is not None:
            self._answer(refusal)
        return refusal is None

    def _answer(self, body: Json, code: int = 200) -> None:
        raw = json.dumps(body).encode()
        self.send_response(body.get("code", code) if body.get("kind") == "Status" else code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _watch(self, params: dict[str, str], namespace: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with closing(self.server.api.events(params, namespace)) as events:
            for line, then in events:
                if line:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                if then == "cut":
                    break
                if then == "end":
                    self.wfile.write(b"0\r\n\r\n")
                    return
        self.close_connection = True


def _line(kind: str, found: Json) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def _status(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _forbidden(user: str, verb: str, namespace: str) -> str:
    return (
        f'endpointslices.discovery.k8s.io is forbidden: User "{user}" cannot {verb} resource "endpointslices" '
        f'in API group "discovery.k8s.io" in the namespace "{namespace}"'
    )
