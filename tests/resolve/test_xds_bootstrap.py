"""Whom to ask: targets and the bootstrap JSON of gRPC."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from grpclb_core.config import Config, XdsConfig, parse_config
from grpclb_core.errors import ConfigError, TargetError
from grpclb_core.resolve import parse_target, resolver_for
from grpclb_core.resolve.xds.bootstrap import Bootstrap, parse_bootstrap, read_bootstrap
from grpclb_core.resolve.xds.connect import open_channel
from grpclb_core.types import Locality

SERVER: dict[str, object] = {"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}
MINIMAL: dict[str, object] = {"xds_servers": [SERVER]}
WITH_BOOTSTRAP = Config(xds=XdsConfig(bootstrap=MINIMAL))


def with_credentials(*credentials: object) -> Bootstrap:
    return parse_bootstrap({"xds_servers": [{"server_uri": "a:1", "channel_creds": list(credentials)}]}, "here")


class TestTarget:
    @pytest.mark.parametrize(
        ("text", "authority"),
        [
            ("xds:///greeter", "greeter"),
            ("xds:///greeter.example:50051", "greeter.example:50051"),
            ("xds:///outbound|8080||greeter.default", None),
            ("xds:///a%2Fb", None),
            ("XDS:///gr%65eter", "greeter"),
        ],
    )
    def test_the_path_is_the_cluster(self, text: str, authority: str | None) -> None:
        assert resolver_for(parse_target(text), WITH_BOOTSTRAP).authority == authority

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("xds://", "the cluster is missing; write xds:///cluster"),
            ("xds:///", "the cluster is missing"),
            ("xds://greeter", "authority 'greeter'"),
            ("xds://server/greeter", "write xds:///greeter"),
            ("xds:///%ff", "is no UTF-8"),
        ],
    )
    def test_what_is_no_cluster(self, text: str, says: str) -> None:
        with pytest.raises(TargetError) as raised:
            resolver_for(parse_target(text), WITH_BOOTSTRAP)
        assert says in str(raised.value)
        assert f"target {text!r}" in str(raised.value)

    def test_what_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("grpclb_core.resolve.xds.")]:
            monkeypatch.delitem(sys.modules, name)
        real = builtins.__import__

        def blocked(name: str, *rest: object) -> ModuleType:
            if name.partition(".")[0] == "envoy":
                raise ModuleNotFoundError("No module named 'envoy'", name="envoy")
            return real(name, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(builtins, "__import__", blocked)
        with pytest.raises(TargetError, match=r"pip install 'grpclb-core\[xds\]'"):
            resolver_for(parse_target("xds:///greeter"), WITH_BOOTSTRAP)


class TestWhereItIsRead:
    def test_what_is_given_counts_before_the_environment(self, tmp_path: Path) -> None:
        path = tmp_path / "bootstrap.json"
        path.write_text(json.dumps(MINIMAL))
        environment = {"GRPC_XDS_BOOTSTRAP": str(path), "GRPC_XDS_BOOTSTRAP_CONFIG": "nonsense"}
        given = {"xds_servers": [SERVER | {"server_uri": "given:1"}]}
        assert read_bootstrap(given, environment).xds_servers[0].server_uri == "given:1"
        assert read_bootstrap(None, environment).xds_servers[0].server_uri == "127.0.0.1:1"

    def test_the_text_counts_where_no_file_is_named(self) -> None:
        environment = {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(MINIMAL)}
        assert read_bootstrap(None, environment).xds_servers[0].server_uri == "127.0.0.1:1"

    @pytest.mark.parametrize(
        ("environment", "says"),
        [
            ({}, "no xDS server is known; set GRPC_XDS_BOOTSTRAP"),
            ({"GRPC_XDS_BOOTSTRAP": "/no/such/file"}, "cannot read '/no/such/file'"),
            ({"GRPC_XDS_BOOTSTRAP_CONFIG": "{"}, "GRPC_XDS_BOOTSTRAP_CONFIG: "),
            ({"GRPC_XDS_BOOTSTRAP_CONFIG": "\udcff"}, "GRPC_XDS_BOOTSTRAP_CONFIG: "),
            ({"GRPC_XDS_BOOTSTRAP_CONFIG": "[" * 100_000}, "GRPC_XDS_BOOTSTRAP_CONFIG: "),
        ],
    )
    def test_what_is_wrong_is_told(self, environment: Mapping[str, str], says: str) -> None:
        with pytest.raises(ConfigError) as raised:
            read_bootstrap(None, environment)
        assert says in str(raised.value)

    def test_the_environment_is_read_when_a_resolver_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GRPC_XDS_BOOTSTRAP", raising=False)
        monkeypatch.delenv("GRPC_XDS_BOOTSTRAP_CONFIG", raising=False)
        with pytest.raises(TargetError, match="no xDS server is known"):
            resolver_for(parse_target("xds:///greeter"), Config())
        monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", json.dumps(MINIMAL))
        resolver_for(parse_target("xds:///greeter"), Config())

    def test_a_mapping_can_be_configured(self) -> None:
        assert parse_config({"xds": {"bootstrap": MINIMAL, "delta": True}}).xds.bootstrap == MINIMAL


class TestWhatIsRead:
    def test_everything(self) -> None:
        text = """{
          "xds_servers": [
            {"server_uri": "dns:///one:443", "channel_creds": [{"type": "tls", "config": {}}],
             "server_features": ["xds_v3", "ignore_resource_deletion"]},
            {"server_uri": "two:18000", "channel_creds": [{"type": "insecure"}]}
          ],
          "node": {"id": "me", "cluster": "mine", "locality": {"region": "r", "zone": "z", "sub_zone": "s"},
                   "metadata": {"team": "x"}},
          "authorities": {"elsewhere": {}}, "certificate_providers": {}
        }"""
        bootstrap = parse_bootstrap(text.encode(), "here")
        assert [server.server_uri for server in bootstrap.xds_servers] == ["dns:///one:443", "two:18000"]
        assert bootstrap.xds_servers[0].server_features == ("xds_v3", "ignore_resource_deletion")
        assert bootstrap.node.locality == Locality("r", "z", "s")
        assert bootstrap.node.metadata == {"team": "x"}

    def test_the_first_supported_credentials_count(self) -> None:
        bootstrap = with_credentials({"type": "alts"}, {"type": "insecure"}, {"type": "tls"})
        assert bootstrap.xds_servers[0].credentials.type == "insecure"

    @pytest.mark.parametrize(
        ("raw", "says"),
        [
            ({}, "xds_servers"),
            ({"xds_servers": []}, "xds_servers is empty"),
            ({"xds_servers": [{"server_uri": 5, "channel_creds": []}]}, "$.xds_servers[0].server_uri"),
            ({"xds_servers": [SERVER | {"server_uri": ""}]}, "xds_servers[0]: server_uri is empty"),
            ({"xds_servers": [SERVER], "node": {"id": 5}}, "$.node.id"),
            ({"xds_servers": [SERVER, SERVER | {"channel_creds": []}]}, "xds_servers[1]: channel_creds: none"),
            ({"xds_servers": [SERVER | {"channel_creds": [{"type": "alts"}]}]}, "'alts'; one of insecure, tls"),
        ],
    )
    def test_what_cannot_be_used(self, raw: Mapping[str, object], says: str) -> None:
        for given in (raw, json.dumps(raw).encode()):
            with pytest.raises(ConfigError) as raised:
                parse_bootstrap(given, "here")
            assert says in str(raised.value)
            assert str(raised.value).startswith("here")

    @pytest.mark.parametrize("config", [{"certificate_file": "a.pem"}, {"ca_certificate_file": 5}])
    def test_tls_options_that_cannot_be_used(self, config: Mapping[str, object]) -> None:
        with pytest.raises(ConfigError, match="config of 'tls'"):
            with_credentials({"type": "tls", "config": config})


class TestGoogleDefault:
    def server(self) -> Bootstrap:
        return with_credentials({"type": "google_default"})

    def test_what_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "google.auth", None)
        with pytest.raises(ConfigError, match="pip install google-auth requests"):
            open_channel(self.server().xds_servers[0])

    @pytest.mark.anyio
    async def test_they_are_what_google_auth_finds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        class AuthMetadataPlugin(grpc.AuthMetadataPlugin):
            def __init__(self, *given: object) -> None:
                asked.extend(given)

        modules = {
            name: ModuleType(name) for name in ("google.auth", "google.auth.exceptions", "google.auth.transport")
        }
        modules |= {name: ModuleType(name) for name in ("google.auth.transport.grpc", "google.auth.transport.requests")}
        modules["google.auth"].default = lambda scopes: ("found", None)  # type: ignore[attr-defined]
        modules["google.auth.exceptions"].GoogleAuthError = OSError  # type: ignore[attr-defined]
        modules["google.auth.transport.grpc"].AuthMetadataPlugin = AuthMetadataPlugin  # type: ignore[attr-defined]
        modules["google.auth.transport.requests"].Request = lambda: "request"  # type: ignore[attr-defined]
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        await open_channel(self.server().xds_servers[0]).close()
        assert asked == ["found", "request"]


@pytest.fixture
def anyio_backend(asyncio_backend: Any) -> Any:
    return asyncio_backend
