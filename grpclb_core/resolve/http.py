"""What the resolvers that speak HTTP share: a client, answers of bounded size, and errors that say what and where."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..errors import ConfigError, ResolutionError

if TYPE_CHECKING:
    import httpx

ShapeT = TypeVar("ShapeT")

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer, or of one line of a stream: a hundred thousand endpoints with room to spare, and no more."""

CONNECT_TIMEOUT_S = 5.0
"""Longest time to connect; how long an answer may take is the caller's to say."""


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
    return httpx.AsyncClient(base_url=base_url, timeout=timeout, trust_env=False, **options)


@contextmanager
def http_faults(source: str) -> Iterator[None]:
    """Turn what goes wrong with a request into a `ResolutionError` that names the source."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        raise ResolutionError(f"{source}: {type(error).__name__}: {error or 'no answer'}") from error


async def read_bounded(response: httpx.Response, source: str) -> bytes:
    """Read a whole answer.

    Raises:
        ResolutionError: it is longer than `MAX_ANSWER`.
    """
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ResolutionError(f"{source}: the answer is longer than {MAX_ANSWER} bytes; it was not read to its end")
    return bytes(body)


async def bounded_lines(response: httpx.Response, source: str) -> AsyncIterator[bytes]:
    """Yield the lines of a stream as they come; a last line that was cut off is not one.

    Raises:
        ResolutionError: a line is longer than `MAX_ANSWER`.
    """
    pending = bytearray()
    async for chunk in response.aiter_bytes():
        pending += chunk
        *lines, rest = pending.split(b"\n") if b"\n" in chunk else (pending,)
        pending = bytearray(rest)
        if len(pending) > MAX_ANSWER:
            raise ResolutionError(f"{source}: a line is longer than {MAX_ANSWER} bytes; the stream was given up")
        for line in lines:
            if line.strip():
                yield bytes(line)


def decode_json(body: bytes, kind: type[ShapeT], source: str) -> ShapeT:
    """Decode JSON into `kind`.

    Raises:
        ResolutionError: it is no JSON, or not of that shape.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResolutionError(f"{source}: the answer cannot be understood ({error}); {body[:200]!r}") from error
