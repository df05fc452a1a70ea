"""The one endpoint of Consul that a resolver asks, in a thread of its own: blocking queries, tokens, and faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def instance(address: str, *statuses: str, **service: Any) -> dict[str, Any]:
    """An element of the answer, with a check for each status."""
    host, _, port = address.rpartition(":")
    return {
        "Node": {"ID": "n", "Node": "node-1", "Address": "10.9.9.9", "Datacenter": "dc1", "Meta": {}},
        "Service": {
            "ID": f"greeter-{address}",
            "Service": "greeter",
            "Tags": [],
            "Address": host,
            "Meta": None,
            "Port": int(port),
            "Weights": {"Passing": 1, "Warning": 1},
            "ModifyIndex": 7,
        }
        | service,
        "Checks": [
            {"Node": "node-1", "CheckID": f"check-{number}", "Name": "", "Status": status, "ServiceID": ""}
            for number, status in enumerate(statuses or ("passing",))
        ],
    }


class Request:
    """A query as it came."""

    def __init__(self, path: str, token: str) -> None:
        parts = urlsplit(path)
        self.path = parts.path
        self.query = parse_qs(parts.query)
        self.token = token

    @property
    def index(self) -> int:
        return int(self.query.get("index", ["0"])[0])

    @property
    def wait_s(self) -> float:
        return float(self.query.get("wait", ["300s"])[0].removesuffix("s"))


class Consul:
    """An agent under a test's control; each change advances the index, as Consul's does."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.token = ""
        self.headers: dict[str, str] = {}
        self.status = 200
        self.raw: bytes | None = None
        """An answer to be given in place of the list."""
        self.frozen = threading.Event()  # answers nothing while set
        self._instances: Sequence[dict[str, Any]] = ()
        self._index = 10
        self._changed = threading.Condition()
        self._closing = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Consul:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def set(self, instances: Sequence[dict[str, Any]], index: int | None = None) -> None:
        """List these instances, at the next index or the one given."""
        with self._changed:
            self._instances = instances
            self._index = self._index + 1 if index is None else index
            self._changed.notify_all()

    def touch(self) -> None:
        """Advance the index and change nothing."""
        self.set(self._instances)

    def fail(self, status: int = 500, raw: bytes = b"No cluster leader") -> None:
        with self._changed:
            self.status, self.raw = status, raw
            self._changed.notify_all()

    def heal(self) -> None:
        with self._changed:
            self.status, self.raw = 200, None
            self._changed.notify_all()

    def _answer(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        until = time.monotonic() + request.wait_s
        with self._changed:
            while (
                request.index > 0
                and self._index == request.index
                and self.raw is None
                and not self._closing
                and (left_s := until - time.monotonic()) > 0
            ):
                self._changed.wait(left_s)
            if self.token and request.token != self.token:
                return 403, b"Permission denied: token with AccessorID '' lacks permission", {}
            headers = {"X-Consul-Index": str(self._index)} | self.headers
            body = json.dumps(list(self._instances)).encode() if self.raw is None else self.raw
            return self.status, body, headers

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        consul = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                request = Request(self.path, self.headers.get("X-Consul-Token", ""))
                consul.requests.append(request)
                while consul.frozen.is_set() and not consul._closing:
                    time.sleep(0.01)
                status, body, headers = consul._answer(request)
                try:
                    self.send_response(status)
                    for name, value in ({"Content-Length": str(len(body))} | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # whoever asked is gone

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler
