"""Which API server to ask, and as whom: the service account of a pod, or a kubeconfig.

Read anew for every connection, so that what is rotated (tokens, certificates) is taken up; a token that lives in a
file is read before each request. Where is looked, in this order:

    the option `kubeconfig`       that file
    KUBECONFIG in the environment  these files, merged as kubectl does: the first that says something counts
    inside a pod                  the service account that is mounted there
    ~/.kube/config                if there is one
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import msgspec

from ...config import KubernetesConfig
from ...errors import ConfigError

# https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
HOME_KUBECONFIG = Path(".kube", "config")
_NO_CLUSTER = (
    "no Kubernetes cluster is known: this is no pod (KUBERNETES_SERVICE_HOST is not set), KUBECONFIG is not set and "
    "there is no ~/.kube/config; set one of them, or the option kubernetes.kubeconfig"
)


class Cluster(msgspec.Struct, frozen=True):
    """An API server and how to be let in."""

    server: str
    namespace: str = "default"
    """Of targets that name none."""
    ca_file: str = ""
    ca_data: str = ""
    """PEM; with neither, the authorities of the machine count."""
    insecure: bool = False
    """The server's certificate is not checked."""
    tls_name: str = ""
    """The name in the server's certificate, where it is not that of `server`."""
    token: str = ""
    token_file: str = ""
    """Counts more than `token`."""
    certificate_file: str = ""
    certificate_data: str = ""
    """PEM, as the key's."""
    key_file: str = ""
    key_data: str = ""

    def bearer(self) -> str:
        """Give the token as it is now; empty if there is none.

        Raises:
            ConfigError: its file cannot be read, or it is no token.
        """
        token = _text_of(Path(self.token_file)).strip() if self.token_file else self.token
        if not (token.isascii() and token.isprintable()):
            # Refused here, because an HTTP library would show the header that it cannot send.
            raise ConfigError(f"{self.token_file or 'the token of the kubeconfig'} holds more than a token; repair it")
        return token


class _ClusterEntry(msgspec.Struct, rename="kebab"):
    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _UserEntry(msgspec.Struct, rename="kebab"):
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    exec: object = None
    auth_provider: object = None
    username: str | None = None
    impersonate: str | None = msgspec.field(default=None, name="as")


class _ContextEntry(msgspec.Struct):
    cluster: str = ""
    user: str = ""
    namespace: str | None = None


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _ClusterEntry


class _NamedUser(msgspec.Struct):
    name: str
    user: _UserEntry | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _ContextEntry


EntryT = TypeVar("EntryT", _NamedCluster, _NamedUser, _NamedContext)


class _Kubeconfig(msgspec.Struct):
    current_context: str | None = msgspec.field(default=None, name="current-context")
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


def find_cluster(
    config: KubernetesConfig,
    environ: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Cluster:
    """Find the API server and the credentials.

    Raises:
        ConfigError: there are none, or they cannot be used; the message says which file is at fault.
    """
    if config.kubeconfig:
        return read_kubeconfig([Path(config.kubeconfig).expanduser()], config.context)
    if environ.get("KUBECONFIG"):
        paths = [Path(path).expanduser() for path in environ["KUBECONFIG"].split(os.pathsep) if path]
        return read_kubeconfig(paths, config.context)
    if environ.get("KUBERNETES_SERVICE_HOST") and not config.context:
        return read_service_account(environ, service_account)
    path = Path(environ.get("HOME") or "~").expanduser() / HOME_KUBECONFIG
    if path.exists():
        return read_kubeconfig([path], config.context)
    raise ConfigError(_NO_CLUSTER)


def read_service_account(environ: Mapping[str, str], folder: Path) -> Cluster:
    """Take what Kubernetes gives every pod.

    Raises:
        ConfigError: nothing is mounted at `folder`.
    """
    if not (folder / "token").exists():
        raise ConfigError(
            f"this pod has no service account's token at {folder}; set automountServiceAccountToken: true and "
            "serviceAccountName (deploy/kubernetes/rbac.yaml has one)"
        )
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT") or "443"
    namespace = folder / "namespace"
    return Cluster(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=(_text_of(namespace).strip() if namespace.exists() else "") or "default",
        ca_file=str(folder / "ca.crt"),
        token_file=str(folder / "token"),
    )


def read_kubeconfig(paths: list[Path], context: str = "") -> Cluster:
    """Take the cluster, the user and the namespace of a context, the current one if none is named.

    Raises:
        ConfigError: a file cannot be read, an entry is missing, or it asks for what is not supported.
    """
    # As kubectl: of several files some may be absent, of one it is a mistake.
    found = [_load(path) for path in paths if len(paths) == 1 or path.exists()]
    where = f"kubeconfig {os.pathsep.join(map(str, paths))}"
    wanted = context or next((each.current_context for each in found if each.current_context), "")
    if not wanted:
        raise ConfigError(f"{where}: it has no current-context; set one, or the option kubernetes.context")
    chosen = _named([each for file in found for each in file.contexts or ()], wanted, where, "context").context
    cluster_entries = [each for file in found for each in file.clusters or ()]
    cluster = _named(cluster_entries, chosen.cluster, where, "cluster").cluster
    user = _UserEntry()
    if chosen.user:
        users = [each for file in found for each in file.users or ()]
        user = _named(users, chosen.user, where, "user").user or user
    _refuse_unsupported(cluster, user, f"{where}, context {wanted!r}")
    where = f"{where}, cluster {chosen.cluster!r}"
    if not (cluster.server or "").startswith(("https://", "http://")):
        raise ConfigError(f"{where}: server {cluster.server!r} is no URL; write https://host:port")
    return Cluster(
        server=cluster.server or "",
        namespace=chosen.namespace or "default",
        ca_file=cluster.certificate_authority or "",
        ca_data=_decoded(cluster.certificate_authority_data, where, "certificate-authority-data"),
        insecure=bool(cluster.insecure_skip_tls_verify),
        tls_name=cluster.tls_server_name or "",
        token=user.token or "",
        token_file=user.token_file or "",
        certificate_file=user.client_certificate or "",
        certificate_data=_decoded(user.client_certificate_data, where, "client-certificate-data"),
        key_file=user.client_key or "",
        key_data=_decoded(user.client_key_data, where, "client-key-data"),
    )


def _refuse_unsupported(cluster: _ClusterEntry, user: _UserEntry, where: str) -> None:
    asked = {
        "exec": user.exec,
        "auth-provider": user.auth_provider,
        "username": user.username,
        "as": user.impersonate,
        "proxy-url": cluster.proxy_url,
    }
    problems = [
        f"{where}: {name!r} is not supported; use a service account's token (kubectl create token), a tokenFile or a "
        "client certificate"
        for name, value in asked.items()
        if value
    ]
    if problems:
        raise ConfigError(problems)


def _named(entries: list[EntryT], name: str, where: str, kind: str) -> EntryT:
    for entry in entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in entries) or "none"
    raise ConfigError(f"{where}: there is no {kind} {name!r}; it has {known}")


def _load(path: Path) -> _Kubeconfig:
    if find_spec("yaml") is None:  # which msgspec reads YAML with
        raise ConfigError("a kubeconfig needs PyYAML; pip install 'grpclb-core[k8s]'")
    try:
        loaded = msgspec.yaml.decode(_text_of(path), type=_Kubeconfig | None)
    except Exception as error:  # PyYAML's constructors raise what comes: ValueError, KeyError, AttributeError
        # Two lines and no more: PyYAML goes on with a piece of the file, which has secrets in it.
        reason = " ".join(str(error).split("\n")[:2])
        raise ConfigError(f"kubeconfig {path}: it cannot be understood ({reason}); repair it") from None
    return _with_full_paths(loaded or _Kubeconfig(), path.parent)


def _with_full_paths(config: _Kubeconfig, folder: Path) -> _Kubeconfig:
    """Paths in a kubeconfig start at its own folder."""

    def full(path: str | None) -> str | None:
        return str(folder / path) if path else path

    for each in config.clusters or ():
        each.cluster.certificate_authority = full(each.cluster.certificate_authority)
    for user in (each.user for each in config.users or () if each.user):
        user.token_file = full(user.token_file)
        user.client_certificate = full(user.client_certificate)
        user.client_key = full(user.client_key)
    return config


def _decoded(data: str | None, where: str, name: str) -> str:
    try:
        return b64decode(data or "", validate=True).decode("ascii")
    except ValueError:
        raise ConfigError(f"{where}: {name} is no PEM in base64; repair it") from None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None
