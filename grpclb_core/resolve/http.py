"""What the resolvers that speak HTTP share: a client, answers of bounded size, and errors that say what and where."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from ..config import ConsulConfig, EtcdConfig
from ..errors import ConfigError, ResolutionError, TargetError

if TYPE_CHECKING:
    import httpx

ShapeT = TypeVar("ShapeT")

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of one answer, or of one line of a stream. An endpoint is 400 bytes in Kubernetes, so this is forty thousand of
them; the densest nonsense of that size is about a gigabyte once decoded, and it must not be more."""

CONNECT_TIMEOUT_S = 5.0
"""Longest time to connect; how long an answer may take is the caller's to say."""

# A stream that waits for changes is silent, so only probes of the kernel tell that its other end is gone: after 10 s of
# silence, three of them 5 s apart (tcp(7); its own defaults come to two hours). Not every system has each option.
_SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]

_LISTED = 3  # problems that a message spells out

_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:(?P<port>[0-9]{1,5}))?")


def http_client(base_url: str, extra: str, **options: Any) -> httpx.AsyncClient:
    """Make a client; `options` are those of `httpx.AsyncClient`.

    Raises:
        ConfigError: httpx is not installed; `extra` names what brings it.
    """
    try:
        import httpx
    except ImportError:
        raise ConfigError(f"this target needs httpx; pip install 'grpclb-core[{extra}]'") from None
    # Proxies of the environment are for the outer world; a registry is next door.
    timeout = options.pop("timeout", httpx.Timeout(CONNECT_TIMEOUT_S))
    if "transport" not in options:
        wire = {name: options.pop(name) for name in ("verify", "http1", "http2", "limits") if name in options}
        options["transport"] = httpx.AsyncHTTPTransport(trust_env=False, socket_options=_SOCKET_OPTIONS, **wire)
    options.setdefault("event_hooks", {"request": [_send_plainly]})
    return httpx.AsyncClient(base_url=base_url, timeout=timeout, trust_env=False, **options)


async def _send_plainly(request: httpx.Request) -> None:
    """Give a request a body that is no async generator: trio complains of those when a request is cancelled halfway."""
    request.stream = _body_class()(request.content)


@cache
def _body_class() -> type[Any]:
    import httpx

    class Body(httpx.AsyncByteStream):
        def __init__(self, content: bytes) -> None:
            self._chunks = [content]

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            if not self._chunks:
                raise StopAsyncIteration
            return self._chunks.pop()

    return Body


def require_httpx(extra: str) -> None:
    """Make sure that `http_client` will work.

    Raises:
        ConfigError: httpx is not installed; `extra` names what brings it.
    """
    if find_spec("httpx") is None:
        raise ConfigError(f"this target needs httpx; pip install 'grpclb-core[{extra}]'")


def tls_settings(options: EtcdConfig | ConsulConfig) -> ssl.SSLContext:
    """Make the TLS settings of a client: ones that trust nobody where TLS is not spoken.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if not options.tls:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context = ssl.create_default_context(cafile=options.ca_file or None)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file or None)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(name for name in (options.ca_file, options.cert_file, options.key_file) if name)
        raise ConfigError(f"the TLS files {files} cannot be used ({error}); give PEM files") from error
    return context


def server_url(text: str, default_port: int, *, tls: bool) -> str:
    """Make the base URL of a server that is written `host`, `host:port` or `[IPv6]:port`.

    Raises:
        TargetError: the host or the port cannot be used.
    """
    found = _SERVER.fullmatch(text)
    if not found:
        raise TargetError(f"server {text!r} is not usable; write host:{default_port}, or [::1]:{default_port}")
    port = int(found["port"] or default_port)
    if not 1 <= port <= 65535:
        raise TargetError(f"port {port} of {text!r} is out of range; use 1 to 65535")
    return f"{'https' if tls else 'http'}://{found['host']}:{port}"


@contextmanager
def http_faults(source: str) -> Iterator[None]:
    """Turn what goes wrong with a request into a `ResolutionError` that names the source."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        raise ResolutionError(f"{source}: {type(error).__name__}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Say what is behind an error; under trio only what caused it says anything."""
    behind: BaseException | None = error
    while behind is not None and not str(behind):
        behind = behind.__cause__ or behind.__context__
    return str(behind or "no answer")


async def read_bounded(response: httpx.Response, source: str) -> bytes:
    """Read a whole answer.

    Raises:
        ResolutionError: it is longer than `MAX_ANSWER`.
    """
    body = bytearray()
    async with _chunks(response) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_ANSWER:
                raise ResolutionError(f"{source}: the answer is longer than {MAX_ANSWER} bytes; it was not read on")
    return bytes(body)


async def bounded_lines(response: httpx.Response, source: str) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a stream as they come; a last line that was cut off is not one.

    Who leaves it early has to close it (`contextlib.aclosing`).

    Raises:
        ResolutionError: a line is longer than `MAX_ANSWER`.
    """
    pending = bytearray()
    async with _chunks(response) as chunks:
        async for chunk in chunks:
            pending += chunk
            if b"\n" in chunk:
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    if line.strip():
                        yield bytes(line)
            if len(pending) > MAX_ANSWER:
                raise ResolutionError(f"{source}: a line is longer than {MAX_ANSWER} bytes; the stream was given up")


@asynccontextmanager
async def _chunks(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give an answer piece by piece, and leave nothing behind if it is not read to its end.

    httpx reads through a chain of generators, and closing the first leaves the others to the garbage collector, which
    trio warns of. A read that is cancelled ends them all; one that has ended before is not begun again.
    """
    import httpx

    chunks = response.aiter_bytes()
    try:
        yield chunks
    finally:
        with anyio.CancelScope() as scope, suppress(httpx.HTTPError, httpx.StreamError):
            scope.cancel()
            async for _ in chunks:
                pass


def decode_json(body: bytes, kind: type[ShapeT], source: str) -> ShapeT:
    """Decode JSON into `kind`.

    Raises:
        ResolutionError: it is no JSON, or not of that shape.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResolutionError(f"{source}: the answer cannot be understood ({error}); {body[:200]!r}") from error


def summed_up(problems: list[str]) -> str:
    """Write problems as one line, the first few in full."""
    more = len(problems) - _LISTED
    return "; ".join(problems[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
