"""Which endpoint, now? One generation of choice over an immutable view.

`choose` never waits, locks or touches a Python object; an extension that cimports a picker may call it without the
GIL. It opens no debt: whoever chooses for itself calls `open_call` and `close_call` of slot.pxd on the member chosen.
"""

from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport word
from grpclb_core.native.ticket cimport Issuer, Ticket
from grpclb_core.native.view cimport View


cdef class Picker(Issuer):
    cdef readonly View view
    cdef readonly str key_header  # the header that a choice goes by; None for all but `take_for` of some pickers
    cdef word state  # of the random draws, or the turn

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil
    cdef uint32_t spare_trials(self, uint32_t index, int64_t now_ns) noexcept
    cdef Ticket take(self, int64_t now_ns, bint stream)
    cdef Ticket take_for(self, object metadata, int64_t now_ns, bint stream)


cdef class LeastRequestPicker(Picker):
    cdef uint32_t choice_count


cdef class RoundRobinPicker(Picker):
    pass


cdef class RandomPicker(Picker):
    pass
