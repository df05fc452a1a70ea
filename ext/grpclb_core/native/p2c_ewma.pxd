"""Power of two choices over peak EWMA, and what keeps it right where a fleet misbehaves."""

from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport word
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport SlotWords
from grpclb_core.native.view cimport Member


cdef class P2cEwmaPicker(Picker):
    cdef bint is_bare  # no rule is on, so that no choice need look for one
    cdef bint has_floor
    cdef bint has_probes
    cdef double age_factor
    cdef double stream_weight
    cdef double widen_factor
    cdef double peak_cap
    cdef double alike_factor
    cdef double spread_rate  # halvings per ns of the spread that is remembered
    cdef int64_t probe_ns
    # What the last survey found; all latencies as they stood when they were learnt
    cdef word surveyed_ns
    cdef word least_ns  # a double
    cdef word bad_ns  # a double: an endpoint that is slower is worth more draws
    cdef word care_ns  # a double: an endpoint that was slower is not taken without a closer look
    cdef word alike  # a double: how many times a latency another may be, and both count as equal
    cdef word place  # where the next survey begins
    cdef word probed_ns  # time of the last probe
    cdef word probed_state  # `state` at that time, which tells how many were drawn since

    cdef uint32_t prefer(self, uint32_t first, uint32_t second, int64_t now_ns) noexcept nogil
    cdef uint32_t choose_carefully(self, uint32_t first, uint32_t second, int64_t now_ns) noexcept nogil
    cdef void draw_two(self, uint32_t* first, uint32_t* second) noexcept nogil
    cdef double load_and_latency(self, const Member* member, int64_t now_ns, double* latency_ns) noexcept nogil
    cdef double newcomer_ns(self, const Member* member, int64_t now_ns) noexcept nogil
    cdef uint32_t widen(self, uint32_t best, double least_cost, int64_t now_ns) noexcept nogil
    cdef double excess(self, double latency_ns) noexcept nogil
    cdef uint32_t survey(self, int64_t now_ns) noexcept nogil
    cdef void conclude(self, double typical_ns, double least_ns) noexcept nogil
    cdef void remember_spread(self, double spread, int64_t since_ns) noexcept nogil
    cdef bint is_due(self, const SlotWords* slot, double typical_ns, int64_t now_ns) noexcept nogil
    cdef bint may_probe(self, const SlotWords* slot, int64_t now_ns) noexcept nogil
