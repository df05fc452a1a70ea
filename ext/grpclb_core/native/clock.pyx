"""The clock of the hot path: which source it reads, and at what rate."""

import os

from libc.stdint cimport int64_t, uint64_t

# Where Linux says what it keeps its own time by.
cdef str KERNEL_CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"

# Length of the measurement. The two readings at its ends are each good to about 50 ns, so 2 ms give a rate good to
# 50 parts in a million: half a microsecond in a call of ten milliseconds.
cdef int64_t CALIBRATION_NS = 2_000_000

# Readings tried at each end; the one with the least time around it is kept, so that an interruption does not count.
cdef int TRIES = 16

cdef ClockScale scale


cdef const ClockScale* clock_scale() noexcept nogil:
    return &scale


def now_ns() -> int:
    """Return the monotonic time in ns that picks and tickets are measured by."""
    return read_clock(&scale)


def clock_source() -> str:
    """Return "counter" (the CPU's time stamp counter) or "system" (CLOCK_MONOTONIC)."""
    return "counter" if scale.ns_per_count else "system"


cdef void read_both(uint64_t* count, int64_t* time_ns) noexcept nogil:
    """Read counter and system clock as close to one another as they come."""
    cdef int64_t before, after, narrowest = -1
    cdef uint64_t read
    cdef int attempt
    for attempt in range(TRIES):
        before = system_ns()
        read = counter()
        after = system_ns()
        if narrowest < 0 or after - before < narrowest:
            narrowest = after - before
            count[0] = read
            time_ns[0] = before + (after - before) // 2


cdef void calibrate() noexcept nogil:
    cdef uint64_t first_count = 0, last_count = 0
    cdef int64_t first_ns = 0, last_ns = 0
    read_both(&first_count, &first_ns)
    while system_ns() - first_ns < CALIBRATION_NS:
        pass
    read_both(&last_count, &last_ns)
    if last_count <= first_count:
        return
    scale.base_count = last_count
    scale.base_ns = last_ns
    scale.ns_per_count = <uint64_t> (<double> (last_ns - first_ns) / <double> (last_count - first_count) * 4294967296.0)


def _kernel_trusts_counter() -> bool:
    try:
        with open(KERNEL_CLOCK_SOURCE) as source:
            return source.read().strip() == "tsc"
    except OSError:
        return False


if HAS_COUNTER and os.environ.get("GRPCLB_CLOCK") != "system" and _kernel_trusts_counter():
    calibrate()
