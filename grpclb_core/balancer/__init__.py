"""How does it all hang together?

Entry point: `Balancer`, the composition root. A resolver tells it who is there; it connects to them (`reach.py`,
`upkeep.py`), chooses who may take calls (`selection.py`, `outliers.py`), and puts pickers in force, where the calls
find them. Read `balancer.py` first.
"""

from .balancer import Balancer
from .source import TargetLike

__all__ = ["Balancer", "TargetLike"]
