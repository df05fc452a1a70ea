"""What do servers say of their load?

Entry points: `read_report`, which turns the bytes of a trailer into a report that can be believed; `watch_load`, which
follows what one server reports out of band for as long as its connection lives; and `probe_load`, which asks once. Read
`trust.py` first. Nothing here decides what a report is good for: that is for policies.
"""

from .codec import decode_report, encode_report
from .keys import OWN_KEY, STANDARD_KEY
from .stream import Listener, Probe, probe_load, watch_load
from .trust import fault_of, read_report

__all__ = [
    "OWN_KEY",
    "STANDARD_KEY",
    "Listener",
    "Probe",
    "decode_report",
    "encode_report",
    "fault_of",
    "probe_load",
    "read_report",
    "watch_load",
]
