"""What a pick is measured against: calls that do nothing, calls that only read the clock, a picker that never chooses.

Built for benchmarks only (grpclb_core/cli/measure/scaffold.py); it cimports the core as any other extension would.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport SUCCESS, SlotWords, close_call, open_call

cdef const ClockScale* clock = clock_scale()


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class EmptyTicket:
    def finish(self, outcome, /):
        """Do nothing: a compiled call with one argument."""
        return True


@cython.final
cdef class EmptyPicker:
    def pick(self):
        """Return an object and do nothing else: a compiled call without arguments."""
        return EmptyTicket.__new__(EmptyTicket)


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class ClockedTicket:
    cdef int64_t start_ns

    def finish(self, outcome, /):
        """Do nothing but read the clock; the reading is kept, or the compiler would drop it."""
        self.start_ns = read_clock(clock) - self.start_ns
        return True


@cython.final
cdef class ClockedPicker:
    def pick(self):
        """Return an object that holds the time."""
        cdef ClockedTicket ticket = ClockedTicket.__new__(ClockedTicket)
        ticket.start_ns = read_clock(clock)
        return ticket


@cython.final
cdef class NullPicker(Picker):
    """Does all that a picker does, save choosing: the first endpoint gets every call."""

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        return 0


def read_clock_twice(int64_t count) -> int:
    """Read the clock twice, `count` times over; returns the sum of the differences in ns."""
    cdef int64_t turn, start_ns, sum_ns = 0
    with nogil:
        for turn in range(count):
            start_ns = read_clock(clock)
            sum_ns += read_clock(clock) - start_ns
    return sum_ns


def pick_and_finish(Picker picker not None, int64_t count) -> None:
    """Choose, open a call and close it, `count` times over without the GIL."""
    cdef int64_t turn, start_ns
    cdef SlotWords* slot
    with nogil:
        for turn in range(count):
            start_ns = read_clock(clock)
            slot = picker.view.members[picker.choose(start_ns)].slot
            open_call(slot, start_ns, False, False)
            close_call(slot, SUCCESS, start_ns, read_clock(clock), &picker.learning, False, False)


def slowest_ns(Picker picker not None, int64_t duration_ns) -> int:
    """Pick and finish without the GIL for `duration_ns`; returns what the slowest of the picks took in ns."""
    cdef int64_t begin_ns = read_clock(clock), start_ns = begin_ns, now_ns = begin_ns
    cdef int64_t most_ns = 0
    cdef SlotWords* slot
    with nogil:
        while now_ns - begin_ns < duration_ns:
            start_ns = now_ns  # the end of the pick before, so that nothing falls between two picks
            slot = picker.view.members[picker.choose(start_ns)].slot
            open_call(slot, start_ns, False, False)
            now_ns = read_clock(clock)
            close_call(slot, SUCCESS, start_ns, now_ns, &picker.learning, False, False)
            if now_ns - start_ns > most_ns:
                most_ns = now_ns - start_ns
    return most_ns
