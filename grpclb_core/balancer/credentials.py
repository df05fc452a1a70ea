"""The credentials of a balancer that come from files: what they are now, and what they become."""

from __future__ import annotations

import logging
from collections.abc import Callable

import grpc

from ..errors import IdentityError
from ..identity import ReloadingCredentials, TlsMaterial, verify_identity
from ..types import Address
from .checks import Verify

logger = logging.getLogger("grpclb_core")


def identity_of(
    credentials: grpc.ChannelCredentials | ReloadingCredentials | None,
) -> tuple[grpc.ChannelCredentials | None, Identity | None]:
    """Return the credentials to begin with, and what becomes of them if they come from files.

    Raises:
        IdentityError: the files cannot be used.
    """
    if not isinstance(credentials, ReloadingCredentials):
        return credentials, None
    identity = Identity(credentials)
    return identity.credentials, identity


class Identity:
    """Who this client is to its servers, and who they have to be.

    Raises:
        IdentityError: the files cannot be used.
    """

    def __init__(self, files: ReloadingCredentials) -> None:
        self._files = files
        self._material = files.load()
        self._renew: Callable[[grpc.ChannelCredentials], None] | None = None
        self.credentials = self._material.channel_credentials()

    @property
    def verification(self) -> Verify | None:
        """What looks who listens at an address; None if nobody in particular is expected."""
        return None if self._files.expected_server is None else self._verify

    async def _verify(self, address: Address) -> None:
        expected = self._files.expected_server
        assert expected is not None
        await verify_identity(address, self._material, expected)

    async def follow(self, renew: Callable[[grpc.ChannelCredentials], None]) -> None:
        """Call `renew` with every new set of credentials, until cancelled."""
        self._renew = renew
        await self._files.watch(self)

    # What the watch over the files reports

    def update(self, credentials: grpc.ChannelCredentials, material: TlsMaterial) -> None:
        """Take new credentials into use."""
        if material != self._material and self._renew is not None:
            logger.info("credentials were replaced; connections are made anew")
            self._material, self.credentials = material, credentials
            self._renew(credentials)

    def fail(self, error: IdentityError) -> None:
        """Take note that the files cannot be used; the credentials before stay."""
        logger.warning("%s", error)
