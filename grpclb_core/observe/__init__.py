"""What happened, and why?

Entry point: `BalancerSnapshot`, the state of a balancer at one moment as plain values. Taking one costs a few atomic
readings an endpoint, and calls pay nothing for it.
"""

from .snapshot import BalancerSnapshot, EndpointSnapshot

__all__ = ["BalancerSnapshot", "EndpointSnapshot"]
