"""etcd v3 by its HTTP gateway: ranges, watches and leases, of whichever member answers.

The gateway is etcd's gRPC interface in JSON (https://etcd.io/docs/latest/dev-guide/api_grpc_gateway): bytes are base64,
64-bit numbers are strings, and a watch is one long answer with a line for each message. It needs no protobuf, and runs
on every event loop that httpx does. The gateway lets nobody in by the name in a client's certificate; users have
passwords.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio
import msgspec

from ...config import EtcdConfig
from ...errors import ResolutionError
from ..http import bounded_lines, decode_json, http_client, http_faults, read_bounded, tls_settings
from ..schedule import backoff_s

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

AnswerT = TypeVar("AnswerT")

PAGE = 1_000
"""Keys of one range; more are asked for in further ones, at the revision of the first."""
LONGEST_JUMP_S = 0.2
"""Upper end of the random wait before the next member is asked, so that the clients of a lost one do not all come at
once, and still within the second in which a change is to be seen."""

_UNAUTHENTICATED = 16  # gRPC status codes
_NOT_FOUND = 5
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old")  # etcd's messages; their codes have changed

Number = Annotated[str, msgspec.Meta(pattern="^-?[0-9]{1,20}$")]
"""A 64-bit integer, as JSON has it."""


class EtcdError(ResolutionError):
    """Raised when etcd answers with an error; `code` is that of gRPC."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


class CompactedError(EtcdError):
    """Raised when what a watch should begin with was compacted away; range again."""


class LeaseLostError(EtcdError):
    """Raised when etcd does not know a lease (any more)."""


class StaleTokenError(EtcdError):
    """Raised when etcd wants the user to authenticate again."""


class Header(msgspec.Struct, frozen=True):
    """Which state of which cluster an answer is about."""

    cluster_id: Number = "0"
    revision: Number = "0"
    raft_term: Number = "0"


class KeyValue(msgspec.Struct, frozen=True):
    """A key and what it holds."""

    key: bytes
    value: bytes = b""
    mod_revision: Number = "0"


class Event(msgspec.Struct, frozen=True):
    """A change of a key; of a deletion, the key alone is told."""

    kv: KeyValue
    type: str = "PUT"


class RangeAnswer(msgspec.Struct, frozen=True):
    """The keys found, and the state they were found in."""

    header: Header
    kvs: list[KeyValue] = []
    more: bool = False


class WatchAnswer(msgspec.Struct, frozen=True):
    """One message of a watch; one without events tells how far all was told."""

    header: Header = Header()
    created: bool = False
    canceled: bool = False
    compact_revision: Number = "0"
    cancel_reason: str = ""
    events: list[Event] = []


class _StreamFault(msgspec.Struct, frozen=True):
    message: str = ""
    grpc_code: int = 2
    code: int = 2


class _WatchLine(msgspec.Struct, frozen=True):
    result: WatchAnswer | None = None
    error: _StreamFault | None = None


class _Refusal(msgspec.Struct, frozen=True):
    """An answer whose HTTP status is not 200: that of a stream holds the fault, that of a single answer is one."""

    error: _StreamFault | str = ""
    message: str = ""
    code: int = 2


class Lease(msgspec.Struct, frozen=True):
    """A lease, and for how long it is good; etcd may grant more seconds than were asked for."""

    ID: Number = "0"
    TTL: Number = "0"


class _LeaseLine(msgspec.Struct, frozen=True):
    result: Lease | None = None
    error: _StreamFault | None = None


class _Token(msgspec.Struct, frozen=True):
    token: str


class _Nothing(msgspec.Struct, frozen=True):
    """An answer in which nothing is of interest."""


class Watch:
    """A watch that etcd has confirmed; `header` is the state it was confirmed in."""

    def __init__(self, lines: AsyncIterator[bytes], source: str) -> None:
        self.header = Header()
        self._lines = lines
        self._source = source

    async def next(self, wait_s: float) -> WatchAnswer | None:
        """Wait for the next message; None if there was none for `wait_s`, and then there will be no other.

        Raises:
            CompactedError: etcd cancelled the watch, as it no longer has what it should begin with.
            ResolutionError: it was cancelled for another reason, or the connection ended.
        """
        with anyio.move_on_after(wait_s), http_faults(self._source):
            async for line in self._lines:
                return self._read(line)
            raise ResolutionError(f"{self._source}: the watch ended; it is opened anew")
        return None

    def _read(self, line: bytes) -> WatchAnswer:
        said = decode_json(line, _WatchLine, self._source)
        if said.result is None:
            raise _error(self._source, said.error or _StreamFault())
        answer = said.result
        if answer.canceled and int(answer.compact_revision) > 0:
            raise CompactedError(f"{self._source}: compacted up to revision {answer.compact_revision}")
        if answer.canceled:
            raise EtcdError(f"{self._source}: etcd cancelled the watch ({answer.cancel_reason or 'no reason given'})")
        return answer


class EtcdClient:
    """Asks one member at a time, and goes on to the next when one fails.

    To be entered with `async with`, as often as one likes: certificates are read anew each time. `rng` draws from
    [0, 1) and spreads clients over the members.

    Raises:
        ConfigError: on entry, httpx is missing or a TLS file cannot be used.
    """

    def __init__(self, members: Iterable[str], config: EtcdConfig, *, rng: Callable[[], float] = random.random) -> None:
        self._members = sorted(members, key=lambda _: rng())
        self._config = config
        self._rng = rng
        self._turn = 0
        self._token = ""
        self._open_http: httpx.AsyncClient | None = None

    @property
    def member(self) -> str:
        """The base URL of the member whose turn it is."""
        return self._members[self._turn % len(self._members)]

    def retry_wait_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, not counting the last: little until each had its turn."""
        tried_all = failures - len(self._members) + 1
        if tried_all <= 0:
            return LONGEST_JUMP_S * self._rng()
        return backoff_s(tried_all - 1, 0, self._config.max_backoff_s, self._rng())

    async def __aenter__(self) -> EtcdClient:
        self._open_http = http_client("", "etcd", timeout=None, verify=tls_settings(self._config))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open_http is not None
        client, self._open_http = self._open_http, None
        with anyio.CancelScope(shield=True):
            await client.aclose()

    # What etcd is asked; each raises `ResolutionError` when it cannot be had of the member whose turn it is.

    async def range(self, prefix: bytes, most: int) -> RangeAnswer:
        """List the keys under a prefix in one state of the store, and stop when they are more than `most`."""
        ask: dict[str, object] = {"key": prefix, "range_end": _end(prefix), "limit": PAGE}
        first = answer = await self._call("/v3/kv/range", ask, RangeAnswer)
        found = list(first.kvs)
        while answer.more and answer.kvs and len(found) <= most:
            ask |= {"key": found[-1].key + b"\0", "revision": first.header.revision}
            answer = await self._call("/v3/kv/range", ask, RangeAnswer)
            found += answer.kvs
        return RangeAnswer(first.header, found)

    @asynccontextmanager
    async def watch(self, prefix: bytes, revision: int) -> AsyncIterator[Watch]:
        """Watch the keys under a prefix, beginning with what happened at `revision`."""
        if self._config.username:
            # A watch with a token that has lapsed is refused as one without permission is; a range is told apart.
            await self._call("/v3/kv/range", {"key": prefix, "range_end": _end(prefix), "count_only": True}, _Nothing)
        ask = {"key": prefix, "range_end": _end(prefix), "start_revision": str(revision), "progress_notify": True}
        # A member that has lost its cluster is to say so, where it would be silent otherwise.
        headers = {"Grpc-Metadata-hasleader": "true"}
        async with self._answer("/v3/watch", {"create_request": ask}, headers) as response:
            source = self._source("/v3/watch")
            lines = bounded_lines(response, source)
            async with AsyncExitStack() as closing:
                closing.push_async_callback(lines.aclose)
                closing.push_async_callback(response.aclose)  # first, or what reads it has nowhere to be closed
                watch = Watch(lines, source)
                created = await watch.next(self._config.timeout_s)
                if created is None or not created.created:
                    raise ResolutionError(f"{source}: the watch was not confirmed within {self._config.timeout_s} s")
                watch.header = created.header
                yield watch

    async def grant(self, ttl_s: int) -> Lease:
        """Take a lease."""
        return await self._call("/v3/lease/grant", {"TTL": str(ttl_s)}, Lease)

    async def keep_alive(self, lease: Lease) -> None:
        """Renew a lease.

        Raises:
            LeaseLostError: etcd does not know it.
        """
        line = await self._call("/v3/lease/keepalive", {"ID": lease.ID}, _LeaseLine)
        if line.result is None:
            raise _error(self._source("/v3/lease/keepalive"), line.error or _StreamFault())
        if int(line.result.TTL) <= 0:
            raise LeaseLostError(f"etcd {self.member}: lease {lease.ID} has run out", _NOT_FOUND)

    async def put(self, key: bytes, value: bytes, lease: Lease) -> None:
        """Write a key that goes when the lease goes.

        Raises:
            LeaseLostError: etcd does not know the lease.
        """
        await self._call("/v3/kv/put", {"key": key, "value": value, "lease": lease.ID}, _Nothing)

    async def revoke(self, lease: Lease) -> None:
        """Give a lease back, and with it the keys that hang on it.

        Raises:
            LeaseLostError: etcd does not know it.
        """
        await self._call("/v3/lease/revoke", {"ID": lease.ID}, _Nothing)

    # How it is asked

    def _source(self, path: str) -> str:
        return f"etcd {self.member}{path}"

    async def _call(self, path: str, ask: Mapping[str, object], kind: type[AnswerT]) -> AnswerT:
        await self._authenticate()
        try:
            return await self._post(path, ask, kind)
        except StaleTokenError:
            await self._authenticate()
            return await self._post(path, ask, kind)

    async def _authenticate(self) -> None:
        if self._config.username and not self._token:
            ask = {"name": self._config.username, "password": self._config.password}
            self._token = (await self._post("/v3/auth/authenticate", ask, _Token)).token

    async def _post(self, path: str, ask: Mapping[str, object], kind: type[AnswerT]) -> AnswerT:
        async with self._answer(path, ask, {}) as response:
            source = self._source(path)
            with _within(self._config.timeout_s, source), http_faults(source):
                return decode_json(await read_bounded(response, source), kind, source)

    @asynccontextmanager
    async def _answer(
        self, path: str, ask: Mapping[str, object], headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, and give an answer that is no error; whatever fails makes it the next member's turn."""
        assert self._open_http is not None, "to be used inside `async with`"
        source = self._source(path)
        if self._token:
            headers = {**headers, "Authorization": self._token}
        request = self._open_http.build_request(
            "POST", self.member + path, content=msgspec.json.encode(ask), headers=headers
        )
        try:
            with _within(self._config.timeout_s, source), http_faults(source):
                response = await self._open_http.send(request, stream=True)
                try:
                    if response.status_code != 200:
                        raise _refusal(source, response.status_code, await read_bounded(response, source))
                except BaseException:
                    await response.aclose()
                    raise
            try:
                yield response
            finally:
                await response.aclose()
        except StaleTokenError:
            self._token = ""
            raise
        except (CompactedError, LeaseLostError):
            raise
        except ResolutionError:
            self._turn += 1
            raise


def _end(prefix: bytes) -> bytes:
    """The first key after all that begin with a prefix, whose last byte is not 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@contextmanager
def _within(limit_s: float, source: str) -> Iterator[None]:
    try:
        with anyio.fail_after(limit_s):
            yield
    except TimeoutError:
        raise ResolutionError(f"{source}: no answer within {limit_s} s") from None


def _refusal(source: str, status: int, body: bytes) -> EtcdError:
    """Read the answer to a request that failed; a proxy in front of etcd may have written it."""
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return EtcdError(f"{source}: HTTP status {status}: {body[:200]!r}")
    fault = said.error if isinstance(said.error, _StreamFault) else _StreamFault(said.message, code=said.code)
    return _error(source, fault)


def _error(source: str, fault: _StreamFault) -> EtcdError:
    code = fault.code if fault.code != 2 else fault.grpc_code
    message = f"{source}: {fault.message or 'an error without a message'} (code {code})"
    if code == _UNAUTHENTICATED or any(words in fault.message for words in _STALE_TOKEN):
        return StaleTokenError(message, code)
    if code == _NOT_FOUND and "lease not found" in fault.message:
        return LeaseLostError(message, code)
    return EtcdError(message, code)
