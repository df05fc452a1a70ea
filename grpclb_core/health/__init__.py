"""Who may be chosen?

Entry points: `watch_health`, which asks one server about itself for as long as its connection lives; `standing`, which
weighs what the source of endpoints says against what the server says; and `choose`, which turns the standings of a set
into those that may be used, however few they are. Read `combine.py` first. Nothing here connects, and nothing here
keeps state between two endpoints.
"""

from .combine import Standing, standing
from .panic import Choice, choose
from .watch import Report, watch_health

__all__ = ["Choice", "Report", "Standing", "choose", "standing", "watch_health"]
