"""How many more endpoints may be done without.

Whatever speaks against them, some must stay: those left have to carry the load of all. An ejection that would leave too
few does not happen; so none begins a panic (`..panic`), in which the ejected ones would get their calls again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from ...types import Address
from ..combine import Standing
from .records import Fleet


class Room:
    """Counts who is out, and says whether one more may be; it counts when it is first asked, as mostly nobody asks.

    Args:
        fleet: every endpoint; only those count that are connected.
        out: those who are out or on trial. One on trial has yet to show that it is of any use.
        threshold: the share of usable ones below which there is panic, 0 to 1.
    """

    def __init__(self, fleet: Fleet, out: Set[Address], threshold: float) -> None:
        self._fleet = fleet
        self._initial = out
        self._threshold = threshold
        self._out = -1
        self._connected = 0
        self._counts: Counter[Standing] = Counter()

    def take(self, address: Address, max_share: float = 1.0) -> bool:
        """Take one more out if that may be, and return whether it was; one that is not connected is no loss.

        `max_share` is the most that may be out, as a share of the connected ones.
        """
        standing = self._fleet[address].standing
        if standing is None:
            return True
        if self._counted() >= self._most_out(max_share):
            return False
        self._move(standing, 1)
        if self._is_enough():
            return True
        self._move(standing, -1)
        return False

    def give_back(self, address: Address) -> None:
        """Take note that one is in again."""
        standing = self._fleet[address].standing
        if standing is not None:
            self._counted()
            self._move(standing, -1)

    def is_overdrawn(self, max_share: float = 1.0) -> bool:
        """Tell whether more are out than may be, because others left or lost their connection, or these came back."""
        return self._counted() > self._most_out(max_share)

    def _counted(self) -> int:
        """Return how many are out."""
        if self._out < 0:
            self._out = 0
            for address, seen in self._fleet.items():
                if seen.standing is not None:
                    self._connected += 1
                    if address in self._initial:
                        self._out += 1
                    else:
                        self._counts[seen.standing] += 1
        return self._out

    def _most_out(self, max_share: float) -> int:
        if max_share <= 0:
            return 0
        # One may be out where there are two; else a share would forbid in a small set what it allows in a large one.
        return max(0, min(self._connected - 1, max(1, int(max_share * self._connected))))

    def _move(self, standing: Standing, out: int) -> None:
        self._counts[standing] -= out
        self._out += out

    def _is_enough(self) -> bool:
        """Tell whether those who stay can do without panic, by the rule of `..panic.choose`."""
        serving = self._counts[Standing.USABLE] or self._counts[Standing.LEAVING]
        good = serving + self._counts[Standing.PENDING]
        # Those on trial would count as good there, so this errs on the side of leaving endpoints in.
        return serving > 0 and good / (good + self._counts[Standing.UNUSABLE] + self._out) >= self._threshold
