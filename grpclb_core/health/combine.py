"""What two opinions of an endpoint come to: that of its source (a registry) and that of the server itself (a check).

    ==================  ===========  ========  =======  ===========
    source \\ check      UNKNOWN      SERVING   PENDING  NOT_SERVING
    ==================  ===========  ========  =======  ===========
    UNKNOWN, HEALTHY    USABLE       USABLE    PENDING  UNUSABLE
    UNHEALTHY           UNUSABLE     UNUSABLE  UNUSABLE UNUSABLE
    DRAINING            LEAVING      LEAVING   PENDING  LEFT
    ==================  ===========  ========  =======  ===========

An endpoint that is ejected, because its calls fail, is as one that says NOT_SERVING, but for PENDING ones: those get no
calls, be they ejected or not.

One bad opinion is enough, as in Envoy, where a host with any of its health flags set is unhealthy: a registry knows of
maintenance that the server has not heard of, and a server knows of trouble before the registry does.
"""

from __future__ import annotations

from enum import Enum

from ..types import Health, Verdict


class Standing(Enum):
    """Where an endpoint stands for new calls."""

    USABLE = "usable"
    PENDING = "pending"
    """Not yet, but soon perhaps: gRFC A17 sends no call before the first answer to a health check."""
    LEAVING = "leaving"
    """It serves, and is about to go: for when there is nothing else."""
    UNUSABLE = "unusable"
    """Somebody says that it is unwell; used only when so many are that this is not believed."""
    LEFT = "left"
    """About to go and refusing calls by now, as a server does that shuts down; no sign of trouble in the set."""


_SERVES = {
    Verdict.UNKNOWN: Standing.USABLE,
    Verdict.SERVING: Standing.USABLE,
    Verdict.PENDING: Standing.PENDING,
    Verdict.NOT_SERVING: Standing.UNUSABLE,
}

TABLE: dict[Health, dict[Verdict, Standing]] = {
    Health.UNKNOWN: _SERVES,
    Health.HEALTHY: _SERVES,
    Health.UNHEALTHY: dict.fromkeys(Verdict, Standing.UNUSABLE),
    Health.DRAINING: {
        Verdict.UNKNOWN: Standing.LEAVING,
        Verdict.SERVING: Standing.LEAVING,
        Verdict.PENDING: Standing.PENDING,
        Verdict.NOT_SERVING: Standing.LEFT,
    },
}
"""The table above; every pair is in it."""


def standing(source: Health, check: Verdict, is_ejected: bool = False) -> Standing:
    """Return what the opinion of the source and that of the active check come to, and how calls to it fare.

    Example:
        >>> standing(Health.HEALTHY, Verdict.NOT_SERVING)
        <Standing.UNUSABLE: 'unusable'>
    """
    return TABLE[source][Verdict.NOT_SERVING if is_ejected and check is not Verdict.PENDING else check]
