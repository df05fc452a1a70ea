"""Choosing endpoints from another extension: no Python object is touched in the loop, and no GIL is held."""

from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport FAILURE, SUCCESS, SlotWords, close_call, open_call

cdef const ClockScale* clock = clock_scale()


cdef bint send(uint32_t endpoint, int64_t turn) noexcept nogil:
    """Stands for your own transport; here every tenth call fails."""
    return turn % 10 != 9


def drive(Picker picker not None, int64_t calls) -> None:
    """Make calls one after the other; any number of threads may do so with the same picker."""
    # `picker` is held by the caller for the whole loop; it holds the view, and the view the slots.
    cdef int64_t turn, started_ns
    cdef uint32_t endpoint
    cdef SlotWords* slot
    cdef int outcome
    with nogil:
        for turn in range(calls):
            started_ns = read_clock(clock)
            endpoint = picker.choose(started_ns)
            slot = picker.view.members[endpoint].slot
            open_call(slot, started_ns, False, False)  # a debt from here on ...
            outcome = SUCCESS if send(endpoint, turn) else FAILURE
            close_call(slot, outcome, started_ns, read_clock(clock), &picker.learning, False, False)  # ... to here, on every path
