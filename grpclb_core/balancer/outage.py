"""Why no endpoint can take a call, in words."""

from __future__ import annotations

from collections.abc import Iterable

from ..endpoints import Member
from ..errors import ResolutionError


def outage_of(members: Iterable[Member], is_resolved: bool, error: ResolutionError | None) -> str:
    """Say in one clause what is known: how many endpoints there are, what the resolver said, and who is a stranger."""
    listed = list(members)
    known = len({member.endpoint.address for member in listed})
    resolver = "the resolver answered" if is_resolved else "the resolver has not answered yet"
    if error is not None:
        resolver = f"the resolver failed: {error}"
    if known == 0:
        return f"no endpoint is known; {resolver}"
    outage = f"none of {known} endpoint{'s' if known > 1 else ''} is ready; {resolver}"
    strangers = [member.connection.last_error for member in listed if not member.is_trusted]
    return "; ".join([outage, *sorted(filter(None, strangers))[:1]])
