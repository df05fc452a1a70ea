"""Ring hash: the same endpoint for the same key, as gRFC A42 and A76 have it."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

import msgspec

from ..config import PositiveSeconds
from ..errors import ConfigError
from ..native import Picker, RingHashPicker, View

RingSize = Annotated[int, msgspec.Meta(ge=1, le=8_388_608)]  # A42: 8M, as in Envoy

_HEADER = re.compile(r"[0-9a-z_.-]+", re.IGNORECASE)  # Header-Name of gRPC over HTTP/2, which is sent in lower case


class RingHash(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes the first endpoint clockwise from the hash of a call's header, on a ring of the hashes of endpoints.

    A call without the header goes anywhere. Endpoints are on the ring by their addresses, or by the `hash_key` in their
    metadata; it is the ring that gRPC makes in other languages.

    Raises:
        ConfigError: the sizes exclude one another, the header can carry no key, or the bound is below the mean.
    """

    name: ClassVar[str] = "ring_hash"
    goes_by_name: ClassVar[bool] = True
    not_in_json: ClassVar[tuple[str, ...]] = ("ring_size_cap",)
    """The cap is the client's own: a service config cannot raise it."""

    request_hash_header: str = ""
    """The header whose value is the key of a call, several values joined by commas (A76); empty: calls have no key."""
    min_ring_size: RingSize = 1024
    """Points on the ring, at least; the more, the more even are the parts of the circle (A42)."""
    max_ring_size: RingSize = 4096
    """Points on the ring, at most. With more endpoints than that, some get no calls (A42)."""
    ring_size_cap: RingSize = 4096
    """No size counts for more than that, whatever a service config asks for: A42's cap of the client, and its value."""
    bounded_load: Annotated[float, msgspec.Meta(ge=0)] = 1.25
    """Calls go on to the next endpoint from one that would have more than this many times its share of the calls in
    flight, and one; 0 is no bound. It is not in A42. The c of Mirrokni et al. 2016, at the value HAProxy's users have
    settled on."""
    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is reported; the choice does not look at it."""

    def __post_init__(self) -> None:
        problems = []
        if self.min_ring_size > self.max_ring_size:
            problems.append(f"min_ring_size {self.min_ring_size} is above max_ring_size {self.max_ring_size}; lower it")
        if 0 < self.bounded_load < 1:
            problems.append(f"bounded_load {self.bounded_load} is below the mean; use 1 or more, or 0 for no bound")
        header = self.request_hash_header
        if header and not _HEADER.fullmatch(header):
            problems.append(f"request_hash_header {header[:60]!r} is no header's name; use letters, digits and -_.")
        elif header.lower().endswith("-bin"):
            problems.append(f"request_hash_header {header[:60]!r} is a binary header, which cannot be a key (A76)")
        if problems:
            raise ConfigError(problems)

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return RingHashPicker(
            view,
            min_ring_size=min(self.min_ring_size, self.ring_size_cap),
            max_ring_size=min(self.max_ring_size, self.ring_size_cap),
            key_header=self.request_hash_header.lower() or None,
            bounded_load=self.bounded_load,
            decay_s=self.decay_s,
            seed=seed,
        )
