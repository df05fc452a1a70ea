"""Which endpoint, now? One generation of choice over an immutable view.

`choose` never waits, locks or touches a Python object; an extension that cimports a picker may call it without the
GIL. It opens no debt: whoever chooses for itself calls `open_call` and `close_call` of slot.pxd on the member chosen.
"""

from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport word
from grpclb_core.native.ticket cimport Ticket
from grpclb_core.native.view cimport View


cdef class Picker:
    cdef readonly View view
    cdef double rate  # halvings per ns of the latency estimate
    cdef word state  # of the random draws, or the turn

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil
    cdef Ticket take(self, int64_t now_ns, bint stream)


cdef class P2cEwmaPicker(Picker):
    pass


cdef class LeastRequestPicker(Picker):
    cdef uint32_t choice_count


cdef class RoundRobinPicker(Picker):
    pass


cdef class RandomPicker(Picker):
    pass
