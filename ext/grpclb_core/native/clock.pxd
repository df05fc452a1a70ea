from libc.stdint cimport int64_t, uint64_t


cdef extern from "clock.h" nogil:
    const bint HAS_COUNTER "GRPCLB_HAS_COUNTER"
    ctypedef struct ClockScale "grpclb_clock_scale":
        uint64_t base_count
        int64_t base_ns
        uint64_t ns_per_count
    uint64_t counter "grpclb_counter"() noexcept
    int64_t system_ns "grpclb_system_ns"() noexcept
    int64_t scaled_ns "grpclb_scaled_ns"(const ClockScale*, uint64_t) noexcept
    int64_t read_clock "grpclb_now_ns"(const ClockScale*) noexcept


cdef const ClockScale* clock_scale() noexcept nogil
