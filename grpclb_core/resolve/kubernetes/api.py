"""The two questions that are put to an API server: list the slices of a service, and watch them from there on.

The protocol is that of https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.
What its answers mean:

    410, as the HTTP status or in     the version is too old to go on from: `ExpiredError`, list again
      an ERROR event of a 200 stream
    any other refusal                 `RelistError` with what the server said; list again, after a pause
    an answer of the wrong shape      the same, as an event may have been missed
    a broken connection               `ResolutionError`; the watch may go on where it was
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec

from ...errors import ConfigError, ResolutionError
from ..http import CONNECT_TIMEOUT_S, bounded_lines, decode_json, http_client, http_faults, read_bounded
from .cluster import Cluster
from .slices import Metadata, Slice, SliceObject, read_slice
from .target import KubernetesTarget

if TYPE_CHECKING:
    import httpx

SERVICE_LABEL = "kubernetes.io/service-name"
PAGE_SIZE = 500  # objects to a page of a list, as client-go's
MAX_PAGES = 100  # of a list that does not come to its end
MAX_SLICES = 1_000  # a slice holds 100 endpoints unless the cluster says otherwise: ten times what is used of them
GRACE_S = 10.0  # a watch that the server should have ended by now is given up so much later


class RelistError(ResolutionError):
    """What is known cannot be brought up to date by a watch; only a list can."""


class ExpiredError(RelistError):
    """The server no longer knows the version that was asked for, as happens to everyone in time."""


class Change(msgspec.Struct, frozen=True):
    """What an event of a watch says."""

    version: str
    """The watch may be resumed from here."""
    slice: Slice | None = None
    """None for a mere bookmark."""
    deleted: bool = False


class _List(msgspec.Struct):
    metadata: Metadata
    items: list[SliceObject] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: Metadata


class _Status(msgspec.Struct):
    code: int = 0
    reason: str | None = None
    message: str | None = None


class Api:
    """A connection to an API server, about one service."""

    def __init__(self, client: httpx.AsyncClient, cluster: Cluster, target: KubernetesTarget, timeout_s: float) -> None:
        self._client = client
        self._cluster = cluster
        self._target = target
        self._timeout_s = timeout_s
        self._namespace = target.namespace or cluster.namespace
        self.source = f"service {target.service!r} in namespace {self._namespace!r}, asked of {cluster.server}"

    async def list_slices(self) -> tuple[dict[str, Slice], str]:
        """Give all slices by their names, and the version of this state.

        Raises:
            ResolutionError: see the top of this module.
        """
        slices: dict[str, Slice] = {}
        params = {"limit": str(PAGE_SIZE)}  # no resourceVersion: the newest state, never that of a cache left behind
        for _ in range(MAX_PAGES):
            page = await self._list_page(params)
            for item in page.items or ():
                found = self._read_slice(item)
                slices[found.name] = found
            if len(slices) > MAX_SLICES:
                break
            if not page.metadata.continue_:
                if not page.metadata.resource_version:
                    raise RelistError(f"{self.source}: the list has no resourceVersion to watch from")
                return slices, page.metadata.resource_version
            params["continue"] = page.metadata.continue_
        raise RelistError(f"{self.source}: the list has more than {MAX_SLICES} slices or {MAX_PAGES} pages")

    async def _list_page(self, params: dict[str, str]) -> _List:
        with self._faults(), anyio.fail_after(self._timeout_s):
            response = await self._client.send(self._request(params), stream=True)
            async with aclosing(response):
                await self._check(response, "list")
                body = await read_bounded(response, self.source)
        return decode_json(body, _List, self.source)

    @asynccontextmanager
    async def watch(self, version: str, duration_s: int) -> AsyncIterator[AsyncIterator[Change]]:
        """Open a watch from a version on, which the server ends after `duration_s`, and give its changes.

        Raises:
            ResolutionError: see the top of this module.
        """
        params = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(duration_s),
        }
        with self._faults(), anyio.fail_after(self._timeout_s):
            request = self._request(params, read_timeout_s=duration_s + GRACE_S)
            response = await self._client.send(request, stream=True)
        async with aclosing(response):
            with self._faults(), anyio.fail_after(self._timeout_s):
                await self._check(response, "watch")
            async with aclosing(self._changes(response)) as changes:
                yield changes

    async def _changes(self, response: httpx.Response) -> AsyncGenerator[Change, None]:
        async with aclosing(bounded_lines(response, self.source)) as lines:
            with self._faults():
                async for line in lines:
                    try:
                        change = self._read_event(line)
                    except RelistError:
                        raise
                    except ResolutionError as error:
                        raise RelistError(str(error)) from error
                    if change is not None:
                        yield change

    def _read_event(self, line: bytes) -> Change | None:
        event = decode_json(line, _Event, self.source)
        if event.type == "ERROR":
            status = decode_json(bytes(event.object), _Status, self.source)
            raise self._refusal(status.code, status.message or status.reason or "no reason given", "watch")
        if event.type == "BOOKMARK":
            return Change(decode_json(bytes(event.object), _Bookmark, self.source).metadata.resource_version or "")
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            return None
        found = decode_json(bytes(event.object), SliceObject, self.source)
        version = found.metadata.resource_version or ""
        return Change(version, self._read_slice(found), event.type == "DELETED")

    def _read_slice(self, found: SliceObject) -> Slice:
        try:
            return read_slice(found, self._target.port)
        except ResolutionError as error:
            raise RelistError(f"{self.source}: {error}") from error

    def _request(self, params: dict[str, str], read_timeout_s: float | None = None) -> httpx.Request:
        import httpx

        headers = {"Accept": "application/json"}
        if token := self._cluster.bearer():
            headers["Authorization"] = f"Bearer {token}"
        return self._client.build_request(
            "GET",
            f"apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices",
            params={"labelSelector": f"{SERVICE_LABEL}={self._target.service}"} | params,
            headers=headers,
            timeout=httpx.Timeout(CONNECT_TIMEOUT_S, read=read_timeout_s),
            extensions={"sni_hostname": self._cluster.tls_name} if self._cluster.tls_name else {},
        )

    async def _check(self, response: httpx.Response, verb: str) -> None:
        if response.status_code == 200:
            return
        body = await read_bounded(response, self.source)
        try:
            said = decode_json(body, _Status, self.source).message
        except ResolutionError:
            said = body[:200].decode(errors="replace")  # of something on the way to the API server, as a rule
        raise self._refusal(response.status_code, said or response.reason_phrase, verb)

    def _refusal(self, code: int, said: str, verb: str) -> RelistError:
        if code == 410:  # "Gone", of reason "Expired"
            return ExpiredError(f"{self.source}: the version to {verb} from is too old ({said})")
        advice = {
            401: "the token or certificate is not accepted; it may have expired, or belong to another cluster",
            403: f"kubectl apply -n {self._namespace} -f deploy/kubernetes/rbac.yaml, and run as its service account; "
            f"it may {verb} endpointslices (discovery.k8s.io) in this namespace",
            404: "this is no API server, or one older than Kubernetes 1.21, which has no discovery.k8s.io/v1",
        }.get(code, "it is tried again")
        return RelistError(f"{self.source}: {verb} of endpointslices was refused with {code} ({said}); {advice}")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            with http_faults(self.source):
                yield
        except TimeoutError as error:
            raise ResolutionError(f"{self.source}: no answer within {self._timeout_s} s") from error
        except ConfigError as error:
            raise ResolutionError(f"{self.source}: {error}") from error


@asynccontextmanager
async def open_api(cluster: Cluster, target: KubernetesTarget, timeout_s: float) -> AsyncIterator[Api]:
    """Make the client of an API server; nothing is sent yet.

    Raises:
        ConfigError: a certificate or key cannot be used, or httpx is not installed.
    """
    verify = cluster_tls(cluster) if cluster.server.startswith("https://") else False
    async with http_client(cluster.server, "k8s", verify=verify) as client:
        yield Api(client, cluster, target, timeout_s)


def cluster_tls(cluster: Cluster) -> ssl.SSLContext:
    """Make the TLS settings that a cluster asks for.

    Raises:
        ConfigError: a certificate or key cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=cluster.ca_file or None, cadata=cluster.ca_data or None)
        # Python 3.13 turned this on. The authorities that clusters make for themselves often lack the key identifiers
        # it asks for, and the chain is checked without it as well.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if cluster.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        _load_certificate(context, cluster)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        at = cluster.ca_file or cluster.certificate_file or "the kubeconfig"
        raise ConfigError(f"certificates of {cluster.server} ({at}) cannot be used: {error}") from None
    return context


def _load_certificate(context: ssl.SSLContext, cluster: Cluster) -> None:
    data = cluster.certificate_data, cluster.key_data
    files = cluster.certificate_file, cluster.key_file
    if not any(data):
        if any(files):
            context.load_cert_chain(files[0], files[1] or None)
        return
    # Python reads them from files alone: made for this user only, and gone when read.
    with tempfile.TemporaryDirectory() as folder:
        paths: list[str] = []
        for text, path in zip(data, files, strict=True):
            if text:
                path = os.path.join(folder, f"{len(paths)}.pem")
                with open(path, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                    file.write(text)
            paths.append(path)
        context.load_cert_chain(paths[0], paths[1] or None)
