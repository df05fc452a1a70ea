"""Finding the API server and the credentials, and being let in with them."""

from __future__ import annotations

import ssl
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
import yaml

from grpclb_core.config import KubernetesConfig
from grpclb_core.errors import ConfigError
from grpclb_core.resolve.kubernetes.api import cluster_tls
from grpclb_core.resolve.kubernetes.cluster import Cluster, find_cluster, read_kubeconfig, read_service_account
from grpclb_core.resolve.kubernetes.resolver import KubernetesResolver
from grpclb_core.resolve.kubernetes.target import parse_kubernetes
from support.kubernetes import ApiServer, endpoint_slice
from support.recorder import Recorder

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
FAST = {"min_backoff_s": 0.05, "max_backoff_s": 0.1}


def kubeconfig(user: Any = None, cluster: Any = None, **context: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": "dev",
        "contexts": [{"name": "dev", "context": {"cluster": "here", "user": "me"} | context}],
        "clusters": [{"name": "here", "cluster": {"server": "https://10.0.0.9:6443"} | (cluster or {})}],
        "users": [{"name": "me", "user": user or {}}],
    }


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def service_account(folder: Path, token: str = "t0k3n", namespace: str = "team") -> Path:
    (folder / "token").write_text(token + "\n")
    (folder / "namespace").write_text(namespace)
    return folder


class TestServiceAccount:
    def test_what_is_mounted(self, tmp_path: Path) -> None:
        cluster = read_service_account(POD, service_account(tmp_path))
        assert cluster == Cluster(
            server="https://10.96.0.1:6443",
            namespace="team",
            ca_file=str(tmp_path / "ca.crt"),
            token_file=str(tmp_path / "token"),
        )
        assert cluster.bearer() == "t0k3n"

    def test_the_token_is_read_every_time(self, tmp_path: Path) -> None:
        cluster = read_service_account(POD, service_account(tmp_path))
        assert cluster.bearer() == "t0k3n"
        (tmp_path / "token").write_text("rotated")
        assert cluster.bearer() == "rotated"
        (tmp_path / "token").unlink()
        with pytest.raises(ConfigError, match="token cannot be read"):
            cluster.bearer()

    @pytest.mark.parametrize("token", ["first\nsecond", "caf\u00e9", "a\x00b"])
    def test_what_is_no_token_is_refused_and_not_shown(self, tmp_path: Path, token: str) -> None:
        cluster = read_service_account(POD, service_account(tmp_path, token))
        with pytest.raises(ConfigError, match="token holds more than a token") as caught:
            cluster.bearer()
        assert token not in str(caught.value)

    def test_ipv6_and_the_usual_port(self, tmp_path: Path) -> None:
        service_account(tmp_path)
        assert read_service_account({"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path).server == "https://[fd00::1]:443"

    def test_without_a_namespace(self, tmp_path: Path) -> None:
        service_account(tmp_path, namespace="\n")
        assert read_service_account(POD, tmp_path).namespace == "default"
        (tmp_path / "namespace").unlink()
        assert read_service_account(POD, tmp_path).namespace == "default"

    def test_none_is_mounted(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="set automountServiceAccountToken: true"):
            read_service_account(POD, tmp_path)


class TestWhereIsLooked:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        (tmp_path / ".kube").mkdir()
        write(tmp_path / ".kube" / "config", kubeconfig(cluster={"server": "https://home"}))
        return tmp_path

    def server(self, environ: dict[str, str], folder: Path, **options: Any) -> str:
        return find_cluster(KubernetesConfig(**options), environ, folder).server

    def test_the_order(self, home: Path) -> None:
        service_account(home)
        environ = {"HOME": str(home)}
        assert self.server(environ, home) == "https://home"
        environ |= POD
        assert self.server(environ, home) == "https://10.96.0.1:6443"
        environ["KUBECONFIG"] = str(write(home / "env", kubeconfig(cluster={"server": "https://env"})))
        assert self.server(environ, home) == "https://env"
        option = str(write(home / "option", kubeconfig(cluster={"server": "https://option"})))
        assert self.server(environ, home, kubeconfig=option) == "https://option"

    def test_a_context_is_of_a_kubeconfig(self, home: Path) -> None:
        assert self.server({"HOME": str(home)} | POD, home, context="dev") == "https://home"

    def test_nothing_is_found(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no Kubernetes cluster is known.*or the option kubernetes.kubeconfig"):
            find_cluster(KubernetesConfig(), {"HOME": str(tmp_path)}, tmp_path)


class TestKubeconfig:
    def test_everything_that_is_supported(self, tmp_path: Path) -> None:
        user = {
            "token": "old",
            "tokenFile": "secrets/token",
            "client-certificate": "me.crt",
            "client-key-data": b64encode(b"KEY").decode(),
        }
        settings = {
            "certificate-authority": "/etc/ca.crt",
            "certificate-authority-data": b64encode(b"CA").decode(),
            "insecure-skip-tls-verify": True,
            "tls-server-name": "kubernetes",
        }
        path = write(tmp_path / "config", kubeconfig(user, settings, namespace="team"))
        assert read_kubeconfig([path]) == Cluster(
            server="https://10.0.0.9:6443",
            namespace="team",
            ca_file="/etc/ca.crt",
            ca_data="CA",
            insecure=True,
            tls_name="kubernetes",
            token="old",
            token_file=str(tmp_path / "secrets" / "token"),
            certificate_file=str(tmp_path / "me.crt"),
            key_data="KEY",
        )

    def test_the_least(self, tmp_path: Path) -> None:
        content = kubeconfig()
        content["users"] = [{"name": "me"}]
        del content["preferences"]
        assert read_kubeconfig([write(tmp_path / "config", content)]) == Cluster("https://10.0.0.9:6443")

    def test_several_files_are_merged(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        first = {"contexts": kubeconfig()["contexts"], "users": [{"name": "me", "user": {"tokenFile": "token"}}]}
        second = kubeconfig({"token": "never"}, {"certificate-authority": "ca.crt"})
        paths = [write(tmp_path / "one", first), tmp_path / "absent", write(tmp_path / "sub" / "two", second)]
        cluster = read_kubeconfig(paths)
        assert cluster.token_file == str(tmp_path / "token")
        assert cluster.token == ""
        assert cluster.ca_file == str(tmp_path / "sub" / "ca.crt")

    def test_another_context(self, tmp_path: Path) -> None:
        content = kubeconfig()
        content["contexts"].append({"name": "prod", "context": {"cluster": "there"}})
        content["clusters"].append({"name": "there", "cluster": {"server": "https://there"}})
        path = write(tmp_path / "config", content)
        assert read_kubeconfig([path], "prod").server == "https://there"
        with pytest.raises(ConfigError, match="there is no context 'test'; it has dev, prod"):
            read_kubeconfig([path], "test")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("exec", {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws"}),
            ("auth-provider", {"name": "gcp"}),
            ("username", "admin"),
            ("as", "someone"),
        ],
    )
    def test_what_is_not_supported_is_refused(self, tmp_path: Path, field: str, value: Any) -> None:
        path = write(tmp_path / "config", kubeconfig({field: value}))
        with pytest.raises(ConfigError) as caught:
            read_kubeconfig([path])
        assert f"context 'dev': '{field}' is not supported; use a service account's token" in str(caught.value)

    def test_a_proxy_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "config", kubeconfig(cluster={"proxy-url": "http://proxy"}))
        with pytest.raises(ConfigError, match="'proxy-url' is not supported"):
            read_kubeconfig([path])

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "it has no current-context"),
            ("current-context: dev", "there is no context 'dev'; it has none"),
            ("[1, 2]", "cannot be understood"),
            ("current-context: {", "cannot be understood"),
            ("current-context: 5", "cannot be understood"),
            ("clusters: [{name: here}]", "cannot be understood"),
            ("users: [{name: me, user: {token: [1]}}]", "cannot be understood"),
        ],
    )
    def test_one_that_is_broken(self, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "config"
        path.write_text(text)
        with pytest.raises(ConfigError, match=says) as caught:
            read_kubeconfig([path])
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (
                {"contexts": [{"name": "dev", "context": {"cluster": "away"}}]},
                "there is no cluster 'away'; it has here",
            ),
            ({"contexts": [{"name": "dev", "context": {"cluster": "here", "user": "you"}}]}, "there is no user 'you'"),
            ({"clusters": [{"name": "here", "cluster": {}}]}, "server None is no URL"),
            ({"clusters": [{"name": "here", "cluster": {"server": "10.0.0.9"}}]}, "server '10.0.0.9' is no URL"),
            (
                {"clusters": [{"name": "here", "cluster": {"server": "https://a", "certificate-authority-data": "%"}}]},
                "certificate-authority-data is no PEM in base64",
            ),
        ],
    )
    def test_entries_that_are_missing_or_wrong(self, tmp_path: Path, change: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_kubeconfig([write(tmp_path / "config", kubeconfig() | change)])
        assert says in str(caught.value)

    def test_what_is_broken_is_not_shown(self, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text("users: [{name: me, user: {token: s3cret\n")
        with pytest.raises(ConfigError, match="cannot be understood") as caught:
            read_kubeconfig([path])
        assert "s3cret" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="absent cannot be read"):
            read_kubeconfig([tmp_path / "absent"])

    def test_without_yaml(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "yaml", None)
        with pytest.raises(ConfigError, match=r"pip install 'grpclb-core\[k8s\]'"):
            read_kubeconfig([tmp_path / "config"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server that asks for a client's certificate, takes it if it is ours, and does without as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "kubernetes.default.svc").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


@pytest.fixture
def api(tls: ssl.SSLContext) -> Iterator[ApiServer]:
    with ApiServer(tls=tls) as running:
        running.put(endpoint_slice("a", "10.0.0.1"), namespace="team")
        yield running


@asynccontextmanager
async def following(sink: Recorder, **options: Any) -> AsyncIterator[None]:
    config = KubernetesConfig(**{**FAST, **options.pop("config", {})})
    resolver = KubernetesResolver(parse_kubernetes("///greeter:grpc"), config, **options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
class TestBeingLetIn:
    async def test_in_a_pod_with_a_token_that_is_rotated(
        self, api: ApiServer, sink: Recorder, authority: trustme.CA, tmp_path: Path
    ) -> None:
        host, _, port = api.url.removeprefix("https://").rpartition(":")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        service_account(tmp_path, token="first")
        environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        api.token = "first"
        find = {"find": lambda: read_service_account(environ, tmp_path), "config": {"watch_timeout_s": 1}}
        async with following(sink, **find):
            await sink.until(lambda: sink.updates and api.watching)
            api.token = "second"  # no good for what comes from now on; the open watch goes on
            (tmp_path / "token").write_text("second")
            await sink.until(lambda: any(request.token == "second" for request in api.requests))
            api.put(endpoint_slice("b", "10.0.0.2"), namespace="team")
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.errors == []

    async def test_by_a_kubeconfig_with_everything_in_it(
        self, api: ApiServer, sink: Recorder, authority: trustme.CA, tmp_path: Path
    ) -> None:
        me = authority.issue_cert("me@example.org")
        user = {
            "token": "t",
            "client-certificate-data": b64encode(me.cert_chain_pems[0].bytes()).decode(),
            "client-key-data": b64encode(me.private_key_pem.bytes()).decode(),
        }
        ca = {"server": api.url, "certificate-authority-data": b64encode(authority.cert_pem.bytes()).decode()}
        api.token = "t"
        path = write(tmp_path / "config", kubeconfig(user, ca, namespace="team"))
        async with following(sink, config={"kubeconfig": str(path)}):
            await sink.until(lambda: sink.updates)
        assert sink.errors == []

    async def test_by_files_and_another_name(
        self, api: ApiServer, sink: Recorder, authority: trustme.CA, tmp_path: Path
    ) -> None:
        me = authority.issue_cert("me@example.org")
        me.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "me.pem"))
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        server = api.url.replace("127.0.0.1", "localhost")  # which is not in the certificate
        settings = {
            "server": server,
            "certificate-authority": "ca.crt",
            "tls-server-name": "kubernetes.default.svc",
        }
        user = {"client-certificate": "me.pem", "client-key": "me.pem"}
        path = write(tmp_path / "config", kubeconfig(user, settings, namespace="team"))
        async with following(sink, config={"kubeconfig": str(path)}):
            await sink.until(lambda: sink.updates)
        assert sink.errors == []

    async def test_without_checking(self, api: ApiServer, sink: Recorder, tmp_path: Path) -> None:
        settings = {"server": api.url, "insecure-skip-tls-verify": True}
        path = write(tmp_path / "config", kubeconfig(cluster=settings, namespace="team"))
        async with following(sink, config={"kubeconfig": str(path)}):
            await sink.until(lambda: sink.updates)

    async def test_a_server_of_another_authority_is_not_believed(
        self, api: ApiServer, sink: Recorder, tmp_path: Path
    ) -> None:
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        settings = {"server": api.url, "certificate-authority": "ca.crt"}
        path = write(tmp_path / "config", kubeconfig({"token": "secret"}, settings, namespace="team"))
        async with following(sink, config={"kubeconfig": str(path)}):
            await sink.until(lambda: sink.errors)
        assert "CERTIFICATE_VERIFY_FAILED" in str(sink.errors[0])
        assert sink.updates == []
        assert api.requests == []  # the token was not told to it

    async def test_a_server_of_another_name_is_not_believed(
        self, api: ApiServer, sink: Recorder, authority: trustme.CA
    ) -> None:
        cluster = Cluster(api.url.replace("127.0.0.1", "localhost"), ca_data=authority.cert_pem.bytes().decode())
        async with following(sink, find=lambda: cluster):
            await sink.until(lambda: sink.errors)
        assert "Hostname mismatch" in str(sink.errors[0])

    async def test_a_new_authority_is_taken_up(
        self, api: ApiServer, sink: Recorder, authority: trustme.CA, tmp_path: Path
    ) -> None:
        cluster = Cluster(api.url, "team", ca_file=str(tmp_path / "ca.crt"))
        async with following(sink, find=lambda: cluster):
            await sink.until(lambda: sink.errors)
            trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
            await sink.until(lambda: "CERTIFICATE_VERIFY_FAILED" in str(sink.errors[-1]))
            authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
            await sink.until(lambda: sink.updates)
        assert "certificates of https://127.0.0.1" in str(sink.errors[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"ca_file": "/nonexistent/ca.crt"},
        {"ca_data": "no certificate"},
        {"certificate_file": "/nonexistent/me.crt"},
        {"certificate_data": "no certificate", "key_data": "no key"},
        {"key_data": "no certificate with it"},
    ],
)
def test_certificates_that_cannot_be_used(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        cluster_tls(Cluster("https://10.0.0.9", **settings))
