"""A server that puts itself into etcd, where the clients' `etcd:` targets find it.

The key hangs on a lease that this process keeps alive, so that a server which dies without a word is gone after
`lease_ttl_s`. Where the lease was lost (the process stood still, etcd lost its data), the server registers again by
itself. A key that somebody deletes while its lease lives stays deleted: that takes a server out of service.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio

from ..config import EtcdConfig, parse_struct
from ..errors import ConfigError, RegistrationError
from ..resolve import parse_target
from ..resolve.etcd.client import EtcdClient, Lease, LeaseLostError
from ..resolve.etcd.target import EtcdTarget, parse_etcd
from ..resolve.etcd.values import address_of, value_of
from ..resolve.target import problems_of
from ..types import Endpoint, Locality

BEATS = 3
"""Renewals within the time that a lease is good for, as etcd's own client has it: two may get lost."""
MAX_TTL_S = 9_000_000_000
"""Longest lease that etcd grants (`maxLeaseTTL` in go.etcd.io/etcd/server/lease)."""

logger = logging.getLogger("grpclb_core.server")


class Registration:
    """How a registration stands."""

    def __init__(self, target: EtcdTarget, endpoint: Endpoint, config: EtcdConfig, lease_ttl_s: float) -> None:
        self.key = f"{target.prefix}{endpoint.address}"
        self.fault: Exception | None = None
        """Why the lease could not be renewed the last time; None when it was."""
        self._value = value_of(endpoint)
        self._client = EtcdClient(target.members, config)
        self._timeout_s = config.timeout_s
        self._ttl_s = math.ceil(lease_ttl_s)
        self._lease: Lease | None = None
        self._written = False
        self._scope = anyio.CancelScope()
        self._first = anyio.Event()
        self._kept = anyio.Event()  # set once it no longer is

    @property
    def registered(self) -> bool:
        """Whether the key was written with the lease that is now kept alive."""
        return self._written

    async def _begun(self, timeout_s: float) -> None:
        """Wait until it is registered.

        Raises:
            RegistrationError: it was not in time.
        """
        with anyio.move_on_after(timeout_s):
            await self._first.wait()
        if not self._first.is_set():
            reason = self.fault or "etcd did not answer"
            raise RegistrationError(f"{self.key} could not be registered within {timeout_s} s ({reason})")

    async def _keep(self) -> None:
        """Register, and see to it that it stays so, until cancelled."""
        try:
            with self._scope:
                await self._keep_on()
        finally:
            self._kept.set()

    async def _keep_on(self) -> None:
        failures = 0
        while True:
            try:
                async with self._client:
                    while True:
                        interval_s = await self._beat()
                        failures, self.fault = 0, None
                        self._first.set()
                        await anyio.sleep(interval_s)
            except Exception as error:  # whatever it is, the server in whose name this runs goes on
                self._note(error)
            # At the pace of the renewals at least: a lease that is about to run out cannot wait longer.
            await anyio.sleep(min(self._client.retry_wait_s(failures), self._ttl_s / BEATS))
            failures += 1

    async def _beat(self) -> float:
        """Do what is next, and give the seconds until the beat after it."""
        if self._lease is None:
            self._lease = await self._client.grant(self._ttl_s)
        if self._written:
            await self._client.keep_alive(self._lease)
        else:
            await self._client.put(self.key.encode(), self._value, self._lease)
            self._written = True
            logger.info("registered %s at etcd %s", self.key, self._client.member)
        return max(1, int(self._lease.TTL)) / BEATS  # etcd may grant more than was asked for

    def _note(self, error: Exception) -> None:
        if isinstance(error, LeaseLostError):
            self._lease, self._written = None, False
        self.fault = error
        logger.warning("registration of %s: %s", self.key, error)

    async def _end(self) -> None:
        """Give the lease back, and with it the key; another process that took the key over keeps it."""
        self._scope.cancel()
        with anyio.move_on_after(self._timeout_s, shield=True):
            await self._kept.wait()
            lease, self._lease, self._written = self._lease, None, False
            while lease is not None:
                try:
                    async with self._client:
                        await self._client.revoke(lease)
                    return
                except LeaseLostError:
                    return
                except Exception as error:
                    logger.warning("deregistration of %s: %s", self.key, error)
                    await anyio.sleep(self._client.retry_wait_s(0))


@asynccontextmanager
async def register(
    target: str,
    address: str,
    *,
    weight: float = 1.0,
    region: str = "",
    zone: str = "",
    sub_zone: str = "",
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
    lease_ttl_s: float = 10.0,
    drain_s: float = 0.0,
    start_timeout_s: float = 30.0,
    etcd: EtcdConfig | Mapping[str, object] | None = None,
) -> AsyncIterator[Registration]:
    """Register a server for as long as the block runs; to be entered once it listens.

    `target` is what clients use, `address` where they reach this server. On leaving, the server is taken out first, and
    then `drain_s` pass, in which clients go elsewhere; the server may stop after that. `lease_ttl_s` is rounded up to
    whole seconds. Entering waits for etcd up to `start_timeout_s`; once inside, etcd may come and go.

    Raises:
        ConfigError: an argument cannot be used.
        RegistrationError: etcd could not be reached in time, or refused.
    """
    found = _endpoint(address, weight, Locality(region, zone, sub_zone), priority, metadata or {})
    registration = _registration(target, found, etcd, lease_ttl_s)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(registration._keep)
        try:
            await registration._begun(start_timeout_s)
            yield registration
        except Exception as error:
            failure = error  # raised below, for a task group would wrap it
        finally:
            await registration._end()
        if not isinstance(failure, RegistrationError):
            await anyio.sleep(drain_s)
    if failure is not None:
        raise failure


def _registration(
    target: str, endpoint: Endpoint, etcd: EtcdConfig | Mapping[str, object] | None, lease_ttl_s: float
) -> Registration:
    config = parse_struct(EtcdConfig, {} if etcd is None else etcd, "etcd")
    parsed = parse_target(target)
    with problems_of(target):
        if parsed.scheme != "etcd":
            raise ConfigError("servers register with etcd alone; write etcd://host:2379/prefix")
        where = parse_etcd(parsed.rest, tls=config.tls)
    if not 1 <= lease_ttl_s <= MAX_TTL_S:
        raise ConfigError(f"lease_ttl_s {lease_ttl_s} is out of range; use 1 to {MAX_TTL_S}")
    return Registration(where, endpoint, config, lease_ttl_s)


def _endpoint(address: str, weight: float, locality: Locality, priority: int, metadata: Mapping[str, str]) -> Endpoint:
    found = address_of(address)
    if ipaddress.ip_address(found.host).is_unspecified:
        raise ConfigError(f"address {address!r} is where a server listens; give the one that clients reach it by")
    return Endpoint(found, weight, locality, priority, metadata=dict(metadata))
